"""`SparseConv2d`: an `nn.Conv2d` that convolves its input with a chosen method."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jsc import _checks, _config, methods
from jsc.functional.conv import autocast, convolve, named_padding, require_output
from jsc.ops import packs, training
from jsc.ops._library import eager, forward_mode, untransformed
from jsc.typing import MethodName, NamedPadding, PaddingMode

SIZES = 8  # of input that prepared calls are kept for


_Steps = tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]


class _Settings(NamedTuple):
    """What a call reads of its module, besides parameters."""

    method: str
    stride: Any
    padding: Any
    dilation: Any
    groups: int
    padding_mode: str

    def steps(self, padding: Any) -> _Steps:
        """Stride, padding, dilation and groups, as a geometry has them."""
        return (
            _checks.pair(self.stride, "stride", 1), _checks.pair(padding, "padding", 0),
            _checks.pair(self.dilation, "dilation", 1), self.groups,
        )  # fmt: skip

    def plain(self, input: Tensor) -> bool:
        """Batched, one group, padded with zeros by numbers."""
        by_zeros = self.padding_mode == "zeros" and not isinstance(self.padding, str)
        return input.ndim == 4 and self.groups == 1 and by_zeros


class SparseConv2d(nn.Conv2d):
    """An :class:`torch.nn.Conv2d` with the same parameters, `state_dict` keys and results.

    On other devices and for dtypes without a kernel it is torch's own convolution; otherwise it
    runs `method` (see :func:`jsc.functional.conv2d`). While gradients are recorded it is torch's
    own as well, except that with "cpc" and "winograd" each pass of training (forward, gradient of
    the input, gradient of the weight) skips zeros, or goes by Winograd's transforms (3 x 3 kernels
    of stride 1, float32), where that is estimated to be faster. That needs channels-last maps,
    which `model.to(memory_format=torch.channels_last)` makes, and no groups.

    Under autocast, for derivatives of forward mode (`torch.func.jvp`), and in what
    `torch.jit.trace` records, it is torch's own, too.

    The weights are laid out once, and again when they have changed, whoever changed them
    (ops/packs.py). They are also laid out anew after `train()` and `eval()`, `load_state_dict`,
    changes of device or dtype, and a call that recorded gradients. One change needs a call of
    :meth:`repack`: that of a *part* of the weight, say one filter, which torch does not see
    (through `weight.data`, a numpy view, by another process). In evaluation, weights of more than
    2 kB are only sampled, so that results may stay those of the old ones. Any number of threads
    may call one module at once.

    Parameters
    ----------
    method : str
        "dense", "im2col", "mec", "cpo", "cps", "cpc", "winograd" or "amx".
    in_channels, out_channels, kernel_size, ...
        As in :class:`torch.nn.Conv2d`.

    (N, C, H, W) or (C, H, W) -> (N, K, Oh, Ow) or (K, Oh, Ow); float32 and float64 on the CPU run
    the method, anything else torch's own convolution. Raises ValueError for a method that does not
    exist; wrong input is torch's own error.
    """

    # By the size of the input: the state it was prepared in, the call, the weight's memory.
    _prepared: dict[torch.Size, tuple[Any, Callable[[Tensor], Tensor], Tensor]] | None = None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | NamedPadding = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        method: MethodName = "cpc",
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode, device, dtype,
        )  # fmt: skip
        self.method = method

    @classmethod
    def from_dense(cls, conv: nn.Conv2d, method: MethodName = "cpc") -> SparseConv2d:
        """A module that shares the parameters of `conv`, its hooks and its mode.

        Raises TypeError for anything but an nn.Conv2d or a SparseConv2d itself: a class derived
        from it, as that of a parametrized layer is, has a forward or a weight of its own.
        """
        if type(conv) not in (nn.Conv2d, SparseConv2d):
            raise TypeError(
                f"conv must be a torch.nn.Conv2d itself, got {type(conv).__name__}: what a derived "
                "class adds would be lost; parametrize what from_dense returns"
            )
        new = cls.__new__(cls)
        new.__dict__ = {
            k: copy.copy(v) if isinstance(v, dict) else v for k, v in conv.__dict__.copy().items()
        }
        new.method = method
        return new

    def to_dense(self) -> nn.Conv2d:
        """The plain :class:`torch.nn.Conv2d` that shares this module's parameters; a parametrized
        one for a parametrized module."""
        kind = dense_class(self)
        new = kind.__new__(kind)
        skip = ("_prepared", "_method")
        new.__dict__ = {
            k: copy.copy(v) if isinstance(v, dict) else v
            for k, v in self.__dict__.copy().items()
            if k not in skip
        }
        return new

    @property
    def method(self) -> MethodName:
        return self._method

    @method.setter
    def method(self, name: MethodName) -> None:
        self._method = methods.get(name).name
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

        Needed only after a part of the weight (one filter, single elements) was written past torch:
        through `weight.data`, a numpy or DLPack view, or by another process.
        """
        self.__dict__.pop("_prepared", None)
        weight = self._parameters.get("weight")
        if weight is not None:
            packs.forget(weight)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        settings = self._settings()  # read once: another thread may change them meanwhile
        state = _state(input, weight, bias, settings)
        if state is not None:
            prepared = self._prepared
            found = None if prepared is None else prepared.get(input.shape)
            if found is not None and found[0] == state:
                return found[1](input)
        records = _records(input, weight, bias)
        if records and untransformed(input):
            self.repack()
        method = settings.method
        if _is_torchs(input) or not _has_kernel(input, weight, bias, settings):
            return super()._conv_forward(input, weight, bias)
        if records:
            return self._training_forward(input, weight, bias, settings)
        if input.ndim == 3:
            return self._conv_forward(input.unsqueeze(0), weight, bias).squeeze(0)
        padded, padding = self._padded(input, weight, settings)
        steps = settings.steps(padding)
        g = methods.geometry(padded, weight, *steps)
        if g.Oh < 1 or g.Ow < 1 or methods.unsupported(method, g):
            return super()._conv_forward(input, weight, bias)
        if state is None:  # traced, or of a kind whose changes cannot be seen
            return convolve(padded, weight, bias, *steps, method, keep=True)
        require_output(g)
        packed = methods.kept_pack(weight, g, method)
        if packed is None:
            return super()._conv_forward(input, weight, bias)
        form = methods.output_format(padded, weight)
        run = methods.prepare(packed, bias, g, method, form)
        if padded is input:
            self._keep(state, run, weight)
        return run(padded)

    def _settings(self) -> _Settings:
        return _Settings(
            self._method, self.stride, self.padding, self.dilation, self.groups, self.padding_mode
        )

    def _keep(self, state: Any, run: Callable[[Tensor], Tensor], weight: Tensor) -> None:
        """Keep a prepared call, and the weight's memory: its address is part of the state."""
        prepared = self._prepared
        if prepared is None or len(prepared) >= SIZES:
            prepared = self._prepared = {}
        prepared[state[0]] = state, run, weight.detach()

    def _padded(
        self, input: Tensor, weight: Tensor, settings: _Settings
    ) -> tuple[Tensor, tuple[int, int]]:
        """The input and its padding with zeros in numbers; padding of another kind is done here."""
        padding: Any = settings.padding
        if settings.padding_mode != "zeros":
            amounts = self._reversed_padding_repeated_twice
            return F.pad(input, amounts, mode=settings.padding_mode), (0, 0)
        if isinstance(padding, str):
            stride, _, dilation, _ = settings.steps((0, 0))
            return named_padding(input, weight, padding, stride, dilation)
        return input, _checks.pair(padding, "padding", 0)

    def _training_forward(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, settings: _Settings
    ) -> Tensor:
        """Forward pass and gradient by kernels of ours where that pays; torch's own otherwise."""
        plain = settings.plain(input) and untransformed(input) and not weight.is_inference()
        if not methods.get(settings.method).trains or not plain:
            return super()._conv_forward(input, weight, bias)
        steps = settings.steps(settings.padding)
        g = methods.geometry(input, weight, *steps)
        density = training.input_density(input, g) if g.Oh > 0 and g.Ow > 0 else None
        # No bias: a normalisation follows, and leaves no zeros in the gradient of the output.
        if density is None or (bias is None and training.stays_dense(density, g, weight.dtype)):
            return super()._conv_forward(input, weight, bias)
        method, packed = training.forward_weight(density, weight, g)
        return methods.Conv2d.call(input, weight, packed, bias, *steps, method, density)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.copy().items() if k != "_prepared"}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, method={self.method}"


