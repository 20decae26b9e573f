"""Functions on tensors: arguments are checked here, in words, before an operator runs."""

from jsc.functional.conv import conv2d as conv2d
