"""Edges of the domain of a convolution: every method, instruction set, type, called and packed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import jsc
from jsc import methods as ops
from jsc._geometry import ConvGeometry
from jsc.formats import CPC, CPO, CPS

METHODS = [m for m in ops.METHODS if m != "dense"]
FORMATS = [CPO, CPS, CPC]
STEPS = {"stride": 1, "padding": 0, "dilation": 1}  # and what they are unless given
FEW_GEOMETRIES = ("winograd",)  # 3 x 3 kernels of stride and dilation 1
# The memory of the others would grow with a padding: they refuse what is mostly padding, in words.
REFUSES_WIDE_STEPS = (*FEW_GEOMETRIES, "mec", "amx")


def whole(*shape: int, low: int = -4) -> Tensor:
    """Small integers, whose sums are exact in any order."""
    return torch.randint(low, 5, shape)


def corners(*shape: int) -> Tensor:
    """(4 C, C, H, W): a map for each channel with nothing but one number in one corner."""
    C, H, W = shape
    maps = torch.zeros(4, C, C, H, W, dtype=torch.long)
    for place, (i, j) in enumerate([(0, 0), (0, W - 1), (H - 1, 0), (H - 1, W - 1)]):
        for channel in range(C):
            maps[place, channel, channel, i, j] = channel % 5 + 1
    return maps.flatten(0, 1)


# input, kernel, padding, stride
EDGES: dict[str, tuple[Callable[[], Tensor], tuple[int, int], tuple[int, int], int]] = {
    "all zero": (lambda: torch.zeros(2, 65, 7, 6), (3, 3), (1, 1), 1),
    "all dense": (lambda: whole(2, 65, 7, 6, low=1), (3, 3), (1, 1), 1),
    "all dense, pointwise": (lambda: whole(1, 65, 5, 6, low=1), (1, 1), (0, 0), 1),
    "all dense, 5x5": (lambda: whole(1, 17, 9, 11, low=1), (5, 5), (2, 2), 1),
    "one channel dense, others zero": (
        lambda: whole(1, 70, 6, 5, low=1) * (torch.arange(70) == 66).view(-1, 1, 1),
        (3, 3), (1, 1), 1,
    ),
    "corners": (lambda: corners(3, 6, 5), (3, 3), (1, 1), 1),
    "corners, no padding": (lambda: corners(3, 6, 5), (3, 3), (0, 0), 1),
    "corners, stride 2": (lambda: corners(3, 7, 6), (3, 3), (1, 1), 2),
    "corners, 1x7": (lambda: corners(2, 4, 9), (1, 7), (0, 3), 1),
    "corners, 7x1": (lambda: corners(2, 9, 4), (7, 1), (3, 0), 1),
    "corners, far padding": (lambda: corners(2, 4, 5), (3, 3), (4, 5), 1),
    "one row": (lambda: whole(2, 20, 1, 33), (3, 3), (1, 1), 1),
    "one column": (lambda: whole(2, 20, 33, 1), (3, 3), (1, 1), 1),
    "one pixel": (lambda: whole(2, 130, 1, 1), (3, 3), (1, 1), 1),
    "one pixel, pointwise": (lambda: whole(1, 130, 1, 1), (1, 1), (0, 0), 1),
    "kernel larger than the map": (lambda: whole(2, 20, 2, 3), (7, 7), (3, 3), 1),
    "kernel as large as the padded map": (lambda: whole(1, 20, 3, 2), (5, 4), (1, 1), 1),
    "kernel larger than one pixel, stride 2": (lambda: whole(1, 20, 1, 1), (5, 5), (3, 3), 2),
    "no images": (lambda: torch.zeros(0, 20, 5, 6), (3, 3), (1, 1), 1),
}  # fmt: skip


def both_ways(
    x: Tensor, w: Tensor, bias: Tensor | None, padding: tuple[int, int], stride: int, method: str
) -> list[Tensor]:
    """As a function (packs the weights in the call) and as a module (prepared beforehand), in
    both memory formats."""
    module = jsc.nn.SparseConv2d(
        w.shape[1], w.shape[0], tuple(w.shape[2:]), stride, padding, bias=bias is not None,
        method=method, dtype=x.dtype,
    ).requires_grad_(False)  # fmt: skip
    module.weight.copy_(w)
    if bias is not None:
        module.bias.copy_(bias)
    pixels = x.contiguous(memory_format=torch.channels_last)
    function = jsc.functional.conv2d(x, w, bias, stride, padding, method=method)
    return [
        function,
        module(x),
        module(pixels),
        module(pixels),
    ]  # the last finds it prepared


def refuses(method: str, x: Tensor, w: Tensor, padding: tuple[int, int], stride: int) -> bool:
    """Whether it is a method of few geometries and this is none of them; it says so in words."""
    g = ops.geometry(x, w, (stride, stride), padding, (1, 1), 1)
    if method not in FEW_GEOMETRIES or ops.unsupported(method, g) is None:
        return False
    with pytest.raises(ValueError, match="cannot do this convolution"):
        jsc.functional.conv2d(x, w, None, stride, padding, method=method)
    return True


@pytest.mark.parametrize("method", METHODS)
def test_edges_are_exact(isa, num_threads, dtype, method):
    for edge, (make, kernel, padding, stride) in EDGES.items():
        x = make().to(dtype)
        w, bias = whole(35, x.shape[1], *kernel).to(dtype), whole(35).to(dtype)
        if refuses(method, x, w, padding, stride):
            continue
        expected = F.conv2d(x.double(), w.double(), bias.double(), stride, padding).to(dtype)
        for out in both_ways(x, w, bias, padding, stride, method):
            assert out.dtype == dtype, edge
            assert torch.equal(out, expected), edge


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (1, 7)], ids=str)
def test_one_bad_activation_reaches_its_windows_only(isa, dtype, method, kernel):
    """Exactly the outputs whose window holds it are not finite; the others keep their bits."""
    padding = (kernel[0] // 2, kernel[1] // 2)
    x = whole(1, 20, 7, 9, low=0).to(dtype)
    w = (whole(19, 20, *kernel, low=1) * (1 - 2 * torch.randint(2, (19, 20, *kernel)))).to(dtype)
    if refuses(method, x, w, padding, 1):
        return
    for i, j in [(0, 0), (0, 8), (6, 0), (6, 8), (3, 4)]:
        x[0, 17, i, j] = 0
        rest = F.conv2d(x, w, None, 1, padding)
        at = torch.zeros_like(x)
        at[0, 17, i, j] = 1
        weight = F.conv2d(at, w, None, 1, padding)  # the one through which each output sees it
        for value in (float("nan"), float("inf"), -float("inf")):
            bad = x + 0
            bad[0, 17, i, j] = value
            expected = torch.where(weight == 0, rest, weight * value)
            for out in both_ways(bad, w, None, padding, 1, method):
                torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("method", METHODS)
def test_maps_of_bad_numbers_only(isa, dtype, method):
    x = torch.full((1, 18, 5, 6), float("nan"), dtype=dtype)
    x[:, 9:] = float("inf")
    w = torch.ones(3, 18, 3, 3, dtype=dtype)
    for out in both_ways(x, w, None, (1, 1), 1, method):
        assert out.isnan().all()
    for out in both_ways(x[:, 9:].contiguous(), w[:, 9:].contiguous(), None, (1, 1), 1, method):
        assert out.isposinf().all()


@pytest.mark.parametrize("kind", FORMATS)
def test_edges_survive_storage(isa, num_threads, dtype, kind):
    for make, kernel, padding, stride in EDGES.values():
        x = make().to(dtype)
        if min(x.shape[2:]) > 1:
            x[:, :1, 0, 0], x[:, :1, -1, -1] = float("nan"), -float("inf")
        code = kind.encode(x, kernel, stride, padding)
        torch.testing.assert_close(code.decode(), x, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("method", METHODS)
def test_a_kernel_that_does_not_fit_is_an_error(dtype, method):
    x, w = torch.zeros(1, 2, 2, 9, dtype=dtype), torch.zeros(1, 2, 5, 5, dtype=dtype)
    with pytest.raises(ValueError, match="does not fit into the padded input"):
        jsc.functional.conv2d(x, w, padding=1, method=method)
    for kind in FORMATS:
        with pytest.raises(ValueError, match="does not fit into the padded map"):
            kind.encode(x, 5, padding=1)


@pytest.mark.parametrize(
    "steps",
    [
        {"stride": (1, 2**24), "padding": (1, 2**24)},
        {"stride": 2**20, "padding": 2**20},
        {"padding": (0, 2**20), "dilation": (1, 2**20)},
        {"padding": (2**20, 0), "dilation": (2**20, 1)},
    ],
    ids=["wide stride", "wide strides", "wide dilation", "high dilation"],
)
@pytest.mark.parametrize("method", [*METHODS, "formats"])
def test_wide_steps_take_what_the_data_take(method, steps, num_threads):
    """The result of the dense way, or a refusal in words, in the memory of the test process."""
    x, w = torch.randint(1, 5, (1, 2, 4, 4)).float(), torch.randint(-4, 5, (3, 2, 3, 3)).float()
    if method == "formats":
        for kind in (CPO, CPS, CPC):
            assert torch.equal(kind.encode(x, 1).decode(), x)
            made = kind.encode(x, 3, **steps)
            assert made.nbytes < 4096
        return
    expected = wide(x, w, **steps)
    g = ops.geometry(x, w, *(both(steps.get(name, d)) for name, d in STEPS.items()), 1)
    if ops.unsupported(method, g):
        assert method in REFUSES_WIDE_STEPS
        with pytest.raises(ValueError, match=r"padding|dilation|strides"):
            jsc.functional.conv2d(x, w, method=method, **steps)
    else:
        assert torch.equal(jsc.functional.conv2d(x, w, method=method, **steps), expected)


def both(value):
    return (value, value) if isinstance(value, int) else value


def wide(x, w, stride=1, padding=0, dilation=1):
    """The definition, over the taps that lie in the map: torch's own takes the padding's time."""
    (Sh, Sw), (Ph, Pw), (Dh, Dw) = both(stride), both(padding), both(dilation)
    g = ConvGeometry(*x.shape, w.shape[0], *w.shape[2:], Sh, Sw, Ph, Pw, Dh, Dw)
    out = torch.zeros(1, g.K, g.Oh, g.Ow)
    for y in range(g.Oh):
        for s in range(g.Ow):
            for i in range(g.Kh):
                for j in range(g.Kw):
                    at = y * Sh + i * Dh - Ph, s * Sw + j * Dw - Pw
                    if 0 <= at[0] < g.H and 0 <= at[1] < g.W:
                        out[0, :, y, s] += w[:, :, i, j] @ x[0, :, at[0], at[1]]
    return out
