"""Constants of a compiled network: numbers made from the model's state by a recipe.

The recipe is kept, so that `refresh` can make the same constant from new weights, in place:
whoever has its address needs no word of it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

State = Mapping[str, Tensor]
FLOATS: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}  # whatever torch's defaults are
# What is larger may round to inf in bfloat16 (`ops.amx.LARGEST`), with room for the rounding of
# a product of weight and batch-norm.
LARGEST = 3.38e38
Recipe = Callable[[State], Tensor]


class Constant:
    """`recipe(state)` gives the numbers; equal keys are equal numbers."""

    def __init__(self, key: Hashable, recipe: Recipe):
        self.key = key
        self.recipe = recipe

    def then(self, what: Hashable, function: Callable[[Tensor], Tensor]) -> Constant:
        """The constant `function` of this one."""
        recipe = self.recipe
        return Constant((what, self.key), lambda state: function(recipe(state)))


def of(name: str) -> Constant:
    """The entry `name` of the state."""
    return Constant(name, lambda state: state[name].detach())


class Store:
    """The tensors of all constants that programs of one network use, each made once."""

    def __init__(self, state: State):
        self.state = state
        self._made: dict[Hashable, tuple[Constant, Tensor]] = {}
        self._bounded: dict[Hashable, Constant] = {}

    def tensor(self, constant: Constant) -> Tensor:
        """The constant's tensor: contiguous, aligned to 64 bytes, at one address for ever. It may
        be an entry of the state itself."""
        found = self._made.get(constant.key)
        if found is None:  # another thread may make it too: the one that is first is kept
            value = self.value(constant)
            fits = value.is_contiguous() and value.data_ptr() % 64 == 0
            made = (constant, value if fits else aligned(value))
            found = self._made.setdefault(constant.key, made)
        return found[1]

    def value(self, constant: Constant) -> Tensor:
        """The numbers of a constant without keeping them."""
        return _computed(constant, self.state)

    def bounded(self, constant: Constant) -> bool:
        return constant.key in self._bounded or is_bounded(self.value(constant))

    def keep_bounded(self, constant: Constant) -> None:
        """`replace` then refuses numbers with which this constant is not bounded."""
        self._bounded[constant.key] = constant

    def replace(self, given: State, names: Iterable[str]) -> None:
        """Takes the entries `names` of the state from `given`, in place, and makes the constants
        again. Raises ValueError if one is missing or of another shape. Whatever is raised, nothing
        has changed: all constants are made first, which takes their memory again for a while.
        """
        own = {name: self.state[name] for name in sorted(names) if name in self.state}
        refused = []
        for name, tensor in own.items():
            new = given.get(name)
            if new is None or new.shape != tensor.shape or new.dtype != tensor.dtype:
                what = "nothing" if new is None else f"{new.dtype} of {tuple(new.shape)}"
                shape = tuple(tensor.shape)
                refused.append(f"{name} must be {tensor.dtype} of shape {shape}; got {what}")
        then = {**self.state, **{name: given[name] for name in own if name in given}}
        if not refused:
            refused = [
                f"{constant.key} must have finite weights, none above {LARGEST:.2g}, with the "
                "method that it has; compile the model with these weights instead"
                for constant in self._bounded.values()
                if not is_bounded(_computed(constant, then))
            ]
        if refused:
            more = f"\nand {len(refused) - 5} more" if len(refused) > 5 else ""
            raise ValueError("refresh: " + "\n".join(refused[:5]) + more)
        # It may change tensors that were made in inference mode, and others.
        with torch.inference_mode():
            ready = [(made, _computed(constant, then)) for constant, made in self._made.values()]
            for name, tensor in own.items():
                tensor.copy_(given[name])
            for made, numbers in ready:
                made.copy_(numbers)

    @property
    def nbytes(self) -> int:
        return sum(made.nbytes for _, made in self._made.values())


def _computed(constant: Constant, state: State) -> Tensor:
    with torch.autocast("cpu", enabled=False):  # a recipe may have products
        return constant.recipe(state)


def is_bounded(x: Tensor) -> bool:
    """Are all numbers finite, and below the largest in size?"""
    if not x.numel():
        return True
    least, most = torch.aminmax(x)  # NaN where there is one
    return bool(least > -LARGEST) and bool(most < LARGEST)


def aligned(x: Tensor) -> Tensor:
    """A contiguous copy whose first number lies at a multiple of 64 bytes."""
    room = torch.empty(x.numel() + 64 // x.element_size(), dtype=x.dtype, device="cpu")
    skip = (-room.data_ptr() // room.element_size()) % (64 // room.element_size())
    copy = room[skip : skip + x.numel()].view(x.shape)
    return copy.copy_(x)
