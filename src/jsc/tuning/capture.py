"""Run a model on a sample and observe its convolutions while it runs.

The layers are observed in the middle of the model's own forward: `visit` gets the very tensor that
the layer gets, with its values and its memory format, and nothing has to be kept for later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jsc._lock import Lock


@dataclass(frozen=True)
class Sample:
    """The arguments of one call of the model."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, sample: Any, kwargs: Mapping[str, Any] | None = None) -> Sample:
        """A tuple is spread over positional, a mapping over keyword arguments, besides `kwargs`."""
        more = dict(kwargs or {})
        if isinstance(sample, tuple):
            return cls(sample, more)
        if isinstance(sample, Mapping):
            return cls((), {**sample, **more})
        return cls((sample,), more)

    @property
    def tensors(self) -> list[Tensor]:
        return [*tensors(self.args), *tensors(self.kwargs)]

    def channels_last(self) -> Sample:
        """The same with every map in this memory format."""
        return Sample(_as_channels_last(self.args), _as_channels_last(self.kwargs))


@dataclass
class Layer:
    """One convolution module: every name it has in the model, its calls on the sample, and how many
    products they are."""

    conv: nn.Conv2d
    names: list[str]
    calls: int = 0
    work: int = 0


def find_layers(model: nn.Module) -> list[Layer]:
    """Every `nn.Conv2d` of the model, once each, in the order of `named_modules`."""
    layers: dict[int, Layer] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Conv2d):
            layers.setdefault(id(module), Layer(module, [])).names.append(name)
    return list(layers.values())


def run(model: nn.Module, sample: Sample) -> Any:
    return model(*sample.args, **sample.kwargs)


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


def can_be_channels_last(x: Tensor) -> bool:
    """Whether it has four axes and is not channels-last yet."""
    last = torch.channels_last
    return x.dim() == 4 and x.layout == torch.strided and not x.is_contiguous(memory_format=last)


def _as_channels_last(value: Any) -> Any:
    if isinstance(value, Tensor):
        if can_be_channels_last(value):
            return value.contiguous(memory_format=torch.channels_last)
        return value
    if type(value) in (tuple, list):
        return type(value)(_as_channels_last(item) for item in value)
    if type(value) is dict:
        return {key: _as_channels_last(item) for key, item in value.items()}
    return value


# torch.get_rng_state makes a Python object while it holds torch's own lock, and torch.set_rng_state
# waits for that lock without letting other threads run: if garbage is collected in the first, two
# threads wait for each other for ever. Python's lock lets the others run.
_RANDOM = Lock()


def set_random_state(state: Tensor) -> None:
    with _RANDOM:
        torch.random.set_rng_state(state)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[Tensor]:
    """Evaluation mode without gradients, for a private copy of a model, which stays in that mode.
    Yields torch's random state, and puts it back in the end.

    `no_grad` and not `inference_mode`: a model may keep a tensor it makes on its first run, and an
    inference tensor would break its training later.
    """
    with _RANDOM:
        state = torch.random.get_rng_state()
    try:
        with torch.no_grad():
            model.eval()
            yield state
    finally:
        set_random_state(state)


def visit_calls(
    model: nn.Module, sample: Sample, layers: list[Layer], visit: Callable[[Layer, Tensor], None]
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


def work(conv: nn.Conv2d, x: Tensor) -> int:
    """About how many products one call sums up."""
    return math.prod(x.shape[-2:]) * conv.weight.numel() // math.prod(conv.stride) + x.numel()


def count_calls(model: nn.Module, sample: Sample, layers: list[Layer]) -> Any:
    """Set `calls` and `work` of every layer; the model's output."""

    def count(layer: Layer, x: Tensor) -> None:
        layer.calls += 1
        layer.work += work(layer.conv, x)

    return visit_calls(model, sample, layers, count)
