"""From a module to functional ATen operators: `torch.export`, and what it would lose in silence.

Export runs the model's Python once, on tensors without numbers. Whatever that run does beside
computing (hooks, attributes that it sets (`effects`), buffers that it changes) would be gone in the
compiled network, so it is refused here, in words.

Export takes one and the same path for all inputs of a size. A batch of two or more is exported
with its size free, which then serves every other batch but one image. Image sizes are left free
when they have changed twice (`varied`), because exporting takes two to six times as long then.
"""

from __future__ import annotations

import copy
import logging
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from jsc.network import guards
from jsc.network.captured import Captured, Placeholder, free_sizes
from jsc.network.effects import refuse_effects, with_attributes_of_its_own
from jsc.network.errors import CompileError, NotOneGraph

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


Dimensions = list[set[int]]  # some of each input


def varied(known: Sequence[Captured], tensors: Sequence[Tensor]) -> Dimensions | None:
    """The dimensions of the inputs beside the batch that are worth leaving free, those of an image
    together. None for the first size and the second, and where the third could not be left free."""
    shapes = [tuple(x.shape) for x in tensors]
    others = [c.sizes for c in known if list(map(len, c.sizes)) == list(map(len, shapes))]
    of_one_image = {tuple(size[1:] for size in sizes) for sizes in others}
    fixed = [s for s in of_one_image if all(isinstance(n, int) for size in s for n in size)]
    if len(of_one_image) < 2 or len(fixed) > 2:
        return None
    return [
        {d for d in range(1, len(shape)) if d > 1 or any(o[i][d] != shape[d] for o in others)}
        for i, shape in enumerate(shapes)
    ]


def capture(
    frozen: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    varied: Dimensions | None = None,
) -> Captured:
    """The functional graph of the model for inputs like these, for other numbers in the `varied`
    dimensions too if the model allows it.

    Raises NotOneGraph   for what export refuses, with the line;
           CompileError  if the model itself fails, and for what would be lost in silence.
    """
    try:
        refuse_effects(frozen, args, kwargs)
    except CompileError:
        raise
    except Exception as error:
        raise CompileError(
            f"{type(frozen).__name__} itself fails for inputs like these: "
            f"{_first_line(error)}{_where(error)}"
        ) from error
    try:
        found = _free(frozen, args, kwargs, varied) if varied else None
        return found or _free(frozen, args, kwargs) or _fixed(frozen, args, kwargs)
    except CompileError:
        raise
    except Exception as error:
        raise NotOneGraph(
            f"torch.export cannot capture {type(frozen).__name__} as one graph: "
            f"{_first_line(error)}{_where(error)}"
        ) from error


def _export(frozen: nn.Module, args: Any, kwargs: Any, shapes: Any = None) -> ExportedProgram:
    with warnings.catch_warnings(), _without_worries(), torch.no_grad():
        warnings.simplefilter("ignore")
        # What the forward caches on tensors without numbers stays in the copy.
        model = with_attributes_of_its_own(frozen, buffers=True)
        program = torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
        return program.run_decompositions({})


