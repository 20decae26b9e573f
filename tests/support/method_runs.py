"""One call of each convolution operator below `jsc.methods`, and the definition it agrees with."""

from __future__ import annotations

from types import SimpleNamespace

from jsc._geometry import ConvGeometry
from jsc.ops import cpc, cpo, cps, lowering
from jsc.reference.conv import conv2d as by_definition  # noqa: F401  (what tests compare with)

METHODS = {
    "im2col": SimpleNamespace(
        unsupported=lowering.im2col_unsupported, pack=lowering.im2col_pack, run=lowering.im2col_run
    ),
    "mec": SimpleNamespace(
        unsupported=lowering.mec_unsupported, pack=lowering.mec_pack, run=lowering.mec_run
    ),
    "cpo": cpo,
    "cps": cps,
    "cpc": cpc,
}


def geometry(x, w, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    return ConvGeometry(*x.shape, w.shape[0], *w.shape[2:], *stride, *padding, *dilation)


def run(method, x, w, b, g):
    return METHODS[method].run(x, METHODS[method].pack(w, g), b, g)
