"""Operators of the rate: `jsc::level_entropy` and its backward.

z is (M, B): B coefficients of each of M frequencies; q and kappa are (M,). H[m] is the entropy, in
bits, of the mean of P(k | z[m, b]) over b. Per coefficient only the levels near z / q are visited
and added into a histogram of the frequency:

    w(kappa) = 1/2 + sqrt(-log(eps) / kappa) levels to each side, eps = 1e-7 (float64: 1e-12)

A lattice softer than SOFTEST would need many. There P is so wide that the level's residue modulo
s = 2^j is uniform and tells nothing (`sample_levels` in `jsc.ops._torch` rests on the same), so

    H(q, kappa) = H(s q, s^2 kappa) + log2 s

With `levels` the bins at both ends are not split, and the merged lattice's end is rounded to whole
cells: an approximation, hence only below SOFTEST_SATURATED.

Gradient, with u = z / q, n = round(u), f = u - n, d = k - n, G[k] = -log2 of the mean P[k] and
D = G - E G:
    dH/du = 2 kappa E(D d)       dH/dkappa = -E(D d^2) + 2 f E(D d)
(the derivative of the logarithm itself cancels). Everything is recomputed; only z is kept.

Cost: one exponential and one scattered addition a level, 2 w + 1 levels a coefficient; CHUNK
coefficients at a time, so that memory beside z, its gradient and the histograms does not grow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jsc._checks import KERNEL_DTYPES
from jsc.ops._buffer import require
from jsc.ops._library import implement
from jsc.ops.quant import MODES, require_options

SOFTEST, SOFTEST_SATURATED = 0.04, 0.01
LEAST_KAPPA = 1e-8  # of the sampling quantiser too: softer ones act as this
WIDTHS = (1, 2, 3, 4, 6, 8, 11, 14, 21, 28, 41, 54)  # w is rounded up to one of these
CHUNK = 1 << 15  # coefficients at a time
MOST_BINS = 1 << 26


@dataclass(frozen=True)
class Part:
    """The coefficients `rows` x `columns`; level d beside the nearest has weight[d + width] of all,
    and its bin is `bins` of the histogram that begins d further on. Tensors are (R, b)."""

    rows: Tensor
    columns: slice
    width: int
    u: Tensor
    f: Tensor
    bins: Tensor
    weights: list[Tensor]


class Lattice:
    """The levels of every frequency, and where their bins are: one flat array of M ranges."""

    def __init__(
        self, z: Tensor, q: Tensor, kappa: Tensor, mode: int, window: int, levels: int
    ) -> None:
        self.z, self.window = z, window
        self.hard = mode in (MODES["hard"], MODES["ste"])
        kappa = kappa.clamp(min=LEAST_KAPPA)
        self.scale = torch.ones_like(q)
        if not (window or self.hard):
            softest = SOFTEST_SATURATED if levels else SOFTEST
            self.scale = torch.exp2((0.5 * torch.log2(4 * softest / kappa)).floor().clamp(min=0))
            self.scale = torch.where(kappa < softest, self.scale, 1.0)
        self.step, self.kappa = q * self.scale, kappa * self.scale**2
        self.last = (levels / self.scale).round().clamp(min=1) if levels else None
        nearest = torch.stack(torch.aminmax(z, dim=1)) / self.step
        self.finite = bool(nearest.isfinite().all())
        if self.finite:
            self._place(nearest.round())

    def _place(self, nearest: Tensor) -> None:
        if self.hard or self.window:
            self.width = torch.full_like(self.step, 0 if self.hard else self.window // 2).long()
        else:
            log = -math.log(1e-7 if self.z.dtype == torch.float32 else 1e-12)
            ladder = torch.tensor(WIDTHS, dtype=self.step.dtype, device=self.step.device)
            needed = 0.5 + (log / self.kappa).sqrt()
            self.width = ladder[torch.bucketize(needed, ladder).clamp(max=len(WIDTHS) - 1)].long()
        # Where all levels are beyond the last, it does not matter how far. A window stops there.
        self.limit = None
        if self.last is not None:
            self.limit = self.last - self.width if self.window else self.last + self.width
            nearest = nearest.clamp(-self.limit, self.limit)
        low, high = nearest.double()
        sizes = high - low + 1 + 2 * self.width
        if sizes.sum() > MOST_BINS:
            worst = int(sizes.argmax())
            raise ValueError(
                f"the coefficients spread over {sizes.sum():.1e} levels, more than "
                f"{MOST_BINS:.1e}: a step of about {float(self.step[worst]):.1e} is too fine; "
                "raise the tables, or limit the levels (levels=)"
            )
        sizes = sizes.long()
        self.bins, self.base = int(sizes.sum()), sizes.cumsum(0) - sizes
        self.shift = self.base - low.long()  # bin of level 0, less the width
        rows = torch.arange(len(sizes), device=sizes.device)
        self.owner = torch.repeat_interleave(rows, sizes, output_size=self.bins)

    def parts(self) -> Iterator[Part]:
        for width in self.width.unique().tolist():
            rows = (self.width == width).nonzero()[:, 0]
            length = max(1, CHUNK // len(rows))
            for start in range(0, self.z.shape[1], length):
                yield self._part(rows, slice(start, start + length), width)

    def _part(self, rows: Tensor, columns: slice, width: int) -> Part:
        u = self.z[rows, columns] / self.step[rows, None]
        n = torch.round(u)
        f = u - n
        nearest = None  # of the window, where that is not its middle
        if self.limit is not None:
            limit = self.limit[rows, None]
            n = n.clamp(-limit, limit)
            if self.window:
                f = u - n
                nearest = f.round().clamp(-width, width)
        kappa = self.kappa[rows, None]
        largest = None if nearest is None else nearest * (2 * f - nearest)
        slope = 2 * kappa * f
        weights = []
        for d in range(-width, width + 1):
            logit = slope * d - kappa * d**2
            weights.append((logit if largest is None else logit - kappa * largest).exp_())
        total = weights[0].clone()
        for weight in weights[1:]:
            total += weight
        total.reciprocal_()
        for weight in weights:
            weight *= total
        return Part(rows, columns, width, u, f, n.long() + self.shift[rows, None], weights)

    def mean(self) -> Tensor:
        """The mean of P over the coefficients, float64, (bins,)."""
        total = self.z.new_zeros(self.bins, dtype=torch.float64)
        for part in self.parts():
            flat = part.bins.reshape(-1)
            for tap, weight in enumerate(part.weights):
                total[tap:].scatter_add_(0, flat, weight.double().reshape(-1))
        total /= self.z.shape[1]
        if self.last is not None and not self.window:
            ends = self._ends()
            total = torch.zeros_like(total).index_add_(0, ends, total)
        return total

    def split(self) -> Tensor:
        """log2 s of every bin that stands for s levels, (bins,)."""
        bits = self.scale.double().log2()[self.owner]
        if self.last is not None:
            bits = bits.where(self._levels().abs() < self.last[self.owner], 0.0)
        return bits

    def cost(self) -> Tensor:
        """Bits of every level, -log2 P of its bin and what splitting it takes, (bins,)."""
        p = self.mean().clamp(min=torch.finfo(torch.float64).tiny)
        bits = (self.split() - p.log2()).to(self.z.dtype)
        return bits[self._ends()] if self.last is not None and not self.window else bits

    def _levels(self) -> Tensor:
        k = torch.arange(self.bins, device=self.owner.device)
        return k - (self.shift + self.width)[self.owner]

    def _ends(self) -> Tensor:
        """The bin of every bin's level, cut at the last level."""
        last = self.last[self.owner].long()  # type: ignore[index]
        levels = self._levels()
        bins = torch.arange(self.bins, device=levels.device) + levels.clamp(-last, last) - levels
        # where no level reaches -last..last, all are cut to one and the same
        size = torch.bincount(self.owner, minlength=len(self.base))[self.owner]
        return bins.clamp(self.base[self.owner], self.base[self.owner] + size - 1)