@contextmanager
def _without_worries() -> Iterator[None]:
    """Export logs conditions on sizes that it could not simplify, with a traceback for each."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _fixed(frozen: nn.Module, args: Any, kwargs: Any) -> Captured:
    """The graph for inputs of just these sizes."""
    program = _export(frozen, args, kwargs)
    _check_sizes(program)
    return _captured(program)


def _free(
    frozen: nn.Module, args: Any, kwargs: Any, varied: Dimensions | None = None
) -> Captured | None:
    """The graph for any batch of two or more, if the inputs are a batch, and any numbers in the
    `varied` dimensions; None if there is nothing to leave free, or the model does not allow it."""
    # Of a slice of a larger batch, export would leave the size of its memory free as well.
    args, kwargs = pytree.tree_map_only(Tensor, _owned, (args, kwargs))
    tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    sizes = {x.shape[0] if x.dim() else 0 for x in tensors}
    batch = {0} if len(sizes) == 1 and min(sizes) >= 2 else set()
    free = [batch | more for more in varied or [set()] * len(tensors)]
    if not any(free):
        return None
    shapes = ShapesCollection()
    for x, dimensions in zip(tensors, free, strict=True):
        shapes[x] = dict.fromkeys(dimensions, Dim.AUTO)
    try:
        captured = _captured(_export(frozen, args, kwargs, shapes))
    except CompileError:
        raise
    except Exception:  # whatever export says of free sizes: the fixed one remains
        return None
    return captured if captured.free else None


def _owned(x: Tensor) -> Tensor:
    return x.clone() if x._is_view() else x


def _captured(program: ExportedProgram) -> Captured:
    signature = program.graph_signature
    mutated = [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]
    if mutated:
        raise CompileError(
            f"the forward writes to {', '.join(mutated[:4])}, which a compiled network would not "
            "do; compile the part of the model that only computes"
        )
    _with_torchs_convolutions(program.graph)
    specs = {spec.arg.name: spec for spec in signature.input_specs}
    placeholders: list[Placeholder] = []
    sizes: list[tuple[int | str, ...]] = []
    for node in program.graph.nodes:
        if node.op != "placeholder":
            continue
        spec, value = specs[node.name], node.meta.get("val")
        if spec.kind is InputKind.USER_INPUT and isinstance(value, Tensor):
            placeholders.append(Placeholder("input"))
            sizes.append(tuple(n if isinstance(n, int) else str(n) for n in value.shape))
        elif spec.kind is InputKind.USER_INPUT:
            placeholders.append(Placeholder("value", value=value))
        else:
            made = spec.kind is InputKind.CONSTANT_TENSOR
            placeholders.append(Placeholder("made" if made else "state", str(spec.target)))
    free = free_sizes(program, sizes)
    # Constants may be tensors that the caller has elsewhere too; the state is that of our copy.
    own = {name: c.clone() if isinstance(c, Tensor) else c for name, c in program.constants.items()}
    state: dict[str, Tensor] = {**program.state_dict, **own}
    fixed = free is not None and not free
    return Captured(
        program.graph, placeholders, sizes, free or {}, guards.of(program) if free else (),
        program.call_spec.out_spec, state, fixed,
    )  # fmt: skip


def _with_torchs_convolutions(graph: fx.Graph) -> None:
    """Makes those of `jsc.nn.SparseConv2d` torch's: a network chooses their methods anew."""
    for node in graph.nodes:
        if node.target is torch.ops.jsc.conv2d.default and node.args[2] is None:  # not packed yet
            x, weight, _, bias, stride, padding, dilation, groups, *_ = node.args
            node.target = torch.ops.aten.convolution.default
            node.args = (x, weight, bias, stride, padding, dilation, False, [0, 0], groups)
            node.kwargs = {}


def _check_module(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"compile: model must be an nn.Module; got {type(model).__name__}")
    for name, module in model.named_modules():
        where = name or type(module).__name__
        if any(_lost(getattr(module, kind, None) or {}) for kind in HOOKS):
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


def _lost(hooks: Any) -> bool:
    """Hooks that do something. Those in which transformers records hidden states for its own
    outputs are inert, or are captured with the forward that wants them."""
    modules = {getattr(hook, "__module__", "") for hook in hooks.values()}
    return bool(modules - {"transformers.utils.output_capturing"})


def _check_sizes(program: ExportedProgram) -> None:
    """Sizes that depend on the numbers in a tensor cannot be planned."""
    for node in program.graph.nodes:
        for value in pytree.tree_leaves(node.meta.get("val")):
            numbers = value.shape if isinstance(value, Tensor) else (value,)
            if any(isinstance(n, (torch.SymInt, torch.SymFloat, torch.SymBool)) for n in numbers):
                lines = str(node.meta.get("stack_trace") or "").strip().splitlines()
                where = f", at {' '.join(line.strip() for line in lines[-2:])}" if lines else ""
                raise NotOneGraph(
                    f"the result of {node.target} has a size that depends on the numbers in its "
                    f"input{where}"
                )


def _where(error: BaseException | None) -> str:
    """The line of the model at which it happened: the innermost one that is not torch's."""
    own = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
    while error is not None:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if not frame.filename.startswith((*own, "<"))
        ]
        if frames and frames[-1].name != "compile":
            last = frames[-1]
            return f", at {last.filename}:{last.lineno} in {last.name}: {last.line}"
        error = error.__cause__ or error.__context__
    return ""


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else '(no message)'}"
