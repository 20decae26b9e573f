"""A network frozen and compiled for the CPU: its programs by the sizes of the inputs."""

from __future__ import annotations

from collections import Counter, OrderedDict
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from jsc import _config
from jsc._lock import Lock
from jsc._precision import Precision
from jsc.network import report, saving
from jsc.network.accuracy import Accuracy
from jsc.network.arguments import (
    Arguments,
    arguments_of,
    checked_budget,
    kind_of,
    refuse_transforms,
    tensors_of,
)
from jsc.network.calls import PROGRAMS, Key, LastCall, is_channels_last, kept, key_of
from jsc.network.capture import capture, frozen_copy, varied
from jsc.network.captured import Captured
from jsc.network.constants import Store
from jsc.network.errors import CompileError
from jsc.network.graph import Convolution
from jsc.network.program import IEEE, NetworkProgram
from jsc.network.structure import classes_of, refuse_other
from jsc.network.tune import tune

compiling = Lock()  # torch.export changes the module and Python's warning filters while it runs


def one_graph(
    model: nn.Module,
    sample: Any,
    precision: Precision,
    budget: float,
    plan: dict[str, str] | None,
    progress: bool,
) -> CompiledNetwork:
    """The network as one program, without a look at its results; arguments and errors are those
    of `jsc.compile`. NotOneGraph if torch.export does not take the model as one graph."""
    refuse_transforms("compile")
    args, kwargs = arguments_of(sample)
    leaves, structure = pytree.tree_flatten((args, kwargs))
    with compiling, torch.no_grad(), torch.autocast("cpu", enabled=False):
        frozen = frozen_copy(model)
        kinds = [kind_of(leaf) for leaf in leaves]
        net = CompiledNetwork(type(model).__name__, structure, kinds, frozen, precision)
        net._start(leaves, budget, plan, progress)
    return net


