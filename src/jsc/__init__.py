"""jsc: a trainable JPEG layer and sparse-activation convolutions for PyTorch on the CPU."""

import torch as _torch  # first: jsc's kernels must bind to torch's own OpenMP runtime  # noqa: F401

from jsc import formats as formats
from jsc import functional as functional
from jsc import jpeg as jpeg
from jsc import nn as nn
from jsc.optimize import LayerChoice as LayerChoice
from jsc.optimize import Plan as Plan
from jsc.optimize import PlanError as PlanError
from jsc.optimize import PlanWarning as PlanWarning
from jsc.optimize import apply as apply
from jsc.optimize import (
    optimize as optimize,
)  # last of its package: the function shadows the package
from jsc.optimize import restore as restore
from jsc.optimize import tune as tune

__version__ = "0.1.0"
