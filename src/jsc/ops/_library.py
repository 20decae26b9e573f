"""The `jsc` operator namespace: how every operator of this package is registered.

`torch.library.Library.define/impl/register_fake` and not `custom_op` (10.7 against 6.3 us a call,
pytorch#177109). Gradients are `torch.autograd.Function`s with `setup_context`, kept *outside* the
operators: `register_autograd` breaks `torch.func.grad` in torch 2.13 (pytorch#168393, #170834).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

LIB = torch.library.Library("jsc", "FRAGMENT")  # operators live as long as this object
OPS: list[str] = []  # every operator registered, for the tests that walk over them


def register(schema: str, cpu: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Define `jsc::<schema>` with its CPU implementation and its shape function."""
    name = schema.split("(", 1)[0]
    LIB.define(schema, tags=[torch.Tag.pt2_compliant_tag])
    LIB.impl(name, cpu, "CPU")
    torch.library.register_fake(f"jsc::{name}", fake, lib=LIB)
    OPS.append(name)