def dense_class(conv: SparseConv2d) -> type[nn.Conv2d]:
    """`nn.Conv2d`; for a parametrized layer, whose class torch has made with the weight as a
    property, the same made from `nn.Conv2d`."""
    if not nn.utils.parametrize.is_parametrized(conv):
        return nn.Conv2d
    kind = type(conv)
    body = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
    return type(kind.__name__.replace("SparseConv2d", "Conv2d"), (nn.Conv2d,), body)


def _state(
    input: Tensor, weight: Tensor, bias: Tensor | None, settings: _Settings
) -> tuple[Any, ...] | None:
    """All that a prepared call depends on, or None where there cannot be one: the input is not an
    ordinary CPU tensor, gradients are recorded, or changes cannot be seen."""
    if not isinstance(input, Tensor) or not eager(input) or _records(input, weight, bias):
        return None
    if torch.is_autocast_enabled("cpu") or not _ordinary(weight):
        return None
    if bias is not None and not _ordinary(bias):
        return None
    weight_stamp = packs.stamp(weight)
    bias_stamp = None if bias is None else packs.stamp(bias)
    if weight_stamp is None or (bias_stamp is None and bias is not None):
        return None
    return (
        input.shape, input.stride(), input.dtype, settings, weight_stamp, bias_stamp,
        _config.isa(),
    )  # fmt: skip


