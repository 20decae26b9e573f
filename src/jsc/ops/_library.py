"""The `jsc` operator namespace: how every operator of this package is defined, implemented and
called.

`torch.library.Library.define/impl/register_fake` and not `custom_op` (10.7 against 6.3 us a call,
pytorch#177109). Gradients are `torch.autograd.Function`s with `setup_context`, kept *outside* the
operators: `register_autograd` breaks `torch.func.grad` in torch 2.13 (pytorch#168393, #170834).

Both cost more than a small layer's kernel: `Function.apply` binds its arguments by `inspect` (some
40 us), the dispatcher calls back into Python. So while nothing watches (see `eager`), `call` runs
the implementation itself and `Function.call` goes by the older, cheaper kind of Function.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

LIB = torch.library.Library("jsc", "FRAGMENT")  # operators live as long as this object
DEFINED: dict[str, str] = {}  # every operator, and the module that implements it
_IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {}
_FAKES: dict[str, Callable[..., Any]] = {}


def define(schema: str, module: str) -> None:
    """Define `jsc::<schema>`. `module` implements it, and is imported when it is first called: so
    `import jsc` is light, and a program of torch.export finds every operator all the same."""
    name = schema.split("(", 1)[0]
    DEFINED[name] = module

    def cpu(*arguments: Any) -> Any:
        import_module(module)
        return _IMPLEMENTATIONS[name](*arguments)

    def fake(*arguments: Any) -> Any:
        import_module(module)
        return _FAKES[name](*arguments)

    LIB.define(schema, tags=[torch.Tag.pt2_compliant_tag])
    LIB.impl(name, cpu, "CPU")
    torch.library.register_fake(f"jsc::{name}", fake, lib=LIB)
    torch.library.register_vmap(f"jsc::{name}", _one_by_one(name), lib=LIB)


def implement(name: str, cpu: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """The CPU implementation of `jsc::<name>`, and its shape function."""
    _IMPLEMENTATIONS[name], _FAKES[name] = cpu, fake


def _one_by_one(name: str) -> Callable[..., Any]:
    """Rule of `torch.vmap`: one call for each element, stacked along axis 0. Kernels have threads
    and long loops of their own; what a larger call would save is the overhead of the small one."""

    def rule(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
        if not info.batch_size:  # the shapes are those of any element
            ones = [
                value.new_ones([1 if axis == dim else n for axis, n in enumerate(value.shape)])
                if isinstance(dim, int)
                else value
                for value, dim in zip(arguments, in_dims, strict=True)
            ]
            found, dims = rule(info._replace(batch_size=1), in_dims, *ones)
            return found[:0] if isinstance(found, Tensor) else tuple(t[:0] for t in found), dims
        operator = getattr(torch.ops.jsc, name)
        results = [
            operator(
                *(
                    value.select(dim, i) if isinstance(dim, int) else value
                    for value, dim in zip(arguments, in_dims, strict=True)
                )
            )
            for i in range(info.batch_size)
        ]
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        return tuple(torch.stack(r) for r in zip(*results, strict=True)), (0,) * len(results[0])

    return rule


_ORDINARY = (Tensor, nn.Parameter)


def _is_ordinary(x: Tensor) -> bool:
    """Its numbers are in memory as they are: it is of no subclass, without a negation that is yet
    to be done, and no batch of torch's older vmap (that of `is_grads_batched`)."""
    return (
        type(x) in _ORDINARY
        and not x.is_neg()
        and not torch._C._functorch.is_legacy_batchedtensor(x)
    )


def forward_mode() -> bool:
    """Whether derivatives of forward mode are taken: no operator of ours has one, and torch would
    take it as zero."""
    return forward_ad._current_level >= 0


def untransformed(x: Tensor) -> bool:
    """Nothing traces, transforms or intercepts operators, and `x` is an ordinary CPU tensor."""
    return not (
        torch.compiler.is_compiling()
        or not _is_ordinary(x)
        or not x.is_cpu
        or torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
    )


def eager(x: Tensor) -> bool:
    """`x` is `untransformed`, and no profiler wants to see operators. To be asked before calling
    an operator, never before choosing one: a profiler must not change what runs."""
    return untransformed(x) and not torch.autograd.profiler._is_profiler_enabled


def recorded() -> bool:
    """`torch.jit.trace` or `torch.onnx.export` writes down what runs: operators of torch then, so
    that what is saved needs neither jsc nor an extension of ONNX."""
    return torch.jit.is_tracing() or (
        torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export()
    )


def unlowered(x: Tensor) -> AbstractContextManager[Any]:
    """A region where autocast does not lower the precision of products on the device of `x`."""
    kind = x.device.type
    able = torch.amp.is_autocast_available(kind)
    return torch.autocast(kind, enabled=False) if able else nullcontext()


def _all_eager(x: Tensor, arguments: tuple[Any, ...]) -> bool:
    return eager(x) and all(_is_ordinary(a) for a in arguments if isinstance(a, Tensor))


def call(name: str, x: Tensor, *arguments: Any) -> Any:
    """`torch.ops.jsc.<name>(x, *arguments)`."""
    if _all_eager(x, arguments):
        with torch.no_grad():
            return _IMPLEMENTATIONS[name](x, *arguments)
    return getattr(torch.ops.jsc, name)(x, *arguments)


class Function(torch.autograd.Function):
    """A Function whose `call` is `apply`, without what that costs when nothing is watching.

    The first argument is a tensor; `forward` must not return an argument.
    """

    _cheap: ClassVar[type[torch.autograd.Function]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)

        def forward(ctx: Any, *arguments: Any) -> Any:
            output = cls.forward(*arguments)
            cls.setup_context(ctx, arguments, output)
            return output

        body = {"forward": staticmethod(forward), "backward": staticmethod(cls.backward)}
        cls._cheap = type(cls.__name__, (torch.autograd.Function,), body)

    @classmethod
    def call(cls, x: Tensor, *arguments: Any) -> Any:
        if not _all_eager(x, arguments):
            return cls.apply(x, *arguments)
        if torch.is_grad_enabled() and any(
            isinstance(a, Tensor) and a.requires_grad for a in (x, *arguments)
        ):
            return cls._cheap.apply(x, *arguments)
        return cls.forward(x, *arguments)
