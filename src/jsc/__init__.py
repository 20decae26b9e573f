"""jsc: a trainable JPEG layer and sparse-activation convolutions for PyTorch on the CPU.

Compiled networks come with the package. Everything else is imported when it is first asked for, so
that a network from a file answers sooner.
"""

import logging as _logging
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

import torch as _torch  # first: jsc's kernels must bind to torch's own OpenMP runtime  # noqa: F401

from jsc._extras import MissingExtraError as MissingExtraError
from jsc._installation import show_versions as show_versions
from jsc._version import __version__ as __version__
from jsc.network import CompiledNetwork as CompiledNetwork
from jsc.network import CompileError as CompileError
from jsc.network import compile as compile
from jsc.network import load as load

_PACKAGES = {"formats", "functional", "jpeg", "methods", "nn", "tuning", "typing"}
_OF_TUNING = {
    "HoyerSquare", "LayerChoice", "Plan", "PlanError", "PlanWarning", "apply", "restore",
    "sparsify", "tune",
}  # fmt: skip

if _TYPE_CHECKING:
    from jsc import formats as formats
    from jsc import functional as functional
    from jsc import jpeg as jpeg
    from jsc import methods as methods
    from jsc import nn as nn
    from jsc import tuning as tuning
    from jsc import typing as typing
    from jsc.tuning import HoyerSquare as HoyerSquare
    from jsc.tuning import LayerChoice as LayerChoice
    from jsc.tuning import Plan as Plan
    from jsc.tuning import PlanError as PlanError
    from jsc.tuning import PlanWarning as PlanWarning
    from jsc.tuning import apply as apply
    from jsc.tuning import restore as restore
    from jsc.tuning import sparsify as sparsify
    from jsc.tuning import tune as tune
else:

    def __getattr__(name: str) -> object:
        if name in _PACKAGES:
            return _import_module(f"jsc.{name}")
        if name in _OF_TUNING:
            return getattr(_import_module("jsc.tuning"), name)
        raise AttributeError(f"module 'jsc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PACKAGES, *_OF_TUNING})


# A program that says nothing about logging hears nothing; logging.basicConfig(level="INFO") shows
# what jsc.tune and jsc.compile chose.
_logging.getLogger("jsc").addHandler(_logging.NullHandler())