class CompiledNetwork(nn.Module):
    """A frozen network for inference; made by `jsc.compile`.

    Several threads may call it at a time. A call has torch's number of threads and the same bits
    for each number of them. It raises RuntimeError if an input requires a gradient, TypeError for
    arguments of another structure, dtype or number of dimensions, CompileError for a size that a
    loaded file does not have.

    Attributes
    ----------
    accuracy : largest error of the outputs for the sample against float64, over the largest output,
        and torch's float32 beside it (`error`, `torch_error`); None with check=False.
    precision : of its convolutions and linear layers (`conv`, `linear`).
    """

    def __init__(
        self,
        name: str,
        structure: pytree.TreeSpec,
        kinds: list[str],
        model: nn.Module | None = None,
        precision: Precision = IEEE,
    ):
        super().__init__()
        self.accuracy: Accuracy | None = None
        self.precision = precision
        self._name = name
        self._arguments = Arguments(name, structure, kinds)
        self._isa = _config.isa_name()  # with which methods were timed
        # In a tuple, so that its parameters are not those of this module. None: from a file.
        self._frozen = (model,)
        self._persistent = frozenset(model.state_dict() if model is not None else ())
        self._classes = None if model is None else classes_of(model)  # of its modules
        self._captured: list[Captured] = []
        self._store: Store | None = None
        self._choices: dict[str, str] = {}
        self._lock = Lock()
        self._programs: OrderedDict[Key, NetworkProgram] = OrderedDict()
        self._last: LastCall | None = None
        self._profile: tuple[NetworkProgram, report.Profile] | None = None
        super().train(False)

    def _start(
        self, leaves: list[Any], budget: float, choices: dict[str, str] | None, progress: bool
    ) -> None:
        """Captures the network for a sample and chooses methods on it."""
        self._arguments.check(leaves)
        tensors = [t.resolve_neg() for t in tensors_of(leaves)]
        captured = self._capture(leaves, tensors)
        self._store = Store(captured.state)
        if choices is not None:
            self._choices = choices
        elif budget > 0:
            self._choices = self._timed(captured, tensors, budget, progress)
        program = self._program(leaves)
        if budget > 0:
            self._profile = (program, report.profile(program, tensors, 3))

    def _timed(
        self, captured: Captured, tensors: list[Tensor], budget: float, progress: bool
    ) -> dict[str, str]:
        """Methods chosen by timing them on these inputs."""
        last = tuple(is_channels_last(t) for t in tensors)
        at, store = captured.at(tensors), Store(captured.state)
        draft = NetworkProgram(at, last, store, {}, self.precision, for_tuning=True)
        return tune(draft, tensors, budget, progress)

    def retune(
        self, *args: Any, budget: float = 20.0, progress: bool = True, **kwargs: Any
    ) -> None:
        """Chooses the methods of all convolutions again, by timing them on these inputs: for
        another processor than that of a loaded file, another number of threads, or other data.
        Calls that come meanwhile run by the methods of before. `budget` and `progress` are those of
        `jsc.compile`; the errors are those of a call."""
        leaves, budget = self._arguments.leaves(args, kwargs), checked_budget(budget)
        tensors = [t.resolve_neg() for t in tensors_of(leaves)]
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            choices = self._timed(self._capture(leaves, tensors), tensors, budget, progress)
            with self._lock:
                assert self._store is not None
                self._choices, self._isa = choices, _config.isa_name()
                self._store = Store(self._store.state)  # without what the old methods had packed
                self._programs.clear()
                self._last = None
            program = self._program(leaves)
            self._profile = (program, report.profile(program, tensors, 3))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        last = self._last
        if last is not None and len(args) == 1 and not kwargs and last.fits(args[0]):
            return last.program(args)
        leaves = self._arguments.leaves(args, kwargs)
        tensors = tensors_of(leaves)
        program = self._programs.get(key_of(leaves, tensors)) or self._program(leaves)
        if len(args) == 1 and not kwargs and args[0] is leaves[0]:
            self._last = LastCall(args[0].shape, args[0].stride(), args[0].dtype, program)
        return program([t.resolve_neg() for t in tensors])

    def refresh(self, model: nn.Module) -> None:
        """Takes the weights of `model`, whose structure is that of the compiled one, in place.

        Parameters and buffers are those of its `state_dict`; tensors that are no buffers stay as
        they were. Costs the packing of the weights, and their memory again. No call may run
        meanwhile. Raises ValueError if a parameter is missing, unknown or of another shape, or if a
        module is of another class, TypeError if `model` is no nn.Module; whatever is raised,
        nothing has changed.
        """
        if not isinstance(model, nn.Module):
            raise TypeError(f"refresh: model must be an nn.Module; got {type(model).__name__}")
        assert self._store is not None
        refuse_other(model, self._persistent, self._classes)
        with self._lock:
            self._store.replace(model.state_dict(), self._persistent)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the network to a file that `jsc.load` reads: weights as safetensors, the captured
        graphs and the methods as JSON in their header. Call it once with each image size, and with
        two images or more, that the loaded network is to take. Raises TypeError if the network
        calls an operator that is neither torch's nor one of `jsc.nn`, ValueError if it has not been
        called, OSError if the file cannot be written.
        """
        with self._lock:
            if not self._programs:
                raise ValueError("save: call the network once first")
            saving.write(path, saving.described(self), self._captured)

    @property
    def plan(self) -> dict[str, str]:
        """The methods of convolutions, by the names of their weights."""
        return dict(self._choices)

    def profile(self, *args: Any, repeats: int = 20, **kwargs: Any) -> report.Profile:
        """Where the time of a call goes, operation by operation, measured on one thread."""
        leaves = self._arguments.leaves(args, kwargs)
        with torch.no_grad():
            tensors = [t.resolve_neg() for t in tensors_of(leaves)]
            return report.profile(self._program(leaves), tensors, repeats)

    def methods(self) -> dict[str, int]:
        """How many convolutions take each method, for the size planned last."""
        return dict(Counter(map(self._planned_last().method, self._convolutions())))

    def _convolutions(self) -> list[Convolution]:
        operations = self._planned_last().graph.operations
        return [o for o in operations if isinstance(o, Convolution)]

    def memory(self) -> tuple[int, int]:
        """Bytes that the maps of a call of the last size take, and would take side by side."""
        program = self._planned_last()
        return 4 * program.memory.size, 4 * program.memory.total

    def _planned_last(self) -> NetworkProgram:
        with self._lock:
            return next(reversed(self._programs.values()))

    def train(self, mode: bool = True) -> CompiledNetwork:
        if mode:
            raise CompileError("a compiled network is frozen for inference; train the model itself")
        return super().train(False)

    def _summary(self) -> report.Summary:
        with self._lock:
            last = next(reversed(self._programs.values()), None)
        program, measured = self._profile or (last, None)
        return report.summary(self._name, program, self.accuracy, measured)

    def extra_repr(self) -> str:
        return str(self._summary())

    def __repr__(self) -> str:
        return self.extra_repr()

    def _repr_html_(self) -> str:
        return self._summary().html()

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError(
            "a compiled network cannot be pickled or copied; save it to a file and jsc.load that, "
            "or compile the model where it is needed"
        )

    def _program(self, leaves: list[Any]) -> NetworkProgram:
        """The program for inputs of these sizes, made if there is none."""
        tensors = tensors_of(leaves)
        key = key_of(leaves, tensors)
        with self._lock:
            return kept(self._programs, key, lambda: self._make(leaves, tensors))

    def _make(self, leaves: list[Any], tensors: list[Tensor]) -> NetworkProgram:
        assert self._store is not None
        captured = self._capture(leaves, tensors).at(tensors)
        last = tuple(is_channels_last(t) for t in tensors)
        return NetworkProgram(captured, last, self._store, self._choices, self.precision)

    def _capture(self, leaves: list[Any], tensors: list[Tensor]) -> Captured:
        """The graph for inputs of these sizes: one that we have, or the model's, exported."""
        for captured in self._captured:
            if captured.fits(tensors):
                return captured
        model = self._frozen[0]
        known = " or ".join(c.describe() for c in self._captured)
        given = ", ".join(str(tuple(t.shape)) for t in tensors)
        if model is None:
            raise CompileError(
                f"the file has {self._name} for inputs of the sizes {known}; got {given}. Compile "
                "the model, call it with an input of that size and save it again"
            )
        args, kwargs = pytree.tree_unflatten(leaves, self._arguments.structure)
        try:
            with compiling, torch.autocast("cpu", enabled=False):
                captured = capture(model, args, kwargs, varied(self._captured, tensors))
        except CompileError as error:
            if not self._captured:
                raise
            raise CompileError(
                f"{self._name} takes inputs of the sizes {known}; got {given}, for which: {error}"
            ) from error
        self._captured = [*self._captured[1 - PROGRAMS :], captured]
        return captured
