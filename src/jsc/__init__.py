"""jsc: a trainable JPEG layer and sparse-activation convolutions for PyTorch, on fast CPU kernels."""

import torch as _torch  # first: jsc's kernels must bind to torch's own OpenMP runtime  # noqa: F401

from jsc import functional as functional
from jsc import jpeg as jpeg
from jsc import nn as nn

__version__ = "0.1.0"