def _require(z: Tensor, q: Tensor, kappa: Tensor, mode: int, window: int, levels: int) -> None:
    """An operator may be called by itself, or be named in a file."""
    if z.ndim != 2 or z.dtype not in KERNEL_DTYPES:
        raise ValueError(
            "z must be (frequencies, coefficients) of float32 or float64, "
            f"got {tuple(z.shape)} of {z.dtype}"
        )
    for value, name in ((q, "q"), (kappa, "kappa")):
        require(value, (len(z),), z.dtype, name)
    require_options(mode, window, levels)


def _forward(z: Tensor, q: Tensor, kappa: Tensor, mode: int, window: int, levels: int) -> Tensor:
    _require(z, q, kappa, mode, window, levels)
    if z.numel() == 0:
        return z.new_zeros(z.shape[0])
    lattice = Lattice(z, q, kappa, mode, window, levels)
    if not lattice.finite:
        return z.new_full((z.shape[0],), math.nan)
    p = lattice.mean()
    bits = torch.special.xlogy(p, p) / -math.log(2) + p * lattice.split()
    return bits.new_zeros(z.shape[0]).index_add_(0, lattice.owner, bits).to(z.dtype)


def _backward(
    g: Tensor, z: Tensor, q: Tensor, kappa: Tensor, mode: int, window: int, levels: int
) -> tuple[Tensor, Tensor, Tensor]:
    _require(z, q, kappa, mode, window, levels)
    require(g, (len(z),), z.dtype, "the gradient")
    dz, dq, dkappa = torch.zeros_like(z), torch.zeros_like(q), torch.zeros_like(kappa)
    if z.numel() == 0 or mode == MODES["hard"]:
        return dz, dq, dkappa
    # a straight-through quantiser has the value of the hard and the gradient of the soft one
    lattice = Lattice(z, q, kappa, MODES["soft"], window, levels)
    if not lattice.finite:
        return dz.fill_(math.nan), dq.fill_(math.nan), dkappa.fill_(math.nan)
    cost = lattice.cost()
    for part in lattice.parts():
        rows, width = part.rows, part.width
        middle = cost[width:].take(part.bins)
        # E of 1, d, d^2 under P, and under P times the bits above those of the middle
        plain = [torch.zeros_like(middle) for _ in range(2)]
        costly = [torch.zeros_like(middle) for _ in range(3)]
        for tap, weight in enumerate(part.weights):
            d = tap - width
            if d == 0:
                continue
            extra = cost[tap:].take(part.bins).sub_(middle).mul_(weight)
            for power in range(3):
                costly[power].add_(extra, alpha=d**power)
            for power in range(2):
                plain[power].add_(weight, alpha=d ** (power + 1))
        slope = costly[1] - costly[0] * plain[0]
        curve = costly[2] - costly[0] * plain[1] - 2 * part.f * slope
        weight = (g / z.shape[1])[rows, None]
        du = 2 * lattice.kappa[rows, None] * slope * weight
        dz[rows, part.columns] = du / lattice.step[rows, None]
        dq.index_add_(0, rows, -(du * part.u).sum(1) / q[rows])
        dkappa.index_add_(0, rows, -(curve * weight).sum(1) * lattice.scale[rows] ** 2)
    return dz, dq, dkappa.where(kappa >= LEAST_KAPPA, 0.0)


