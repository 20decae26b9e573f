"""Compressed activation maps: tensors that encode, decode and tell their size."""

from jsc.formats.cpc import CPC as CPC
from jsc.formats.cpo import CPO as CPO
from jsc.formats.cps import CPS as CPS
