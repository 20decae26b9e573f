"""`jsc.compile`: a network frozen and compiled for the CPU."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from jsc import _config
from jsc.network import report
from jsc.network.accuracy import Accuracy, measure
from jsc.network.capture import Captured, capture, frozen_copy
from jsc.network.choices import Choice
from jsc.network.constants import Store
from jsc.network.errors import CompileError
from jsc.network.graph import Convolution
from jsc.network.program import NetworkProgram
from jsc.network.tune import tune

PROGRAMS = 16  # of the sizes used last
Key = tuple[Any, ...]


def compile(
    model: nn.Module, sample: Any, *, budget: float = 20.0, check: bool = True
) -> CompiledNetwork:
    """The network as one native program for inference.

    Convolution (with batch-norm, residual and activation in its store), linear layers, pooling,
    normalisations and arithmetic run in kernels of our own over channels-last memory that is
    planned beforehand; concatenation, padding and views cost nothing; any other operator runs in
    torch in between. The result is *frozen*: it has the weights, the structure and the mode
    (eval) of the moment of compiling. `refresh` gives it new weights.

    Parameters
    ----------
    model    an nn.Module of float32 parameters on the CPU. It is copied, not changed.
    sample   an input: a tensor, a tuple of positional arguments, or a dict of keyword arguments.
             Other batch and image sizes work too; each is planned when it first comes.
    budget   seconds for timing each convolution's methods in its place; when they are over, the
             other convolutions take the method of the rule. 0 takes the rule's everywhere.
    check    compare the outputs for the sample with those of the model in float64, and warn where
             they are further off than twice torch's own float32.

    Returns
    -------
    CompiledNetwork, called as the model is. Its outputs have the structure, shapes and memory
    format of the model's; they take no part in autograd.

    Raises
    ------
    CompileError  if the model cannot be captured, or if that would lose something in silence:
                  hooks, attributes or buffers that its forward writes.
    TypeError, ValueError  for a model or sample of the wrong kind.
    """
    args, kwargs = _arguments(sample)
    return CompiledNetwork(model, args, kwargs, budget=budget, check=check)


def _arguments(sample: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(sample, dict):
        args, kwargs = (), dict(sample)
    else:
        args, kwargs = tuple(sample) if isinstance(sample, (tuple, list)) else (sample,), {}
    if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves((args, kwargs))):
        raise TypeError(
            "compile: sample must be a tensor, a tuple of arguments or a dict of keyword arguments "
            f"with a tensor among them; got {type(sample).__name__}"
        )
    return args, kwargs


class CompiledNetwork(nn.Module):
    """A frozen network for inference; made by `jsc.compile`.

    It may be called from several threads at a time. The number of threads of a call is torch's
    (`torch.set_num_threads`); results have the same bits for each number of them.
    """

    def __init__(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        budget: float,
        check: bool,
    ):
        super().__init__()
        self._lock = threading.Lock()
        self._programs: OrderedDict[Key, NetworkProgram] = OrderedDict()
        self._name = type(model).__name__
        # In a tuple, so that its parameters are not those of this module.
        self._frozen = (frozen_copy(model),)
        self._store: Store | None = None
        self._last: _Last | None = None
        self._budget = budget
        self._choices: dict[Any, Choice] = {}
        leaves, self._structure = pytree.tree_flatten((args, kwargs))
        self._kinds = [_kind(leaf) for leaf in leaves]
        self.accuracy: Accuracy | None = None
        with torch.no_grad():
            program = self._program(leaves)
            if check:
                self.accuracy = measure(self._frozen[0], program(_tensors(leaves)), args, kwargs)
        super().train(False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        last = self._last
        if last is not None and len(args) == 1 and not kwargs and last.fits(args[0]):
            return last.program(args)
        leaves = self._flatten(args, kwargs)
        tensors = _tensors(leaves)
        program = self._programs.get(_key(leaves, tensors))
        if program is None:
            program = self._program(leaves)
        elif torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            _refuse_gradients()
        if len(args) == 1 and not kwargs and args[0] is leaves[0]:
            self._last = _Last(args[0].shape, args[0].stride(), args[0].dtype, program)
        return program([t.resolve_neg() for t in tensors])

    def refresh(self, model: nn.Module) -> None:
        """Takes the weights of `model`, whose structure is that of the compiled one, in place.

        Parameters and buffers are those of its `state_dict`; tensors that are no buffers stay as
        they were. Costs the packing of the weights. No call may run meanwhile. Raises ValueError,
        with nothing changed, if a parameter is missing or has another shape.
        """
        frozen = self._frozen[0]
        state = model.state_dict()
        own = frozen.state_dict()
        for name, tensor in own.items():
            given = state.get(name)
            if given is None or given.shape != tensor.shape or given.dtype != tensor.dtype:
                raise ValueError(
                    f"refresh: {name} must be {tensor.dtype} of shape {tuple(tensor.shape)}; got "
                    f"{'nothing' if given is None else f'{given.dtype} of {tuple(given.shape)}'}"
                )
        with self._lock, torch.no_grad():
            frozen.load_state_dict(state)
            assert self._store is not None
            self._store.refresh()

    def profile(self, *args: Any, repeats: int = 20, **kwargs: Any) -> report.Profile:
        """Where the time of a call goes, operation by operation, measured on one thread."""
        leaves = self._flatten(args, kwargs)
        with torch.no_grad():
            tensors = [t.resolve_neg() for t in _tensors(leaves)]
            return report.profile(self._program(leaves), tensors, repeats)

    def methods(self) -> dict[str, int]:
        """How many convolutions take each method, for the size used last."""
        program = next(reversed(self._programs.values()))
        convolutions = [o for o in program.graph.operations if isinstance(o, Convolution)]
        return dict(Counter(program.method(o) for o in convolutions))

    def memory(self) -> tuple[int, int]:
        """Bytes that the maps of a call take, and would take side by side."""
        program = next(reversed(self._programs.values()))
        return 4 * program.memory.size, 4 * program.memory.total

    def train(self, mode: bool = True) -> CompiledNetwork:
        if mode:
            raise CompileError("a compiled network is frozen for inference; train the model itself")
        return super().train(False)

    def extra_repr(self) -> str:
        with self._lock:
            programs = list(self._programs.values())
        return report.summary(self._name, programs[-1], self.accuracy)

    def __repr__(self) -> str:
        return self.extra_repr()

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError(
            "a compiled network cannot be pickled or copied; compile the model where it is needed"
        )

    def _flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        leaves, structure = pytree.tree_flatten((args, kwargs))
        if structure != self._structure:
            raise TypeError(
                f"{self._name} was compiled for arguments {self._structure}; got {structure}"
            )
        return leaves

    def _program(self, leaves: list[Any]) -> NetworkProgram:
        """The program for inputs of these sizes, made if there is none."""
        self._check(leaves)
        tensors = _tensors(leaves)
        key = _key(leaves, tensors)
        with self._lock:
            if key not in self._programs:
                self._programs[key] = self._make(leaves, tensors)
                while len(self._programs) > PROGRAMS:
                    self._programs.popitem(last=False)
            self._programs.move_to_end(key)
            return self._programs[key]

    def _make(self, leaves: list[Any], tensors: list[Tensor]) -> NetworkProgram:
        args, kwargs = pytree.tree_unflatten(leaves, self._structure)
        captured = self._capture(args, kwargs)
        layouts = tuple(_channels_last(t) for t in tensors)
        if self._store is None:
            self._store = Store(captured.state)
            if self._budget > 0:
                draft = NetworkProgram(captured, layouts, Store(captured.state), {})
                self._choices = tune(draft, tensors, self._budget)
        return NetworkProgram(captured, layouts, self._store, self._choices)

    def _capture(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Captured:
        with _export:  # it changes the module while it runs
            return capture(self._frozen[0], args, kwargs)

    def _check(self, leaves: list[Any]) -> None:
        if torch.is_grad_enabled() and any(t.requires_grad for t in _tensors(leaves)):
            _refuse_gradients()
        for leaf, expected in zip(leaves, self._kinds, strict=True):
            given = _kind(leaf)
            if given != expected:
                raise TypeError(f"{self._name} was compiled for {expected}; got {given}")


class _Last(NamedTuple):
    """The last call with one tensor: another of the same size and layout needs no search."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    program: NetworkProgram

    def fits(self, x: Any) -> bool:
        return (
            type(x) is Tensor
            and x.shape == self.shape
            and x.stride() == self.stride
            and x.dtype is self.dtype
            and not x.requires_grad
            and not x.is_neg()
            and x.device.type == "cpu"
            and self.program.isa == _config.isa()
        )


_export = threading.Lock()


def _kind(leaf: Any) -> str:
    if not isinstance(leaf, Tensor):
        return repr(leaf)
    where = "" if leaf.device.type == "cpu" else f" on {leaf.device}"
    return f"a {leaf.dim()}-dimensional {leaf.dtype} tensor{where}"


def _tensors(leaves: list[Any]) -> list[Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _channels_last(x: Tensor) -> bool:
    return (
        x.dim() == 4
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def _key(leaves: list[Any], tensors: list[Tensor]) -> Key:
    """What a program depends on: instruction set, sizes and layouts, plain arguments."""
    return (
        _config.isa(),
        *((t.shape, t.dtype, t.device.type, _channels_last(t)) for t in tensors),
        *(leaf for leaf in leaves if not isinstance(leaf, Tensor)),
    )


def _refuse_gradients() -> None:
    raise RuntimeError(
        "a compiled network computes no gradients, and an input requires one; call it under "
        "torch.no_grad() or on x.detach(), or use the model itself (jsc.tune keeps it trainable)"
    )
