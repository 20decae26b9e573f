"""Winograd's minimal filtering F(m x m, 3 x 3): dense float32 convolution of stride 1, and its two
gradients.

    y = A [sum(c) U[k, c] .* V[c]] A',   V = B d B',   U = G w G'

2.25 (m = 2) or 4 (m = 4) times fewer products than the definition has. Tiles of 2 x 2 add and halve
only: their errors are those of float32 sums, and integers stay exact. Tiles of 4 x 4 have up to 4.5
times the error; training takes them where torch's switch permits less than float32's 24 bits.

Cost: maps are transformed (for the gradient of the weights once for each 128 filters), then
multiplied. What is not finite is found by the definition. An error is relative to the largest
products of a tile and its kernel, not to an output's own: one that is far smaller than its
neighbours has fewer digits.
Kernels: network/winograd.h, winograd/gradient.h, winograd/pack.h.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from jsc import _config, _precision
from jsc._geometry import ConvGeometry
from jsc._kernels.network.program import Program, Walk
from jsc._kernels.winograd import winograd
from jsc.ops._buffer import as_pixels, require
from jsc.ops._scratch import memory

LANES = (4, 8, 16)  # of float32, by instruction set
CONVOLVE_BYTES = 256 << 10  # of a task's transformed tiles: a share of the second cache
MOST_TILES = 96  # of such a task
GRADIENT_BYTES = 640 << 10  # of what a task of the gradient has transformed: the second cache
CHAIN = (16, 64)  # least and most tiles that are added up in one chain of the gradient
RANGES = 16  # of tiles at most, whose sums the gradient has side by side
RANGE_CHAINS = 8  # chains of a range at least, so that its sums are worth their memory
RANGE_BYTES = 64 << 20  # of the sums of all ranges, where there is more than one
GROUP = 128  # filters of the gradient that one task does
NO_MAP = dict.fromkeys(
    ("region", "offset", "N", "H", "W", "C", "image", "row", "pixel", "channel", "bf16"), 0
)


def unsupported(g: ConvGeometry) -> str | None:
    """Why there is no kernel for `g`, of one group; None where there is one."""
    if (g.Kh, g.Kw, g.Sh, g.Sw, g.Dh, g.Dw) != (3, 3, 1, 1, 1, 1):
        return "its kernels are 3 x 3, of stride and dilation 1"
    return None


def tile() -> int:
    """Outputs of a tile along each axis, in training, at the precision of torch's switch now."""
    return 2 if _precision.of_convolutions() == "ieee" else 4


def cost(g: ConvGeometry, m: int) -> float:
    """Its time over that of torch's dense convolution (one thread of an AMD EPYC with AVX-512,
    batches of 32 and 64): products, transforms that few channels make dear, outputs that tiles have
    beyond the map's."""
    return _cost(g, m, {2: 7.5, 4: 7.0}[m])


def gradient_cost(g: ConvGeometry, m: int) -> float:
    """The same of the gradient of the weights."""
    return _cost(g, m, {2: 11.0, 4: 10.0}[m])


