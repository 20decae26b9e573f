"""What the JPEG layer and the soft quantiser share: they hold alpha or kappa, trained or not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from jsc import _checks


class Hardness(nn.Module):
    """Holds alpha or kappa: a buffer of that name, or the Parameter log_<name> if trained."""

    def _register_hardness(
        self, alpha: Tensor | float, kappa: Tensor | float | None, train: bool, dtype: torch.dtype
    ) -> None:
        self.hardness_name = "alpha" if kappa is None else "kappa"
        value = as_tensor(alpha if kappa is None else kappa, self.hardness_name, dtype)
        if not bool((value >= 0).all()) or (train and not bool((value > 0).all())):
            raise ValueError(
                f"{self.hardness_name} must not be negative, positive if it is trained; "
                f"got {_checks.shown(value)}"
            )
        if train:
            setattr(self, f"log_{self.hardness_name}", nn.Parameter(value.log()))
        else:
            self.register_buffer(self.hardness_name, value)

    def _hardness(self) -> dict[str, Any]:
        log = self._parameters.get(f"log_{self.hardness_name}")
        return {self.hardness_name: getattr(self, self.hardness_name) if log is None else log.exp()}


def as_tensor(value: Tensor | float, name: str, dtype: torch.dtype) -> Tensor:
    """A copy of a tensor, or of a number."""
    if not isinstance(value, Tensor):
        return torch.tensor(_checks.number(value, name, "a number or a tensor"), dtype=dtype)
    return value.detach().to(dtype, copy=True)
