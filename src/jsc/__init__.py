"""jsc: a trainable JPEG layer and sparse-activation convolutions for PyTorch on the CPU."""

import logging as _logging

import torch as _torch  # first: jsc's kernels must bind to torch's own OpenMP runtime  # noqa: F401

from jsc import formats as formats
from jsc import functional as functional
from jsc import jpeg as jpeg
from jsc import nn as nn
from jsc._extras import MissingExtraError as MissingExtraError
from jsc._installation import show_versions as show_versions
from jsc._version import __version__ as __version__
from jsc.network import CompiledNetwork as CompiledNetwork
from jsc.network import CompileError as CompileError
from jsc.network import compile as compile
from jsc.network import load as load
from jsc.tuning import HoyerSquare as HoyerSquare
from jsc.tuning import LayerChoice as LayerChoice
from jsc.tuning import Plan as Plan
from jsc.tuning import PlanError as PlanError
from jsc.tuning import PlanWarning as PlanWarning
from jsc.tuning import apply as apply
from jsc.tuning import restore as restore
from jsc.tuning import sparsify as sparsify
from jsc.tuning import tune as tune

# A program that says nothing about logging hears nothing; logging.basicConfig(level="INFO") shows
# what jsc.tune and jsc.compile chose.
_logging.getLogger("jsc").addHandler(_logging.NullHandler())
