"""Memory of a call: what autograd keeps for the backward pass, and the peak of live bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


def saved_bytes(run: Callable[[], Tensor], live_anyway: Iterable[Tensor]) -> int:
    """Bytes of the storages kept for backward, each once; inputs and parameters do not count."""
    ignored = {tensor.untyped_storage().data_ptr() for tensor in live_anyway}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in ignored:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()  # alive while the sizes are added, so that no address is used twice
        total = sum(sizes.values())
    del result
    return total


def peak_bytes(run: Callable[[], Any]) -> int:
    """Most bytes of torch's CPU allocator alive at once during `run`, above those before it.

    Results and gradients count. Memory taken without torch's allocator is not seen.
    """
    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = run()
    del result
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak
