"""From a file to an answer: what reading, the stem and the whole network take, in turn."""

from __future__ import annotations

import copy
import io
import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import jsc
from benchmarks.common.harness import Ratio, Timing, check, interleave
from benchmarks.jpeg import dct_files
from benchmarks.jpeg.dct_files import Files
from benchmarks.jpeg.dct_networks import inputs
from benchmarks.peers import coefficients
from jsc.network import choices

DENSE = ("direct", *choices.TILES)
TOLERANCE = 1e-4
Runs = dict[str, Callable[[], Any]]


def readers(files: list[bytes], folder: Path) -> Runs:
    """The next file each call. At an eighth of the size, libjpeg decodes the entropy code of all
    coefficients and transforms only the DC: about what the least reader of coefficients takes."""
    from PIL import Image

    paths = [folder / f"{i}.jpg" for i in range(len(files))]
    for path, file in zip(paths, files, strict=True):
        path.write_bytes(file)
    turns = [itertools.cycle(range(len(files))) for _ in range(3)]

    def eighth() -> np.ndarray:
        picture = Image.open(io.BytesIO(files[next(turns[1])]))
        picture.draft("YCbCr", (picture.width // 8, picture.height // 8))
        return np.asarray(picture)

    return {
        "decode": lambda: dct_files.decode(files[next(turns[0])]),
        "decode at 1/8": eighth,
        "read coefficients": lambda: coefficients.read_path(paths[next(turns[2])]),
    }


def with_cpc(model: nn.Sequential) -> nn.Sequential:
    """The network whose first convolution skips zeros."""
    model = copy.deepcopy(model)
    stem = model[0].stem
    stem[0] = jsc.nn.SparseConv2d.from_dense(stem[0], method="cpc")
    return model


def compiled_dense(model: nn.Module, x: Tensor) -> jsc.CompiledNetwork:
    """The network, compiled, with convolutions that multiply zeros too, by the fastest method."""
    names = jsc.compile(model, x, budget=1.0, check=False, progress=False).plan
    nets = {
        method: jsc.compile(
            model, x, plan=dict.fromkeys(names, method), check=False, progress=False
        )
        for method in DENSE
    }
    times = interleave({method: partial(net, x) for method, net in nets.items()}, 5)
    return nets[min(nets, key=lambda method: times[method].median)]


def stages(kind: str, model: nn.Sequential, x: Tensor, budget: float) -> Runs:
    """ "stem" and "whole" network on integers `x`, each way; checked against float64."""
    front, trunk = model
    rest = nn.Sequential(front.stem, trunk)
    prepared = front.prepared(x)
    exact_stem = copy.deepcopy(front.stem).double()(prepared.double())
    exact = copy.deepcopy(rest).double()(prepared.double())
    net = jsc.compile(rest, prepared, budget=budget, check=False, progress=False)
    stem = jsc.compile(front.stem, prepared, budget=budget, check=False, progress=False)
    found: Runs = {
        f"{kind}, stem, torch": lambda: front(x),
        f"{kind}, stem, compiled": lambda: stem(front.prepared(x)),
        f"{kind}, whole, torch": lambda: model(x),
        f"{kind}, whole, compiled": lambda: net(front.prepared(x)),
    }
    if kind == "coefficients":
        sparse, dense = with_cpc(model), compiled_dense(front.stem, prepared)
        behind = jsc.compile(trunk, sparse[0](x), budget=budget, check=False, progress=False)
        found |= {
            f"{kind}, stem, compiled dense": lambda: dense(front.prepared(x)),
            f"{kind}, stem, cpc": lambda: sparse[0](x),
            f"{kind}, whole, cpc": lambda: sparse(x),
            f"{kind}, whole, cpc + compiled": lambda: behind(sparse[0](x)),
        }
    for name, run in found.items():
        check(name, run(), exact_stem if ", stem," in name else exact, TOLERANCE)
    return found


def measure(
    files: Files, models: dict[str, nn.Sequential], batch: int, rounds: int, budget: float
) -> dict[str, Any]:
    """Milliseconds an image of every stage, with quartiles, and the ratios that the page quotes."""
    runs: Runs = {}
    index = torch.linspace(0, len(files.test.y) - 1, min(batch, len(files.test.y))).long()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        read = readers([files.files[i] for i in index.tolist()], Path(folder))
        for kind, model in models.items():
            runs |= stages(kind, model, inputs(kind, files.test[index]), budget)
        times = interleave({**read, **runs}, rounds, 5e-3)
    each = {
        name: Timing(t.samples * (1e3 if name in read else 1e3 / len(index)))
        for name, t in times.items()
    }
    return {
        "ms": {name: t.median for name, t in each.items()},
        "quartiles": {n: np.quantile(t.samples, (0.25, 0.75)).tolist() for n, t in each.items()},
        "ratios": ratios(each),
    }


def fastest(times: dict[str, Timing], beginning: str) -> str:
    """Chosen on every second round; all are reported."""
    return min((n for n in times if n.startswith(beginning)), key=lambda n: times[n].half(0))


def ratios(times: dict[str, Timing]) -> dict[str, list[float]]:
    """Time of the pixels' way over that of the coefficients' way, each at its fastest."""

    def together(*names: str) -> Timing:
        return Timing(np.sum([times[name].samples for name in names], axis=0))

    found = {}
    for stage in ("stem", "whole"):
        pixels, ours = (fastest(times, f"{k}, {stage}") for k in ("pixels", "coefficients"))
        found[stage] = Ratio.of(times[pixels], times[ours])
    stem = {n: t for n, t in times.items() if n.startswith("coefficients, stem")}
    dense, sparse = (
        fastest({n: t for n, t in stem.items() if n.endswith(ends)}, "")
        for ends in ((", torch", ", compiled dense"), (", compiled", ", cpc"))
    )
    found["stem, zeros skipped"] = Ratio.of(times[dense], times[sparse])
    decoded = together("decode", pixels)
    found["file to answer"] = Ratio.of(decoded, together("read coefficients", ours))
    found["file to answer, ideal reader"] = Ratio.of(decoded, together("decode at 1/8", ours))
    return {name: [r.value, r.low, r.high] for name, r in found.items()}
