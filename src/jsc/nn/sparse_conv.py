"""`SparseConv2d`: an `nn.Conv2d` that convolves its input with a chosen method."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jsc import _checks
from jsc.functional.conv import conv2d
from jsc.ops import bf16x3, cpc, training
from jsc.ops import conv as ops
from jsc.ops._library import call, eager
from jsc.ops.cpc import Epilogue

# Methods whose store can do what follows the convolution.
FUSIBLE: dict[str, type[cpc.Convolution] | type[bf16x3.Convolution]]
FUSIBLE = {"cpc": cpc.Convolution, "bf16x3": bf16x3.Convolution}


class SparseConv2d(nn.Conv2d):
    """An :class:`torch.nn.Conv2d` with the same parameters, `state_dict` keys and results.

    On other devices and for dtypes without a kernel it is torch's own convolution; otherwise it
    runs `method` (see :func:`jsc.functional.conv2d`). While gradients are recorded it is torch's
    own as well, except that "cpc" skips zeros in each pass of training in which that is estimated
    to be faster: forward, gradient of the input, gradient of the weight. That needs channels-last
    maps, which `model.to(memory_format=torch.channels_last)` makes, and no groups.

    The weights are laid out once, and again whenever torch says that they changed; after writing
    through `weight.data`, which torch cannot see, call :meth:`repack`.

    Parameters
    ----------
    method : str
        "dense", "im2col", "mec", "cpo", "cps", "cpc" or "bf16x3".
    The others are those of :class:`torch.nn.Conv2d`.
    """

    _packed: tuple[Tensor, Any, Tensor | None] | None = None  # weight, made for what, result
    _ready: tuple[Any, Callable[[Tensor], Tensor]] | None = None  # made for what, the whole call

    def __init__(self, *args: Any, method: str = "cpc", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.method = method

    @classmethod
    def from_dense(cls, conv: nn.Conv2d, method: str = "cpc") -> SparseConv2d:
        """A module that shares the parameters of `conv`, its hooks and its mode."""
        if not isinstance(conv, nn.Conv2d):
            raise TypeError(f"conv must be a torch.nn.Conv2d, got {type(conv).__name__}")
        new = cls.__new__(cls)
        new.__dict__ = {
            k: copy.copy(v) if isinstance(v, dict) else v for k, v in conv.__dict__.items()
        }
        new._packed = new._ready = None
        new.method = method
        return new

    def to_dense(self) -> nn.Conv2d:
        """The plain :class:`torch.nn.Conv2d` that shares this module's parameters."""
        new = nn.Conv2d.__new__(nn.Conv2d)
        skip = ("_packed", "_ready", "_method")
        new.__dict__ = {
            k: copy.copy(v) if isinstance(v, dict) else v
            for k, v in self.__dict__.items()
            if k not in skip
        }
        return new

    @property
    def method(self) -> str:
        return self._method

    @method.setter
    def method(self, name: str) -> None:
        if name not in ops.METHODS:
            raise ValueError(f"method must be one of {', '.join(ops.METHODS)}; got {name!r}")
        self._method = name
        self.repack()

    def repack(self) -> None:
        """Lay the weights out again at the next call (needed only after writes through `.data`)."""
        self._packed = self._ready = None

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._ready is not None and not torch.compiler.is_compiling():
            if self._ready[0] == self._state(input, weight, bias):
                return self._ready[1](input)
            self._ready = None
        if not self._has_kernel(input, weight):
            return super()._conv_forward(input, weight, bias)
        if _records(input, weight, bias):
            return self._training_forward(input, weight, bias)
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input, padding = (
                F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode),
                0,
            )
        # Tracing sees no version counters, and tensors made in inference mode have none.
        pack_now = (
            torch.compiler.is_compiling()
            or isinstance(padding, str)
            or input.ndim == 3
            or weight.is_inference()
        )
        if pack_now:
            return conv2d(
                input,
                weight,
                bias,
                self.stride,
                padding,
                self.dilation,
                self.groups,
                method=self.method,
            )
        padding = _checks.pair(padding, "padding", 0)
        packed = self._packed_weight(input, weight, padding)
        if packed is None:
            return super()._conv_forward(input, weight, bias)
        state = self._state(input, weight, bias)
        if state is not None and self.padding_mode == "zeros":
            geometry = (self.stride, padding, self.dilation, self.groups)
            ready = ops.prepare(input, weight, packed, bias, *geometry, self.method)
            if ready is not None:
                self._ready = state, ready
        return call(
            "conv2d", input, weight, packed, bias,
            self.stride, padding, self.dilation, self.groups, self.method,
        )  # fmt: skip

    def prepare_fused(
        self, shape: tuple[int, ...], dtype: torch.dtype, epilogue: Epilogue
    ) -> cpc.Convolution | bf16x3.Convolution | None:
        """The convolution of inputs of this size with an epilogue in its store; None where this
        layer's method has none. It holds the memory of weight and bias as they are now."""
        if (
            self._method not in FUSIBLE or self.groups != 1 or self.padding_mode != "zeros"
            or isinstance(self.padding, str) or len(shape) != 4 or 0 in shape
            or shape[1] != self.in_channels or dtype not in _checks.KERNEL_DTYPES
            or dtype != self.weight.dtype or self.weight.is_inference()
        ):  # fmt: skip
            return None
        input, padding = torch.empty(shape, device="meta"), _checks.pair(self.padding, "padding", 0)
        packed = self._packed_weight(input, self.weight, padding)
        if packed is None:
            return None
        g = ops.geometry(input, self.weight, self.stride, padding, self.dilation, self.groups)
        bias = None if self.bias is None else self.bias.detach()
        return FUSIBLE[self._method](packed[0], bias, g, epilogue)

    def _training_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Forward pass and gradient that skip zeros where that pays; torch's own otherwise."""
        plain = (
            self._method == "cpc" and eager(input) and input.ndim == 4 and self.groups == 1
            and self.padding_mode == "zeros" and not isinstance(self.padding, str)
            and not torch.is_autocast_enabled("cpu") and not weight.is_inference()
        )  # fmt: skip
        if not plain:
            return super()._conv_forward(input, weight, bias)
        padding = _checks.pair(self.padding, "padding", 0)  # type: ignore[arg-type]
        g = ops.geometry(input, weight, self.stride, padding, self.dilation, self.groups)
        density = training.input_density(input, g) if g.Oh > 0 and g.Ow > 0 else None
        # No bias: a normalisation follows, and leaves no zeros in the gradient of the output.
        if density is None or (bias is None and training.hopeless(density, g)):
            return super()._conv_forward(input, weight, bias)
        packed = training.forward_weight(density, weight, g)
        return ops.Conv2d.call(
            input, weight, packed, bias, self.stride, padding, self.dilation, self.groups,
            "dense" if packed is None else self._method, density,
        )  # fmt: skip

    def _state(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Any, ...] | None:
        """All that a prepared call depends on, or None where there cannot be one: the input is not
        an ordinary CPU tensor, gradients are recorded, or changes cannot be seen."""
        if not isinstance(input, Tensor) or not eager(input) or weight.is_inference():
            return None
        if _records(input, weight, bias):
            return None
        own = (weight,) if bias is None else (weight, bias)
        return (
            input.shape, input.dtype, ops.is_channels_last(input), ops.pack_key(),
            self.stride, self.padding, self.dilation, self.groups, self.padding_mode,
            *[(id(p), p._version, p.data_ptr(), p.dtype) for p in own],
        )  # fmt: skip

    def _has_kernel(self, input: Tensor, weight: Tensor) -> bool:
        """False where torch's own convolution is to run: it also words the errors of bad input."""
        if self._method == "dense" or not isinstance(input, Tensor) or input.device.type != "cpu":
            return False
        if (
            input.dtype not in _checks.KERNEL_DTYPES
            or input.dtype != weight.dtype
            or input.layout != torch.strided
        ):
            return False
        return input.ndim in (3, 4) and input.shape[-3] == self.in_channels and input.numel() > 0

    def _packed_weight(
        self, input: Tensor, weight: Tensor, padding: tuple[int, int]
    ) -> Tensor | None:
        g = ops.geometry(input, weight, self.stride, padding, self.dilation, self.groups)
        steps = g[7:]  # strides, paddings, dilations, groups
        made_for = (ops.pack_key(), weight._version, weight.data_ptr(), *steps)
        if self._packed is None or self._packed[0] is not weight or self._packed[1] != made_for:
            reason = ops.unsupported(self.method, g)
            if reason or g.Oh < 1 or g.Ow < 1:
                return None
            self._packed = (weight, made_for, ops.pack(weight, g, self.method))
        return self._packed[2]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_packed", "_ready")}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, method={self.method}"


def _records(*tensors: Tensor | None) -> bool:
    """Whether a gradient is recorded of what is made from `tensors`."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