def _cost(g: ConvGeometry, m: int, transforms: float) -> float:
    whole = -(-g.Oh // m) * m * -(-g.Ow // m) * m / max(1, g.Oh * g.Ow)
    return ({2: 0.48, 4: 0.3}[m] + transforms / max(1, min(g.C, g.K))) * whole


def _vectors(filters: int, lanes: int) -> int:
    """Vectors of filters to a block: as many as registers allow, few of them empty."""
    needed = max(1, -(-filters // lanes))
    most = 4 if lanes == 16 else 3
    return -(-needed // -(-needed // most))


def _shape(g: ConvGeometry, m: int, lanes: int) -> tuple[int, ...]:
    """Of packed weights: all transformed ones, then all plain ones, for whole vectors of filters.
    They lie in the kernel's order; the shape tells what they were packed for."""
    return (-(-g.K // lanes), g.C, lanes, (m + 2) ** 2 + 9)


def pack(weight: Tensor, g: ConvGeometry, m: int = 2) -> Tensor:
    """(K, C, 3, 3) as the convolution `g` reads it with tiles of m x m, on this instruction set:
    transformed weights, then plain ones."""
    require(weight, (g.K, g.C, 3, 3), torch.float32, "weight")
    weight = weight.detach().resolve_neg()
    return _packed(weight.data_ptr(), weight.stride(), g, m)


def _packed(address: int, steps: tuple[int, ...], g: ConvGeometry, m: int) -> Tensor:
    isa = _config.isa()
    k, c, i, j = steps
    fields = {
        "K": g.K, "C": g.C, "mv": m, "mh": m, "vectors": _vectors(g.K, LANES[isa]),
        "k_step": k, "c_step": c, "i_step": i, "j_step": j,
    }  # fmt: skip
    packed = torch.empty(_shape(g, m, LANES[isa]), dtype=torch.float32, device="cpu")
    to, threads = packed.data_ptr(), _config.num_threads(9 * g.K * g.C)
    winograd.pack(address, False, to, to + _plain(packed, m), fields, isa, threads)
    return packed


def _plain(packed: Tensor, m: int) -> int:
    """Where the plain weights begin, in bytes."""
    positions = (m + 2) ** 2
    return packed.nbytes // (positions + 9) * positions


def _map(region: int, N: int, H: int, W: int, C: int) -> dict[str, int]:
    sizes = {"region": region, "offset": 0, "N": N, "H": H, "W": W, "C": C}
    return {**sizes, "image": H * W * C, "row": W * C, "pixel": C, "channel": 1, "bf16": 0}


class Convolution:
    """All of a convolution but its input: a program of one instruction."""

    def __init__(self, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> None:
        isa = _config.isa()
        m = 2 if packed.shape[-1:] == _shape(g, 2, LANES[isa])[-1:] else 4
        require(packed, _shape(g, m, LANES[isa]), torch.float32, "the packed weight")
        packed = packed.detach().contiguous()
        if bias is not None:
            require(bias, (g.K,), torch.float32, "bias")
            bias = bias.detach().resolve_neg().contiguous()
        self.g, self._packed, self._bias = g, packed, bias  # the program has addresses
        total = max(1, g.N * -(-g.Oh // m) * -(-g.Ow // m))
        most = max(6, min(MOST_TILES, CONVOLVE_BYTES // (4 * (m + 2) ** 2 * max(1, g.C))))
        program = Program(isa)
        program.add_winograd({
            "x": _map(0, g.N, g.H, g.W, g.C), "out": _map(1, g.N, g.Oh, g.Ow, g.K),
            "Ph": g.Ph, "Pw": g.Pw, "mv": m, "mh": m, "vectors": _vectors(g.K, LANES[isa]),
            "tiles": math.ceil(total / -(-total // most) / 6) * 6,
            "weight": packed.data_ptr(), "plain": packed.data_ptr() + _plain(packed, m),
            "epilogue": {
                "shift": 0 if bias is None else bias.data_ptr(), "has_residual": 0,
                "residual": NO_MAP, "act": {"kind": 0, "a": 0.0, "b": 0.0},
            },
        })  # fmt: skip
        self._walk = Walk(program, [[0]])

    def __call__(self, input: Tensor) -> Tensor:
        """`input` as the geometry says, of any strides; the output is channels-last."""
        g = self.g
        require(input, (g.N, g.C, g.H, g.W), torch.float32, "input")
        x = as_pixels(input)
        shape = (g.N, g.K, g.Oh, g.Ow)
        out = torch.empty(shape, dtype=x.dtype, device="cpu", memory_format=torch.channels_last)
        threads = _config.num_threads(g.macs)
        scratch = memory(threads * self._walk.scratch_bytes)
        self._walk.run([x.data_ptr(), out.data_ptr()], scratch.address, threads)
        return out


def input_gradient(grad: Tensor, weight: Tensor, g: ConvGeometry) -> Tensor:
    """The gradient of the input of convolution `g` (padded by 2 at most) from that of its output:
    the convolution with kernels turned by 180 degrees, filters as channels."""
    require(weight, (g.K, g.C, 3, 3), torch.float32, "weight")
    back = ConvGeometry(g.N, g.K, g.Oh, g.Ow, g.C, 3, 3, 1, 1, 2 - g.Ph, 2 - g.Pw)
    weight = weight.detach().resolve_neg()
    k, c, i, j = weight.stride()
    last = weight.data_ptr() + 4 * 2 * (i + j)
    return Convolution(_packed(last, (c, k, -i, -j), back, tile()), None, back)(grad)


def weight_gradient(input: Tensor, grad: Tensor, weight: Tensor, g: ConvGeometry) -> Tensor | None:
    """The gradient of the weight of convolution `g`, in its memory format; None where it is not
    finite, or sums up nothing, and has to be found by the definition."""
    require(input, (g.N, g.C, g.H, g.W), torch.float32, "input")
    require(grad, (g.N, g.K, g.Oh, g.Ow), torch.float32, "grad")
    require(weight, (g.K, g.C, 3, 3), torch.float32, "weight")
    if 0 in (input.numel(), grad.numel()):
        return None
    x, y, out = as_pixels(input), as_pixels(grad), torch.empty_like(weight)
    kernel = _gradient(g, tile(), _config.isa())
    threads = _config.num_threads(g.macs)
    scratch = memory(kernel.scratch_bytes(threads))
    finite = kernel(
        x.data_ptr(), y.data_ptr(), out.data_ptr(), out.stride(), scratch.address, threads
    )
    return out if finite else None


@lru_cache(maxsize=512)
def _gradient(g: ConvGeometry, m: int, isa: int) -> winograd.Gradient:
    sizes = {key: getattr(g, key) for key in ("N", "C", "H", "W", "K", "Oh", "Ow", "Ph", "Pw")}
    return winograd.Gradient({**sizes, "mv": m, "mh": m, **cut(g, m, isa)}, isa)


def cut(g: ConvGeometry, m: int, isa: int) -> dict[str, int]:
    """How the gradient's work is cut: fields of winograd/gradient.h."""
    vectors = _vectors(g.K, LANES[isa])
    block = vectors * LANES[isa]
    blocks = min(-(-g.K // block), max(1, GROUP // block))
    channels = -(-g.C // 16) * 16
    total = max(1, g.N * -(-g.Oh // m) * -(-g.Ow // m))
    fitting = GRADIENT_BYTES // (4 * (m + 2) ** 2 * (channels + blocks * block))
    tiles = min(max(CHAIN[0], min(CHAIN[1], fitting)), total)
    steps = -(-total // tiles)
    sums = 4 * (m + 2) ** 2 * channels * max(1, -(-g.K // block)) * block
    ranges = max(1, min(RANGES, steps // RANGE_CHAINS, RANGE_BYTES // max(1, sums)))
    ranges = -(-steps // -(-steps // ranges))  # of equally many steps: none is empty
    return {"vectors": vectors, "blocks": blocks, "tiles": tiles, "ranges": ranges}
