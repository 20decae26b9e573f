"""Other runtimes for whole networks, each in its best setting: ONNX Runtime, OpenVINO,
torch.compile.

    run = onnxruntime(file, threads)      of a file that `export` wrote
    y = run(x.numpy())

Both ONNX peers get the model through torch's exporter, which takes local response normalisation to
pieces; so a network that has it is exported with a real LRN node too, and the faster one counts.
"""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Run = Callable[[Any], Tensor]


class _Lrn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
        return F.local_response_norm(x, size, alpha, beta, k)

    @staticmethod
    def symbolic(g: Any, x: Any, size: int, alpha: float, beta: float, k: float) -> Any:
        return g.op("LRN", x, size_i=size, alpha_f=alpha, beta_f=beta, bias_f=k)


class _LrnNode(nn.Module):
    def __init__(self, lrn: nn.LocalResponseNorm):
        super().__init__()
        self.lrn = lrn

    def forward(self, x: Tensor) -> Tensor:
        n = self.lrn
        return _Lrn.apply(x, n.size, float(n.alpha), float(n.beta), float(n.k))


def missing() -> list[str]:
    """What is not installed."""
    return [
        name for name in ("onnx", "onnxruntime", "openvino") if not importlib.util.find_spec(name)
    ]


def export(model: nn.Module, x: Tensor, path: Path) -> list[Path]:
    """The ONNX files of a model: as torch writes it, and with real LRN nodes if it has some."""
    forms = {path.with_name(f"{path.name}.onnx"): model}
    if any(isinstance(m, nn.LocalResponseNorm) for m in model.modules()):
        with_nodes = copy.deepcopy(model)
        for name, module in list(with_nodes.named_modules()):
            if isinstance(module, nn.LocalResponseNorm):
                parent, _, leaf = name.rpartition(".")
                setattr(with_nodes.get_submodule(parent), leaf, _LrnNode(module))
        forms[path.with_name(f"{path.name}.lrn.onnx")] = with_nodes
    for file, form in forms.items():
        if not file.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    form, (x,), str(file), dynamo=False, opset_version=17,
                    input_names=["x"], output_names=["y"],
                )  # fmt: skip
    return list(forms)


def onnxruntime(file: Path, threads: int) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x})[0])


def openvino(file: Path, threads: int, precision: str = "f32") -> Run:
    import openvino as ov

    core = ov.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(core.read_model(file), "CPU", settings).create_infer_request()
    return lambda x: torch.from_numpy(request.infer({0: x})[0].copy())


def torch_compile(model: nn.Module, x: Tensor) -> Run:
    """With freezing, which folds batch-norm and packs weights for oneDNN; for inputs like
    `x`, which is channels-last."""
    import torch._inductor.config as inductor

    torch._dynamo.reset()
    inductor.freezing = True
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    compiled = torch.compile(last)
    compiled(x)
    run: Run = compiled
    return run
