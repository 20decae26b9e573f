"""The plan: which convolution method each layer of a network runs with, and the figures behind it.

A plan is plain data. It holds no weight, no path and no code; it can be read, compared, saved as
JSON, and applied to the same network in another process. Every object of this module has been
checked: a constructor that returns returns a valid plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from jsc import _files
from jsc.methods import METHODS
from jsc.tuning.plan import strict_json, table
from jsc.tuning.plan.environment import Environment
from jsc.tuning.plan.errors import PlanError
from jsc.tuning.plan.schema import (
    check_fields,
    require_count,
    require_counts,
    require_duration,
    require_mapping,
    require_sequence,
    require_text,
    shown,
)
from jsc.typing import MethodName

FORMAT = "jsc-plan"
VERSION = 4  # version 3 did not have the precision, 1 and 2 had plans for fused networks
NOTABLE = 1.02  # torch alone is called faster if it is so many times as fast

T = TypeVar("T")


@dataclass(frozen=True)
class LayerChoice:
    """One convolution layer: what it is, what was measured on the sample, what was chosen.

    Times are milliseconds per run of the model, summed over the layer's calls. `max_error` is the
    largest difference of the chosen method's output from the dense one, over the largest dense
    output. `memory` has the bytes of the input activation in the form of each method; of cpo and
    cps where they were tried (see `jsc.methods.Method.stored_bytes`).
    """

    name: str
    input_shape: tuple[int, ...]  # (N, C, H, W) of the first call; () if there was none
    weight_shape: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int
    calls: int
    density: float
    method: MethodName
    reason: str
    times_ms: Mapping[str, float]
    max_error: float
    memory: Mapping[str, int]
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_text("name", self.name, empty=True)  # the model itself may be one convolution
        require_text("reason", self.reason)
        for alias in require_sequence("aliases", self.aliases):
            require_text("aliases", alias)
        require_counts("input_shape", self.input_shape, (0, 4))
        require_counts("weight_shape", self.weight_shape, (4,))
        require_counts("stride", self.stride, (2,))
        require_counts("dilation", self.dilation, (2,))
        if self.padding not in ("same", "valid"):
            require_counts("padding", self.padding, (2,))
        for key in ("groups", "calls"):
            require_count(key, getattr(self, key))
        require_duration("max_error", self.max_error)
        if require_duration("density", self.density) > 1:
            raise PlanError(f"density must be in [0, 1], got {self.density}")
        for method, time in require_mapping("times_ms", self.times_ms).items():
            _require_method(method)
            require_duration(f"times_ms of {method}", time)
        for method, count in require_mapping("memory", self.memory).items():
            if method not in METHODS:
                raise PlanError(f"memory of an unknown method {shown(method)!r}")
            require_count(f"memory of {method}", count)
        if _require_method(self.method) != "dense" and "dense" not in self.times_ms:
            raise PlanError(f"method {self.method} was chosen without a dense time beside it")

    @property
    def dense_ms(self) -> float:
        """Time of the layer as the model ran it; 0 when no call reached it."""
        return self.times_ms.get("dense", 0.0)

    @property
    def chosen_ms(self) -> float:
        """Time of the chosen method; the dense time when that method was not measured."""
        return self.times_ms.get(self.method, self.dense_ms)

    @property
    def gain(self) -> float:
        """dense time / chosen time: 1 for a dense layer."""
        return self.dense_ms / self.chosen_ms if self.chosen_ms > 0 else 1.0

    @property
    def dense_bytes(self) -> int:
        """The input activation as it is."""
        return self.memory.get("dense", 0)

    @property
    def chosen_bytes(self) -> int:
        """The input activation in the form of the chosen method."""
        return self.memory.get(self.method, self.dense_bytes)


@dataclass(frozen=True)
class Plan:
    """The choices for a network, the whole model's times with and without them, and where.

    `str()` and notebooks show a table; `to_markdown`, `to_dict` and `save` export it;
    `jsc.apply(model, plan)` applies it.
    """

    layers: tuple[LayerChoice, ...]
    dense_ms: float  # the whole model as it was given, on the sample
    tuned_ms: float  # the whole model with this plan; 0 when that was not measured
    max_error: float  # of the whole model's outputs, over the largest of them
    min_gain: float
    spread: float = 1.0  # whole model: median run over fastest run; far above 1 on a busy machine
    environment: Environment = field(default_factory=Environment.current)
    # torch alone with channels-last weights and sample; 0 when it was given so, or not measured
    channels_last_ms: float = 0.0

    def __post_init__(self) -> None:
        require_sequence("layers", self.layers)
        for layer in self.layers:
            if not isinstance(layer, LayerChoice):
                raise PlanError(f"layers must hold LayerChoice, got {type(layer).__name__}")
        names = [name for layer in self.layers for name in (layer.name, *layer.aliases)]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise PlanError(f"layer {twice!r} appears twice")
        for key in (
            "dense_ms", "tuned_ms", "max_error", "min_gain", "spread", "channels_last_ms",
        ):  # fmt: skip
            require_duration(key, getattr(self, key))
        env = self.environment
        if not isinstance(env, Environment):
            raise PlanError(f"environment must be an Environment, got {type(env).__name__}")
        for key in ("cpu", "isa", "torch", "jsc", "precision"):
            require_text(key, getattr(env, key))
        require_count("threads", env.threads)

    @property
    def gain(self) -> float:
        """Whole model: dense time / tuned time on the sample."""
        return self.dense_ms / self.tuned_ms if self.tuned_ms > 0 else 1.0

    @property
    def torch_is_faster(self) -> bool:
        """Whether torch alone, with everything channels-last, is faster than this plan."""
        return 0 < self.channels_last_ms * NOTABLE < self.tuned_ms

    @property
    def chosen(self) -> tuple[LayerChoice, ...]:
        """The layers that do not stay dense."""
        return tuple(layer for layer in self.layers if layer.method != "dense")

    def override(self, methods: Mapping[str, MethodName]) -> Plan:
        """A plan with other methods for some layers: `plan.override({"conv1": "dense"})`.

        The whole model has not been measured with it, so its tuned time is 0 and its gain 1. Raises
        PlanError for a layer or method that there is not.
        """
        unknown = sorted(set(methods) - {layer.name for layer in self.layers})
        if unknown:
            raise PlanError(f"the plan has no layer {', '.join(map(repr, unknown))}")
        layers = tuple(
            replace(layer, method=methods[layer.name], reason=f"{methods[layer.name]}: set by hand")
            if layer.name in methods
            else layer
            for layer in self.layers
        )
        return replace(self, layers=layers, tuned_ms=0.0, max_error=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Everything as dicts, lists, strings and numbers: what `save` writes."""
        body = asdict(self)
        body["layers"] = [_plain(layer) for layer in self.layers]
        return {"format": FORMAT, "version": VERSION, **body}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Plan:
        """The plan `to_dict` gave. `PlanError` when it is anything else."""
        body = dict(require_mapping("the plan", document))
        if body.pop("format", None) != FORMAT:
            raise PlanError(f'it is not a jsc plan: "format" is not "{FORMAT}"')
        version = body.pop("version", None)
        if type(version) is not int or version != VERSION:
            raise PlanError(
                f"plan version {shown(version)!r} is not {VERSION}, which this jsc reads; "
                "tune again, or use the jsc that wrote it"
            )
        check_fields(cls, body)
        body["environment"] = _construct(Environment, body["environment"])
        body["layers"] = tuple(
            _construct(LayerChoice, layer) for layer in require_sequence("layers", body["layers"])
        )
        return cls(**body)

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON. Raises OSError if the file cannot be written, TypeError if `path`
        is no path."""
        _files.write_bytes(path, strict_json.dumps(self.to_dict()).encode())

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a saved plan.

        Raises
        ------
        PlanError  if the file is not, in every bit that matters, a plan that `save` wrote.
        OSError    if it cannot be read.
        TypeError  if `path` is no path.
        """
        try:
            with _files.open_regular(path) as file:
                data = file.read(strict_json.MAX_BYTES + 1)
        except ValueError as error:
            raise PlanError(str(error)) from None
        document = strict_json.loads(data, str(path))
        try:
            plan = cls.from_dict({k: v for k, v in document.items() if k != "checksum"})
        except PlanError as error:
            raise PlanError(f"{path}: {error}") from None
        strict_json.check_checksum(document, str(path))
        return plan

    def to_markdown(self) -> str:
        """The table as GitHub Markdown."""
        return table.markdown(self)

    def __str__(self) -> str:
        return table.text(self)

    def _repr_html_(self) -> str:
        return table.html(self)


def _require_method(method: object) -> str:
    if not isinstance(method, str) or method not in METHODS:
        raise PlanError(f"unknown method {shown(method)!r}; known are {', '.join(METHODS)}")
    return method


def _plain(layer: LayerChoice) -> dict[str, Any]:
    """`asdict` with lists for tuples and dicts for the mappings, as JSON has them."""
    values = {f.name: getattr(layer, f.name) for f in fields(layer)}
    values["times_ms"], values["memory"] = dict(layer.times_ms), dict(layer.memory)
    return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


def _construct(cls: type[T], values: object) -> T:
    body = dict(require_mapping(cls.__name__, values))
    check_fields(cls, body)
    return cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in body.items()})
