"""Parameter groups: what an optimizer does to tables is not what it does to weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from jsc import _checks


def param_groups(
    model: nn.Module, *, lr: float, table_lr: float, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Groups for an optimizer: tables with a learning rate of their own and no weight decay.

    Parameters
    ----------
    model : nn.Module
        With any number of :class:`jsc.nn.JPEG` and :class:`jsc.nn.SoftQuantizer` in it.
    lr, weight_decay : float
        Of everything else.
    table_lr : float
        Of the tables, in grey levels a step with Adam; and of the logarithms of alpha or kappa
        where those are trained. Also of what a parametrization of these is made of.

    Returns
    -------
    list of dict
        `{"name": "model", ...}` and `{"name": "tables", ...}`; without parameters that need no
        gradient, and without a group that would be empty.

    Raises
    ------
    TypeError   if an argument is of the wrong type.
    ValueError  if a number is negative or not finite, or no module of `model` has tables.

    Notes
    -----
    Weight decay pulls steps towards 0, where the layer is the identity, and log alpha towards
    alpha = 1: both change what is computed, which decay of weights in front of a normalisation does
    not. Optimizers that make their groups from a model themselves decay tables as well; give them
    these groups.

    Examples
    --------
    >>> model = torch.nn.Sequential(jsc.nn.JPEG.from_quality(75), network)
    >>> groups = jsc.jpeg.param_groups(model, lr=1e-3, table_lr=3e-3, weight_decay=0.05)
    >>> optimizer = torch.optim.AdamW(groups)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {_checks.shown(model)}")
    rates = {"lr": lr, "table_lr": table_lr, "weight_decay": weight_decay}
    for name, value in rates.items():
        if not _checks.number(value, name) >= 0:
            raise ValueError(f"{name} must not be negative, got {_checks.shown(value)}")
    # The modules with tables are above this room; all their parameters are steps or sharpness.
    layers = [module for module in model.modules() if hasattr(module, "hardness_name")]
    if not layers:
        raise ValueError("no module of `model` has tables; put a jsc.nn.JPEG in front of it")
    own = {id(p) for layer in layers for p in _own_parameters(layer)}
    trained = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {
            "name": "model",
            "params": [p for p in trained if id(p) not in own],
            "lr": lr,
            "weight_decay": weight_decay,
        },
        {
            "name": "tables",
            "params": [p for p in trained if id(p) in own],
            "lr": table_lr,
            "weight_decay": 0.0,
        },
    ]
    return [group for group in groups if group["params"]]


def _own_parameters(layer: nn.Module) -> Iterator[nn.Parameter]:
    """Those of the layer itself, and those that a parametrization keeps in their place."""
    yield from layer.parameters(recurse=False)
    if is_parametrized(layer):
        yield from layer.get_submodule("parametrizations").parameters()
