"""Files of weights and of samples that the command line reads."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from jsc._files import open_regular


def read(path: Path, what: str, reader: Callable[[Path], Any]) -> Any:
    """What `reader` makes of the file, which should hold `what`.

    Raises OSError if the file cannot be opened, ValueError if it is another one or damaged.
    """
    with open_regular(path):
        pass  # refused in the words of the system, where the readers have their own
    try:
        return reader(path)
    except Exception as error:  # readers raise errors of many types
        raise ValueError(f"{path.name} holds no {what} that can be read safely") from error


def read_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def load_state(path: Path) -> Any:
    """What a .safetensors or torch file holds, read without running code; a state_dict also from
    where a checkpoint keeps it, under "state_dict" or "model".

    Errors are those of :func:`read`.
    """
    if path.suffix == ".safetensors":
        return read(path, "state_dict", load_file)
    state = read(path, "state_dict", read_torch)
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    return state


def load_weights(model: nn.Module, path: Path) -> None:
    """Give the model the weights of a file. ValueError, in one line, if they are of another."""
    state = load_state(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:  # a line for each entry that does not fit
        found = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise ValueError(f"the weights of {path.name} are not those of MODEL: {found}") from error
