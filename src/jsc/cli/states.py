"""Files of weights that the command line reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def load_state(path: Path) -> Any:
    """What a .safetensors or torch file holds, read without running code; a state_dict also from
    where a checkpoint keeps it, under "state_dict" or "model". ValueError for another file."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # pickle raises errors of many types
        raise ValueError(f"{path.name} holds no state_dict that can be read safely") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    return state
