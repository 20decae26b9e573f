"""What the tests of processes and threads share: interpreters, and a little work of every kind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from torch.nn import functional as F

import jsc
from jsc.methods import available

START = "import torch\nfrom tests.reliability import life\ntorch.set_num_threads(2)\n"
LIMIT = 120  # seconds after which a process hangs for certain
ROOT = Path(__file__).parents[2]
SOURCE = Path(jsc.__file__).parents[1]
METHODS = [method for method in available() if method != "dense"]


def environment(**changes: str | None) -> dict[str, str]:
    """This process's environment with both source trees on the path; None takes a name away."""
    paths = [str(SOURCE), str(ROOT), os.environ.get("PYTHONPATH", "")]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **changes}
    return {name: value for name, value in found.items() if value is not None}


def python(code: str, *options: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
    """A new interpreter that runs `code`."""
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        capture_output=True, text=True, timeout=LIMIT, env=environment(**changes),
    )  # fmt: skip


def finishes(run: subprocess.CompletedProcess[str], printed: str = "done") -> None:
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == printed.split(), run.stderr
    for word in ("Fatal", "Exception", "terminate called", "Segmentation"):
        assert word not in run.stderr, run.stderr


def integers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(seed)).float()


def layer(method: str, channels: int = 32, filters: int = 48) -> jsc.nn.SparseConv2d:
    """Large enough for more than one thread; integers, so that the right result is exact."""
    made = jsc.nn.SparseConv2d(channels, filters, 3, padding=1, method=method)
    for i, parameter in enumerate(made.requires_grad_(False).parameters()):
        parameter.copy_(integers(*parameter.shape, seed=i))
    return made.eval()


def image(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(seed))


def work() -> list[torch.Tensor]:
    """Something of everything, checked where the right result is known; always the same bits."""
    x, results = integers(2, 32, 20, 20).relu(), []
    for method in METHODS:
        module = layer(method)
        expected = F.conv2d(x, module.weight, module.bias, padding=1)
        for _ in range(2):
            out = module(x)
            assert torch.equal(out, expected), method
        results.append(out)
    for kind in (jsc.formats.CPO, jsc.formats.CPS, jsc.formats.CPC):
        assert torch.equal(kind.encode(x, 3, padding=1).decode(), x), kind
    jpeg, pixels = jsc.nn.JPEG.from_quality(50, kappa=3.0), image().requires_grad_()
    y = jpeg(pixels)
    results += [y.detach(), *torch.autograd.grad(y.square().sum(), [pixels, jpeg.tables])]
    return results


def same_work(expected: list[torch.Tensor]) -> None:
    """For a child process: its results are those of its parent."""
    assert all(torch.equal(a, b) for a, b in zip(work(), expected, strict=True))
