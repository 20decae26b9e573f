"""What the JPEG layer and the soft quantiser share: they hold alpha or kappa, trained or not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from jsc import _checks


class Hardness(nn.Module):
    """Holds alpha or kappa: a buffer of that name, or the Parameter log_<name> if trained."""

    def _register_hardness(
        self, alpha: Tensor | float, kappa: Tensor | float | None, train: bool, dtype: torch.dtype
    ) -> None:
        self.hardness_name = "alpha" if kappa is None else "kappa"
        value = as_tensor(alpha if kappa is None else kappa, self.hardness_name, dtype)
        if not holds(value >= 0) or (train and not holds(value > 0)):
            raise ValueError(
                f"{self.hardness_name} must not be negative, positive if it is trained; "
                f"got {_checks.shown(value)}"
            )
        if train:
            setattr(self, f"log_{self.hardness_name}", nn.Parameter(value.log()))
        else:
            self.register_buffer(self.hardness_name, value)

    def __prepare_scriptable__(self) -> nn.Module:
        """What `torch.jit.script` calls first."""
        raise NotImplementedError(
            f"torch.jit.script cannot compile jsc.nn.{type(self).__name__}: TorchScript has no "
            "autograd.Function, and no value like the layer's options. Use "
            "torch.jit.trace(model, x), which can be saved and loaded without jsc; or "
            "torch.export, torch.onnx.export"
        )

    def _trains_hardness(self) -> bool:
        # Not by `_parameters`: a parametrization or a replica of DataParallel keeps it elsewhere.
        return hasattr(self, f"log_{self.hardness_name}")

    def _hardness(self) -> dict[str, Any]:
        name = self.hardness_name
        if not self._trains_hardness():
            return {name: getattr(self, name)}
        return {name: getattr(self, f"log_{name}").exp()}  # by `getattr`, which torch.fx follows


def holds(condition: Tensor) -> bool:
    """Everywhere; tensors on the meta device, and fake ones, have no values to ask."""
    return condition.is_meta or isinstance(condition, FakeTensor) or bool(condition.all())


def as_tensor(value: Tensor | float, name: str, dtype: torch.dtype) -> Tensor:
    """A copy of a tensor, or of a number."""
    if not isinstance(value, Tensor):
        return torch.tensor(_checks.number(value, name, "a number or a tensor"), dtype=dtype)
    return value.detach().to(dtype, copy=True)
