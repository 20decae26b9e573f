"""Files of weights that the command line reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


def load_state(path: Path) -> Any:
    """What a .safetensors or torch file holds, read without running code; a state_dict also from
    where a checkpoint keeps it, under "state_dict" or "model".

    Raises OSError if the file cannot be opened, ValueError if it is another one or damaged.
    """
    with path.open("rb"):
        pass  # refused in the words of the system, where the readers have their own
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise errors of many types
        raise ValueError(f"{path.name} holds no state_dict that can be read safely") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    return state