def _has_kernel(input: Tensor, weight: Tensor, bias: Tensor | None, settings: _Settings) -> bool:
    """False where torch's own convolution is to run: it also words the errors of bad input."""
    if settings.method == "dense" or not all(map(_on_cpu, (input, weight))):
        return False
    groups = settings.groups
    fits = (
        input.ndim in (3, 4) and weight.ndim == 4 and 0 not in weight.shape
        and input.shape[-3] == weight.shape[1] * groups and input.numel() > 0
        and weight.shape[0] % groups == 0
    )  # fmt: skip
    if not fits or input.dtype not in _checks.KERNEL_DTYPES or input.dtype != weight.dtype:
        return False
    if bias is None:
        return True
    return _on_cpu(bias) and bias.dtype == input.dtype and bias.shape == weight.shape[:1]


def _is_torchs(input: Any) -> bool:
    """Whether torch chooses the dtype, takes derivatives of forward mode, or records a TorchScript
    trace, which is to run without this package and to follow sizes and weights as torch's own
    operators do."""
    return (
        (isinstance(input, Tensor) and autocast(input))
        or forward_mode()
        or torch._C._get_tracing_state() is not None
    )


def _ordinary(tensor: Any) -> bool:
    kind = type(tensor)
    return (kind is nn.Parameter or kind is Tensor) and tensor.is_cpu and not tensor.is_sparse


def _on_cpu(tensor: Any) -> bool:
    return (
        isinstance(tensor, Tensor)
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
    )


def _records(*tensors: Tensor | None) -> bool:
    """Whether a gradient is recorded of what is made from `tensors`."""
    return torch.is_grad_enabled() and any(
        isinstance(t, Tensor) and t.requires_grad for t in tensors
    )
