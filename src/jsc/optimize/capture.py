"""Run a model on a sample and look at its convolutions while it runs.

The layers are looked at in the middle of the model's own forward: `visit` gets the very tensor the
layer gets, with its values and its memory format, and nothing has to be kept for later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Layer:
    """One convolution module: every name it has in the model, and its calls on the sample."""

    conv: nn.Conv2d
    names: list[str]
    calls: int = 0


def find_layers(model: nn.Module) -> list[Layer]:
    """Every `nn.Conv2d` of the model, once each, in the order of `named_modules`."""
    layers: dict[int, Layer] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Conv2d):
            layers.setdefault(id(module), Layer(module, [])).names.append(name)
    return list(layers.values())


def run(model: nn.Module, sample: Any) -> Any:
    """`model(sample)`; a tuple is spread over positional, a mapping over keyword arguments."""
    if isinstance(sample, tuple):
        return model(*sample)
    if isinstance(sample, Mapping):
        return model(**sample)
    return model(sample)


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; training flags and the random state are put back.

    `no_grad` and not `inference_mode`: a model may keep a tensor it makes on its first run, and an
    inference tensor would break its training later.
    """
    training = {module: module.training for module in model.modules()}
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            model.eval()
            yield
    finally:
        for module, flag in training.items():
            module.training = flag


def visit_calls(
    model: nn.Module, sample: Any, layers: list[Layer], visit: Callable[[Layer, Tensor], None]
) -> Any:
    """Run the model once and `visit(layer, input)` before every call of a layer."""

    def hook(layer: Layer) -> Callable[..., None]:
        def before(conv: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            visit(layer, args[0] if args else kwargs["input"])

        return before

    handles = []
    try:
        for layer in layers:
            handles.append(layer.conv.register_forward_pre_hook(hook(layer), with_kwargs=True))
        return run(model, sample)
    finally:
        for handle in handles:
            handle.remove()


def count_calls(model: nn.Module, sample: Any, layers: list[Layer]) -> Any:
    """Set `calls` of every layer; the model's output."""

    def count(layer: Layer, x: Tensor) -> None:
        layer.calls += 1

    return visit_calls(model, sample, layers, count)
