"""Choose the fastest convolution method for every layer of a model, and keep the choices as a plan.

  python -m jsc tune net.py:make_net --weights net.pt --sample batch.pt --out net.plan.json

MODEL is FILE.py:NAME or package.module:NAME. NAME is called without arguments and returns an
nn.Module (or is one). The file is run as a program is: take it from people you trust.

SAMPLE is a file with a real batch (.pt: a tensor, tuple or dict; .npy: an array), or a shape such
as 8,3,224,224. A shape gives random numbers, whose zeros are not those of real images: enough for
a first try, not for a plan to be used.

In the program that uses the model:  fast = jsc.apply(model, jsc.Plan.load("net.plan.json"))"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jsc.cli.states import load_weights, read, read_torch
from jsc.methods import METHODS
from jsc.tuning import tune
from jsc.tuning.capture import Sample

HELP = "choose convolution methods for a model and save the plan"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="FILE.py:NAME or package.module:NAME")
    parser.add_argument(
        "--sample", required=True, metavar="FILE|SHAPE", help="batch.pt, batch.npy or 8,3,224,224"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="state_dict to load (.pt, .safetensors)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="save the plan here")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument(
        "--methods",
        type=lambda text: text.split(","),
        metavar="A,B",
        help=f"of {','.join(METHODS)}",
    )
    parser.add_argument(
        "--min-gain", type=float, default=1.05, metavar="X", help="change a layer from X on (1.05)"
    )
    parser.add_argument(
        "--max-error", type=float, default=1e-4, metavar="X",
        help="of the outputs, over the largest of them (1e-4)",
    )  # fmt: skip
    parser.add_argument(
        "--budget", type=float, default=60.0, metavar="S", help="seconds to spend, about (60)"
    )


def load_model(text: str) -> nn.Module:
    """The model that FILE.py:NAME or package.module:NAME gives."""
    where, _, name = text.rpartition(":")
    if not where or not name.isidentifier():
        raise ValueError(f"MODEL must be FILE.py:NAME or package.module:NAME, got {text!r}")
    if where.endswith(".py"):
        path = Path(where)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {where}")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise ValueError(f"{where} cannot be loaded as a Python module")
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)  # so that its classes can be pickled and copied
        sys.path.insert(0, str(path.resolve().parent))  # its neighbours can be imported
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(where)
    if not hasattr(module, name):
        raise ValueError(f"{where} has no {name!r}")
    made = getattr(module, name)
    model = made if isinstance(made, nn.Module) else made()
    if not isinstance(model, nn.Module):
        raise TypeError(f"{text} must give an nn.Module, got {type(model).__name__}")
    return model


def load_sample(text: str) -> tuple[Any, bool]:
    """The sample, and whether it is a real one."""
    if re.fullmatch(r"\d+([,x]\d+)*", text):
        shape = [int(size) for size in re.split("[,x]", text)]
        try:
            return torch.randn(shape, generator=torch.Generator().manual_seed(0)), False
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"no memory holds a sample of shape {text}") from error
    path = Path(text)
    reader = _read_array if path.suffix == ".npy" else read_torch
    return read(path, "sample", reader), True


def _read_array(path: Path) -> Tensor:
    return torch.from_numpy(np.load(path, allow_pickle=False))


def first_run(model: nn.Module, sample: Any) -> None:
    """Run the model once as it will be used. ValueError, in one line, if it does not take the
    sample (what is none is left to those who say so)."""
    if not isinstance(sample, (Tensor, tuple, dict)):
        return
    given = Sample.of(sample)
    try:
        with torch.no_grad():
            model.eval()(*given.args, **given.kwargs)
    except Exception as error:  # whatever the user's own code raises
        what = textwrap.shorten(f"{type(error).__name__}: {error}", 300, placeholder=" ...")
        raise ValueError(f"MODEL does not run on the sample: {what}") from error


def run(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Tune, print the table, save the plan."""
    model = load_model(options.model)
    if options.weights:
        load_weights(model, options.weights)
    sample, real = load_sample(options.sample)
    first_run(model, sample)
    plan = tune(
        model,
        sample,
        methods=options.methods,
        min_gain=options.min_gain,
        max_error=options.max_error,
        budget_s=options.budget,
    )
    print(plan.to_markdown() if options.markdown else plan)
    if not real:
        print(
            "note: random numbers were the sample; densities of real images differ", file=sys.stderr
        )
    if options.out:
        plan.save(options.out)
    saved = f"; saved as {options.out}" if options.out else ""
    count = f"{len(plan.chosen)} of {len(plan.layers)} convolutions changed"
    print(f"{count}, the model runs {plan.gain:.2f}x as fast{saved}.")
    return 0, plan.to_dict()
