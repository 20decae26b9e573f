"""`SparseConv2d`: an `nn.Conv2d` that convolves its input with a chosen method."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jsc import _checks
from jsc.functional.conv import autocast, convolve, named_padding, require_output
from jsc.ops import bf16x3, cpc, packs, training
from jsc.ops import conv as ops
from jsc.ops._library import call, eager
from jsc.ops.cpc import Epilogue

SIZES = 8  # of input that prepared calls are kept for

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

    Under autocast, and in what `torch.jit.trace` records, it is torch's own, too.

    The weights are laid out once, and again when they have changed, whoever changed them
    (ops/packs.py). They are also laid out anew after `train()` and `eval()`, `load_state_dict`,
    moves and casts, and a call that recorded gradients. Only a change of *single elements* that
    torch does not see (through `weight.data`, a numpy view, by another process) needs
    :meth:`repack`. Any number of threads may call one module at once.

    Parameters
    ----------
    method : str
        "dense", "im2col", "mec", "cpo", "cps", "cpc" or "bf16x3".
    The others are those of :class:`torch.nn.Conv2d`.
    """

    # By the size of the input: the state it was prepared in, and the call.
    _prepared: dict[torch.Size, tuple[Any, Callable[[Tensor], Tensor]]] | None = None

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
        new.method = method
        return new

    def to_dense(self) -> nn.Conv2d:
        """The plain :class:`torch.nn.Conv2d` that shares this module's parameters."""
        new = nn.Conv2d.__new__(nn.Conv2d)
        skip = ("_prepared", "_method")
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

    def train(self, mode: bool = True) -> SparseConv2d:
        self.repack()
        return super().train(mode)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> SparseConv2d:
        self.repack()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.repack()

    def repack(self) -> None:
        """Lay the weights out again at the next call.

        Needed only after single elements of the weight were written past torch: through
        `weight.data`, a numpy or DLPack view, or by another process.
        """
        self.__dict__.pop("_prepared", None)
        weight = self._parameters.get("weight")
        if weight is not None:
            packs.forget(weight)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        state = self._state(input, weight, bias)
        if state is not None:
            prepared = self._prepared  # read once: other threads may put another in its place
            found = None if prepared is None else prepared.get(input.shape)
            if found is not None and found[0] == state:
                return found[1](input)
        records = _records(input, weight, bias)
        if records and eager(input):
            self.repack()
        if _is_torchs(input) or not self._has_kernel(input, weight, bias):
            return super()._conv_forward(input, weight, bias)
        if records:
            return self._training_forward(input, weight, bias)
        if input.ndim == 3:
            return self._conv_forward(input.unsqueeze(0), weight, bias).squeeze(0)
        padded, padding = self._padded(input, weight)
        stride, dilation = (
            _checks.pair(self.stride, "stride", 1),
            _checks.pair(self.dilation, "dilation", 1),
        )
        steps = stride, padding, dilation, self.groups
        g = ops.geometry(padded, weight, *steps)
        if g.Oh < 1 or g.Ow < 1 or ops.unsupported(self._method, g):
            return super()._conv_forward(input, weight, bias)
        if state is None:  # traced, or of a kind of which changes cannot be seen
            return convolve(padded, weight, bias, *steps, self._method, keep=True)
        require_output(g)
        packed = ops.kept_pack(weight, g, self._method)
        if packed is None:
            return super()._conv_forward(input, weight, bias)
        run = ops.prepare(padded, weight, packed, bias, *steps, self._method)
        if run is None:
            return call("conv2d", padded, weight, packed, bias, *steps, self._method, True)
        if padded is input:
            self._keep(input.shape, state, run)
        return run(padded)

    def _keep(self, size: torch.Size, state: Any, run: Callable[[Tensor], Tensor]) -> None:
        prepared = self._prepared
        if prepared is None or len(prepared) >= SIZES:
            prepared = self._prepared = {}
        prepared[size] = state, run

    def _padded(self, input: Tensor, weight: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """The input and its padding with zeros in numbers; padding of another kind is done here."""
        if self.padding_mode != "zeros":
            amounts = self._reversed_padding_repeated_twice
            return F.pad(input, amounts, mode=self.padding_mode), (0, 0)
        if isinstance(self.padding, str):
            return named_padding(input, weight, self.padding, self.stride, self.dilation)  # type: ignore[arg-type]
        return input, _checks.pair(self.padding, "padding", 0)

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
        g = ops.geometry(input, self.weight, self.stride, padding, self.dilation, self.groups)
        if ops.unsupported(self._method, g) or g.Oh < 1 or g.Ow < 1:
            return None
        packed = ops.kept_pack(self.weight, g, self._method)
        if packed is None:
            return None
        bias = None if self.bias is None else self.bias.detach()
        return FUSIBLE[self._method](packed[0], bias, g, epilogue)

    def _training_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Forward pass and gradient that skip zeros where that pays; torch's own otherwise."""
        plain = (
            self._method == "cpc" and eager(input) and input.ndim == 4 and self.groups == 1
            and self.padding_mode == "zeros" and not isinstance(self.padding, str)
            and not weight.is_inference()
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
        if not isinstance(input, Tensor) or not eager(input) or _records(input, weight, bias):
            return None
        if autocast(input) or not _ordinary(weight) or not (bias is None or _ordinary(bias)):
            return None
        weight_stamp = packs.stamp(weight)
        bias_stamp = None if bias is None else packs.stamp(bias)
        if weight_stamp is None or (bias_stamp is None and bias is not None):
            return None
        return (
            input.shape, input.stride(), input.dtype, weight_stamp, bias_stamp, ops.pack_key(),
            self.stride, self.padding, self.dilation, self.groups, self.padding_mode,
        )  # fmt: skip

    def _has_kernel(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
        """False where torch's own convolution is to run: it also words the errors of bad input."""
        if self._method == "dense" or not all(map(_on_cpu, (input, weight))):
            return False
        fits = (
            input.ndim in (3, 4) and weight.ndim == 4 and 0 not in weight.shape
            and input.shape[-3] == weight.shape[1] * self.groups and input.numel() > 0
            and weight.shape[0] % self.groups == 0
        )  # fmt: skip
        if not fits or input.dtype not in _checks.KERNEL_DTYPES or input.dtype != weight.dtype:
            return False
        if bias is None:
            return True
        return _on_cpu(bias) and bias.dtype == input.dtype and bias.shape == weight.shape[:1]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_prepared"}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, method={self.method}"


def _is_torchs(input: Any) -> bool:
    """Whether torch chooses the dtype, or a TorchScript trace is recorded, which is to run
    without this package and to follow sizes and weights as torch's own operators do."""
    return (
        isinstance(input, Tensor) and autocast(input)
    ) or torch._C._get_tracing_state() is not None


def _ordinary(tensor: Any) -> bool:
    return type(tensor) in (Tensor, nn.Parameter) and _on_cpu(tensor)


def _on_cpu(tensor: Any) -> bool:
    return (
        isinstance(tensor, Tensor)
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
    )


def _records(*tensors: Tensor | None) -> bool:
    """Whether a gradient is recorded of what is made from `tensors`."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
