"""Modules: parameters plus one call of `jsc.functional`."""

from jsc.nn.contrast import LocalContrast as LocalContrast
from jsc.nn.fat_relu import FATReLU as FATReLU
from jsc.nn.jpeg import JPEG as JPEG
from jsc.nn.jpeg_parts import BlockDCT as BlockDCT
from jsc.nn.jpeg_parts import InverseBlockDCT as InverseBlockDCT
from jsc.nn.jpeg_parts import SoftQuantizer as SoftQuantizer
from jsc.nn.random_jpeg import RandomJPEG as RandomJPEG
from jsc.nn.sparse_conv import SparseConv2d as SparseConv2d
