"""One call of each convolution method, and the definition it agrees with."""

from __future__ import annotations

from jsc import methods
from jsc._geometry import ConvGeometry
from jsc.reference.conv import conv2d as by_definition  # noqa: F401  (what tests compare with)

METHODS = {name: methods.get(name) for name in ("im2col", "mec", "cpo", "cps", "cpc")}


def geometry(x, w, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    return ConvGeometry(*x.shape, w.shape[0], *w.shape[2:], *stride, *padding, *dilation)


def run(name, x, w, b, g):
    method = METHODS[name]
    return method.prepare(method.pack(w, g), b, g)(x)
