"""Convolution by its definition."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from jsc._geometry import ConvGeometry


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None, g: ConvGeometry) -> Tensor:
    """Each output out[n, k, y, x] is

        bias[k] + sum_{c, i, j} in[n, c, y Sh + i Dh - Ph, x Sw + j Dw - Pw] weight[k, c, i, j],

    with g.groups groups of channels; every product is made, zeros too."""
    x = pad(input, (g.Pw, g.Pw, g.Ph, g.Ph)).unflatten(1, (g.groups, -1))
    w = weight.unflatten(0, (g.groups, -1))
    out = input.new_zeros((g.N, g.groups, g.K // g.groups, g.Oh, g.Ow))
    for i in range(g.Kh):
        for j in range(g.Kw):
            rows = slice(i * g.Dh, i * g.Dh + (g.Oh - 1) * g.Sh + 1, g.Sh)
            columns = slice(j * g.Dw, j * g.Dw + (g.Ow - 1) * g.Sw + 1, g.Sw)
            out += torch.einsum("ngchw,gkc->ngkhw", x[..., rows, columns], w[..., i, j])
    out = out.flatten(1, 2)
    return out if bias is None else out + bias.view(-1, 1, 1)
