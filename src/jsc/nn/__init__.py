"""Modules: parameters plus one call of `jsc.functional`."""

from jsc.nn.sparse_conv import SparseConv2d as SparseConv2d
