"""Whether a gradient is about to be multiplied by the gate of a ReLU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def behind_relu(x: Tensor, saved: Any, leaf: Any) -> bool:
    """Whether whoever gets the gradient of `x` takes it as zero where `x` is zero.

    So it is where `x` is the output of a ReLU, or of the max-pooling of one (a window whose maximum
    is zero hands its gradient to a closed gate), and nobody else sees the gradient: no hook, no
    `retain_grad`, and the running backward pass is one for all leaves (`torch.autograd.grad` and
    `backward(inputs=...)` may ask for the gradient of `x` itself). `leaf`, a node of the graph that
    accumulates a parameter's gradient, is what tells.

    To be called during a backward pass, with `x` as it was unpacked of `saved` (one of the node's
    `_raw_saved_tensors`). Not seen, and not to be seen: a pre-hook put on the ReLU's graph node
    itself.
    """
    return _original(saved) and _closed(x) and _for_all_leaves(leaf)


def _original(saved: Any) -> bool:
    """Whether what is unpacked is the tensor that was saved, with its hooks. Under hooks on saved
    tensors (`save_on_cpu`, checkpoints) it is another one, which a checkpoint makes only once."""
    return getattr(saved, "unpack_hook", saved) is None


def _closed(x: Tensor) -> bool:
    node = x.grad_fn
    if node is None or x._backward_hooks or x.retains_grad:
        return False
    if node.name() == "MaxPool2DWithIndicesBackward0":
        if not _original(getattr(node, "_raw_saved_self", node)):
            return False
        pooled = node._saved_self  # type: ignore[attr-defined]
        return pooled.grad_fn is not node and _closed(pooled)
    return node.name() == "ReluBackward0"


def _for_all_leaves(leaf: Any) -> bool:
    if leaf is None or leaf.name() != "torch::autograd::AccumulateGrad":
        return False
    try:
        # With inputs=, the engine executes no accumulation, and refuses to answer for inputs.
        return bool(torch._C._will_engine_execute_node(leaf))
    except (AttributeError, RuntimeError):
        return False
