"""Options that are words of a fixed set, and a user's program under strict type checkers."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch

import jsc
from jsc import typing
from jsc._precision import PIECES
from jsc.functional import options
from jsc.methods import METHODS
from jsc.nn.jpeg import PRESETS
from jsc.ops.quant import MODES

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "tests" / "support" / "typed_program.py"


@pytest.mark.parametrize(
    ("alias", "known"),
    [
        (typing.MethodName, METHODS), (typing.Quantizer, MODES),
        (typing.Subsampling, options.SUBSAMPLINGS), (typing.ImagePadding, options.PADDINGS),
        (typing.Preset, PRESETS), (typing.PrecisionName, PIECES),
        (typing.PaddingMode, ("zeros", "reflect", "replicate", "circular")),
    ],
)  # fmt: skip
def test_a_type_has_the_words_that_are_checked(alias, known):
    assert get_args(alias) == tuple(known)


@pytest.mark.parametrize("word", get_args(typing.PaddingMode))
@pytest.mark.parametrize("padding", get_args(typing.NamedPadding))
def test_words_that_torch_checks(word, padding):
    x = torch.rand(1, 3, 9, 9)
    layer = jsc.nn.SparseConv2d(3, 4, 3, padding=padding, padding_mode=word)
    torch.testing.assert_close(layer(x), layer.to_dense()(x))


@pytest.mark.parametrize("word", get_args(typing.OnMismatch))
def test_words_of_apply(word):
    plan = jsc.Plan((), 1.0, 1.0, 0.0, 1.05)
    assert isinstance(jsc.apply(torch.nn.Identity(), plan, on_mismatch=word), torch.nn.Identity)


@pytest.mark.parametrize("word", get_args(typing.Processes))
def test_words_of_processes(word):
    images = [torch.rand(1, 3, 8, 8)]
    assert jsc.jpeg.mean_absolute(images, processes=word).shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (jsc.functional.conv2d, {"method": typing.MethodName}),
        (jsc.nn.SparseConv2d.__init__,
         {"method": typing.MethodName, "padding_mode": typing.PaddingMode}),
        (jsc.nn.SparseConv2d.from_dense, {"method": typing.MethodName}),
        (jsc.functional.jpeg, {"quantizer": typing.Quantizer, "padding": typing.ImagePadding,
                               "subsampling": typing.Subsampling}),
        (jsc.functional.jpeg_rate, {"quantizer": typing.Quantizer, "padding": typing.ImagePadding,
                                    "subsampling": typing.Subsampling}),
        (jsc.nn.JPEG.__init__, {"quantizer": typing.Quantizer, "padding": typing.ImagePadding,
                                "subsampling": typing.Subsampling}),
        (jsc.nn.JPEG.preset, {"name": typing.Preset}),
        (jsc.jpeg.save, {"subsampling": typing.Subsampling}),
        (jsc.jpeg.decoded, {"subsampling": typing.Subsampling}),
        (jsc.apply, {"on_mismatch": typing.OnMismatch}),
        (jsc.jpeg.sensitivity, {"processes": typing.Processes}),
        (jsc.jpeg.mean_absolute, {"processes": typing.Processes}),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)  # fmt: skip
def test_public_options_have_these_types(function, wanted):
    hints = get_type_hints(function)
    assert {name: hints[name] for name in wanted} == wanted


def test_the_options_of_a_sparse_convolution_are_torchs():
    """The same names in the same order with the same defaults, then `method`."""
    ours = inspect.signature(jsc.nn.SparseConv2d).parameters.values()
    theirs = inspect.signature(torch.nn.Conv2d).parameters.values()
    assert [(p.name, p.default) for p in ours][:-1] == [(p.name, p.default) for p in theirs]


def test_options_of_the_layer_are_typed():
    hints = get_type_hints(options.JpegOptions)
    assert hints["quantizer"] == typing.Quantizer
    assert {field.name for field in dataclasses.fields(options.JpegOptions)} <= set(hints)


# ---- type checkers -------------------------------------------------------------------------------


def check(module: str, *arguments: str) -> str:
    """What a type checker says of the program; it reads this package's sources (py.typed)."""
    pytest.importorskip(module)
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments, str(PROGRAM)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_py_typed_is_there():
    assert (Path(jsc.__file__).parent / "py.typed").exists()


def test_mypy_takes_a_users_program(tmp_path):
    """Strict; `type: ignore` in it marks what has to be an error, and an unused one is an error."""
    config = tmp_path / "mypy.ini"
    config.write_text(f"[mypy]\nmypy_path = {ROOT / 'src'}\n")
    said = check(
        "mypy", "--strict", "--config-file", str(config), "--cache-dir", str(tmp_path / "cache")
    )
    assert "Success: no issues found in 1 source file" in said, said
