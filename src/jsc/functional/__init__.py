"""Functions on tensors: arguments are checked here, in words, before an operator runs."""

from jsc.functional.contrast import local_contrast as local_contrast
from jsc.functional.conv import conv2d as conv2d
from jsc.functional.dct import block_dct as block_dct
from jsc.functional.dct import block_idct as block_idct
from jsc.functional.jpeg import jpeg as jpeg
from jsc.functional.options import JpegOptions as JpegOptions
from jsc.functional.quant import soft_quantize as soft_quantize
from jsc.functional.rate import jpeg_rate as jpeg_rate
