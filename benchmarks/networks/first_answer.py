"""One network from its file to its first answer, in the process that this is; for `load`.

    python -m benchmarks.networks.first_answer RUNTIME FILE INPUT.npy THREADS OUTPUT.npy

prints as JSON the seconds of the runtime's import, of loading, of the first answer, and by how many
MB the most memory that the process has had grew meanwhile. jsc's import comes after torch's, which
is not counted: who calls it has torch. Nothing else is imported here.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np


def main(runtime: str, file: str, given: str, threads: int, answer: str) -> None:
    x = np.load(given)
    if runtime == "jsc":
        import torch

        torch.set_num_threads(threads)
    before = most_memory()
    start = time.perf_counter()
    if runtime == "jsc":
        import jsc

        imported = time.perf_counter()
        net = jsc.load(file)
        loaded = time.perf_counter()
        with torch.inference_mode():
            y = net(torch.from_numpy(x)).numpy()
    elif runtime == "ORT":
        import onnxruntime as ort

        imported = time.perf_counter()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        loaded = time.perf_counter()
        y = session.run(None, {"x": x})[0]
    else:
        import openvino as ov

        imported = time.perf_counter()
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        core = ov.Core()
        request = core.compile_model(core.read_model(file), "CPU", settings).create_infer_request()
        loaded = time.perf_counter()
        y = request.infer({0: x})[0]
    end = time.perf_counter()
    memory = most_memory() - before
    np.save(answer, y)
    print(json.dumps([imported - start, loaded - imported, end - loaded, memory]))


def most_memory() -> float:
    """MB that this process has had at most. Not getrusage's, which are at least the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), sys.argv[5])  # type: ignore[misc]
