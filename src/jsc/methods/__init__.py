"""Convolution methods: one class each, one list of them, one operator over all.

    base       what a method is: `Method`
    registry   the list: `METHODS`, `get(name)`, `available()`
    dense, lowering, columns, cpc, winograd, amx   the methods
    convolve   weights packed by a method and calls prepared by it, with groups
    operator   `jsc::conv2d` and its gradient

Modules, functions and tuning ask these for everything they need to know of a method.
"""

from jsc.methods.base import Method as Method
from jsc.methods.convolve import geometry as geometry
from jsc.methods.convolve import kept_pack as kept_pack
from jsc.methods.convolve import likely_fastest_first as likely_fastest_first
from jsc.methods.convolve import output_format as output_format
from jsc.methods.convolve import prepare as prepare
from jsc.methods.convolve import unsupported as unsupported
from jsc.methods.operator import Conv2d as Conv2d
from jsc.methods.registry import METHODS as METHODS
from jsc.methods.registry import available as available
from jsc.methods.registry import get as get