implement(
    "level_entropy",
    _forward,
    lambda z, q, kappa, mode, window, levels: z.new_empty(z.shape[:1]),
)
implement(
    "level_entropy_backward",
    _backward,
    lambda g, z, q, kappa, mode, window, levels: (
        z.new_empty(z.shape),
        q.new_empty(q.shape),
        q.new_empty(q.shape),
    ),
)


class LevelEntropy(torch.autograd.Function):
    """(M, B), (M,), (M,) -> (M,); `options`: mode, window, levels. First derivatives only."""

    @staticmethod
    def forward(z: Tensor, q: Tensor, kappa: Tensor, options: tuple[int, int, int]) -> Tensor:
        call = torch.ops.jsc.level_entropy if z.device.type in ("cpu", "meta") else _forward
        return call(z, q, kappa, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        z, q, kappa, ctx.options = inputs
        ctx.save_for_backward(z, q, kappa)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return *LevelEntropyBackward.apply(g, *ctx.saved_tensors, ctx.options), None


class LevelEntropyBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        g: Tensor, z: Tensor, q: Tensor, kappa: Tensor, options: tuple[int, int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        on_cpu = z.device.type in ("cpu", "meta")
        call = torch.ops.jsc.level_entropy_backward if on_cpu else _backward
        return call(g, z, q, kappa, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        raise NotImplementedError("the rate has first derivatives only")
