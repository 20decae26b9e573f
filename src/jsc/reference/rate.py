"""Entropy of quantised coefficients by enumeration of every level: the oracle of `jsc.ops.rate`."""

from __future__ import annotations

import torch
from torch import Tensor

from jsc.reference.jpeg import window_centre


def conditional(
    z: Tensor,
    q: Tensor,
    kappa: Tensor,
    reach: int,
    window: int | None = None,
    levels: int | None = None,
) -> Tensor:
    """P(k | z) of all k in -reach..reach, on a new last axis; arguments broadcast.

    Levels beyond `levels` count as `levels`, which is what the sampling quantiser makes of them;
    with a `window` only the levels of the window have a probability.
    """
    z, q, kappa = torch.broadcast_tensors(z, q, kappa)
    u = (z / q).unsqueeze(-1)
    k = torch.arange(-reach, reach + 1, dtype=z.dtype, device=z.device)
    logits = -kappa.unsqueeze(-1) * (u - k) ** 2
    if window is not None:
        away = (k - window_centre(u, window, levels)).abs()
        logits = logits.masked_fill(away > window // 2, -torch.inf)
    p = torch.softmax(logits, -1)
    if levels is None or levels >= reach:
        return p
    low, inside, high = p.split([reach - levels + 1, 2 * levels - 1, reach - levels + 1], -1)
    return torch.cat([low.sum(-1, keepdim=True), inside, high.sum(-1, keepdim=True)], -1)


def entropy(p: Tensor) -> Tensor:
    """H = -sum_k P log2 P over the last axis, in bits; 0 log 0 = 0."""
    return -torch.special.xlogy(p, torch.where(p > 0, p, 1.0)).sum(-1) / torch.log(p.new_tensor(2))


def level_entropy(
    z: Tensor, q: Tensor, kappa: Tensor, window: int | None = None, levels: int | None = None
) -> Tensor:
    """(M, B) coefficients, (M,) steps and hardness -> (M,) bits: the entropy of the mean of P over
    the B coefficients of a row."""
    q, kappa = q.unsqueeze(-1), kappa.unsqueeze(-1)
    spread = 7 / float(kappa.detach().min()) ** 0.5
    reach = int((z.detach() / q.detach()).abs().max() + spread) + 3
    return entropy(conditional(z, q, kappa, reach, window, levels).mean(1))


def hard_entropy(z: Tensor, q: Tensor, levels: int | None = None) -> Tensor:
    """(M, B) coefficients, (M,) steps -> (M,) bits: zero-order entropy of round(z / q)."""
    found = []
    for row, step in zip(z.detach(), q.detach(), strict=True):
        k = torch.round(row / step)
        _, counts = (k if levels is None else k.clamp(-levels, levels)).unique(return_counts=True)
        found.append(entropy(counts.to(z.dtype) / row.numel()))
    return torch.stack(found)
