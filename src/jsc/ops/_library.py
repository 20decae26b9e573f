"""The `jsc` operator namespace: how every operator of this package is registered.

`torch.library.Library.define/impl/register_fake` and not `custom_op` (10.7 against 6.3 us a call,
pytorch#177109). Gradients are `torch.autograd.Function`s with `setup_context`, kept *outside* the
operators: `register_autograd` breaks `torch.func.grad` in torch 2.13 (pytorch#168393, #170834).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LIB = torch.library.Library("jsc", "FRAGMENT")  # operators live as long as this object
OPS: list[str] = []  # every operator registered, for the tests that walk over them


def register(schema: str, cpu: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Define `jsc::<schema>` with its CPU implementation and its shape function."""
    name = schema.split("(", 1)[0]
    LIB.define(schema, tags=[torch.Tag.pt2_compliant_tag])
    LIB.impl(name, cpu, "CPU")
    torch.library.register_fake(f"jsc::{name}", fake, lib=LIB)
    torch.library.register_vmap(f"jsc::{name}", _one_by_one(name), lib=LIB)
    OPS.append(name)


def _one_by_one(name: str) -> Callable[..., Any]:
    """Rule of `torch.vmap`: one call for each element, stacked along axis 0. Kernels have threads
    and long loops of their own; what a larger call would save is the overhead of the small one."""

    def rule(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
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
