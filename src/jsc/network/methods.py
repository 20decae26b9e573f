"""The method that each convolution of a program takes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from jsc._precision import Precision
from jsc.network.choices import candidates
from jsc.network.constants import Constant, State, Store
from jsc.network.graph import Convolution


class Methods:
    """`chosen` ones by the names of convolutions, for vectors of `lanes`; the rule's where there is
    none that fits."""

    def __init__(self, chosen: Mapping[str, str], store: Store, precision: Precision, lanes: int):
        self.chosen = chosen
        self.store = store
        self.precision = precision
        self.lanes = lanes

    def of(self, conv: Convolution) -> str:
        """The method of a convolution."""
        options = self.options(conv)
        chosen = self.chosen.get(conv.name)
        return chosen if chosen in options else options[0]

    def options(self, conv: Convolution) -> list[str]:
        """The ways to do a convolution with its weights, the rule's own first."""
        fitting = candidates(conv, self.lanes, self.precision.of(conv.linear))
        return [c for c in fitting if self._takes_weights(conv, c)]

    def _takes_weights(self, conv: Convolution, method: str) -> bool:
        """`cpc` would lose inf times zero, and a large number has no bfloat16."""
        if method not in ("cpc", "amx", "direct_bf16"):
            return True
        return self.store.bounded(scaled_weight(conv))


def scaled_weight(conv: Convolution) -> Constant:
    """Weights with the scale of a batch-norm in them: float64, rounded when they are packed."""
    weight, scale = conv.weight, conv.scale
    assert weight is not None
    if scale is None:
        return weight

    def scaled(state: State) -> Tensor:
        factors = scale.recipe(state).double()[:, None, None, None]
        return weight.recipe(state).to(torch.float64, copy=True).mul_(factors)

    return Constant(("scaled", weight.key, scale.key), scaled)
