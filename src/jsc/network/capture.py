"""From a module to functional ATen operators: `torch.export`, and what it would lose in silence.

Export runs the model's Python once, on tensors without numbers. Whatever that run does beside
computing (hooks, attributes that it sets, buffers that it changes) would be gone in the compiled
network, so it is refused here, in words.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from jsc.network.errors import CompileError


@dataclass
class Captured:
    """An exported network: its graph, what the placeholders are, and the state that it needs."""

    program: ExportedProgram
    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec
    state: dict[str, Tensor]


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def frozen_copy(model: nn.Module) -> nn.Module:
    """The model in eval mode with memory of its own and no gradients."""
    _check_module(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own, of objects it has made
            frozen = copy.deepcopy(model)
    except Exception as error:
        raise CompileError(
            f"compile needs a copy of the model, and copy.deepcopy fails: {error}"
        ) from error
    return frozen.eval().requires_grad_(False)


def capture(frozen: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Captured:
    """The functional graph of the model for inputs like these.

    Raises CompileError  for what export refuses, and for what would be lost in silence.
    """
    before = _attributes(frozen)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(frozen, args, kwargs, strict=False)
            program = program.run_decompositions({})
    except Exception as error:
        raise CompileError(
            f"torch.export cannot capture {type(frozen).__name__}: {_first_line(error)}. "
            "jsc.tune and jsc.apply make its convolutions faster one by one, without capturing it."
        ) from error
    finally:
        changed = _changed(before, _attributes(frozen))
    if changed:
        raise CompileError(
            f"the forward of {type(frozen).__name__} sets {', '.join(sorted(changed)[:3])}, "
            "which would be lost; compile the part of the model that only computes"
        )
    mutated = [*program.graph_signature.buffers_to_mutate.values()]
    mutated += [*program.graph_signature.user_inputs_to_mutate.values()]
    if mutated:
        raise CompileError(
            f"the forward writes to {', '.join(mutated[:4])}, which a compiled network would not "
            "do; compile the part of the model that only computes"
        )
    state: dict[str, Tensor] = {**program.state_dict, **program.constants}
    call_spec = program.call_spec
    return Captured(program, call_spec.in_spec, call_spec.out_spec, state)


def _check_module(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"compile: model must be an nn.Module; got {type(model).__name__}")
    for name, module in model.named_modules():
        where = name or type(module).__name__
        if any(getattr(module, kind, None) for kind in HOOKS):
            raise CompileError(
                f"{where} has hooks, which a compiled network would not call; remove them "
                "(handle.remove(), or torch.nn.utils.remove_weight_norm and its like)"
            )
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.device.type != "cpu":
            raise CompileError(
                f"compile is for models on the CPU; {name} is on {tensor.device}: model.cpu()"
            )
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise CompileError(
                f"compile is for float32 models; {name} is {tensor.dtype}: model.float()"
            )


OWN = frozenset(vars(nn.Module()))  # what every module has of itself, hooks among it
_PLAIN = (bool, int, float, str, bytes, type(None))


def _attributes(model: nn.Module) -> dict[str, Any]:
    """Plain attributes by value, tensors and lists by what they are and hold."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name in OWN:
                continue
            found[f"{path}.{name}" if path else name] = _summary(value)
        for name, buffer in module._buffers.items():
            found[f"{path}.{name}" if path else name] = id(buffer)
    return found


def _summary(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, (list, tuple)):
        return [_summary(v) for v in value]
    if isinstance(value, dict):
        return [(str(k), _summary(v)) for k, v in value.items()]
    return id(value)


def _changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    names = before.keys() | after.keys()
    missing = object()
    return {n for n in names if before.get(n, missing) != after.get(n, missing)}


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else '(no message)'}"
