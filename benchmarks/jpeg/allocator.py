"""What it gains that glibc keeps the memory that torch frees.

torch asks for the memory of every tensor anew. By default glibc gives large pieces back to the
system when they are freed, which fills each page with zeros when it is touched again. The variables
of `KEPT` let it keep them; a process reads them once, as it starts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import jsc
from benchmarks.common import report
from benchmarks.common.harness import Ratio, check, take_turns
from benchmarks.common.workers import Run, Worker
from benchmarks.networks import steps

KEPT = {"MALLOC_TRIM_THRESHOLD_": "4294967296", "MALLOC_MMAP_THRESHOLD_": "4294967296"}
SETTINGS: dict[str, dict[str, str]] = {"default": {}, "kept": KEPT}
TOLERANCE = 1e-4  # between the two processes, whose sums may be in another order


def layer(size: int, backward: bool) -> tuple[Run, None]:
    """The JPEG layer alone, on 8 images."""
    torch.manual_seed(0)
    x = torch.rand(8, 3, size, size, requires_grad=backward)
    module, grad = jsc.nn.JPEG.from_quality(50, kappa=2.0), torch.ones_like(x)

    def run() -> Tensor:
        with torch.set_grad_enabled(backward):
            y = module(x)
        if backward:
            torch.autograd.grad(y, (x, module.tables), grad)
        return y.detach()

    return run, None


def step(name: str, batch: int) -> tuple[Run, None]:
    """An optimisation step of a network in torch, for which the setting counts as well."""
    with torch.enable_grad():
        model = steps.prepared(name, None, 0, batch)
    x, y = steps.examples(name, None, batch)
    one = steps.step(model, x.contiguous(memory_format=torch.channels_last), y)

    def run() -> Tensor:
        with torch.enable_grad():
            return one().detach().reshape(1)

    return run, None


def rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    size, batch = (32, 4) if options.quick else (224, 64)
    runs: dict[str, tuple[Callable[..., tuple[Run, None]], tuple[Any, ...]]] = {
        f"layer, forward, 8 x {size}x{size}": (layer, (size, False)),
        f"layer, forward and backward, 8 x {size}x{size}": (layer, (size, True)),
        f"step of vgg_bn behind the layer, {batch} x 32x32": (step, ("vgg_bn+jpeg", batch)),
        f"step of resnet18 in torch, {batch} x 64x64": (step, ("resnet18", batch)),
    }
    found = []
    for threads in options.threads:
        workers = {name: Worker(threads, given) for name, given in SETTINGS.items()}
        for what, (build, arguments) in report.progress(runs.items(), "settings of the allocator"):
            results = [w.make(build, *arguments).result for w in workers.values()]
            check(what, *results, TOLERANCE)  # type: ignore[arg-type]
            times = take_turns({n: w.sample for n, w in workers.items()}, options.rounds)
            gain = Ratio.of(times["default"], times["kept"])
            found.append({
                "what": what, "threads": threads,
                **{f"{name}, ms": 1e3 * times[name].median for name in SETTINGS},
                "gain": f"{gain.value:.2f} ({gain.low:.2f}–{gain.high:.2f})",
            })  # fmt: skip
        for worker in workers.values():
            worker.close()
    return found
