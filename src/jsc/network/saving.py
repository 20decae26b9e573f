"""Compiled networks in files: tensors as safetensors, all else as JSON in their header.

The JSON has the graphs of functional ATen operators that were captured, so a file depends neither
on our instructions nor on a processor. Reading runs no code of the file's: an operator is looked
up by its name among torch's own and a few of ours, and one that writes to its arguments is refused.
"""

from __future__ import annotations

import json
import math
import operator
from dataclasses import astuple
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from jsc._files import open_regular, write_bytes
from jsc.network import guards
from jsc.network.captured import ON_SIZES, Captured, Placeholder

if TYPE_CHECKING:
    from jsc.network.compiled import CompiledNetwork

KEY = "jsc.network"
VERSION = 2
READABLE = (1, 2)  # 1 had free sizes without conditions
LARGE = 1 << 20  # bytes of a tensor that is read, not mapped and copied
DTYPES = {str(d): d for d in vars(torch).values() if isinstance(d, torch.dtype)}
LAYOUTS = {str(v): v for v in vars(torch).values() if isinstance(v, torch.layout)}
FORMATS = {str(v): v for v in vars(torch).values() if isinstance(v, torch.memory_format)}
NAMED = {**DTYPES, **LAYOUTS, **FORMATS}
# Operators of our own that a file may name: they check their arguments themselves.
OURS = (
    "jsc.jpeg.default", "jsc.local_contrast.default", "jsc.soft_quantize.default",
    "jsc.block_dct.default", "jsc.block_idct.default",
)  # fmt: skip


class FileError(ValueError):
    """A file is no compiled network, or is damaged."""


def described(net: CompiledNetwork) -> dict[str, Any]:
    """What `write` takes of a network beside its graphs. Its sizes are those of its last call."""
    sizes = (part for part in next(reversed(net._programs))[1:] if isinstance(part, tuple))
    return {
        "name": net._name,
        "structure": pytree.treespec_dumps(net._arguments.structure),
        "kinds": net._arguments.kinds,
        "persistent": sorted(net._persistent),
        "classes": net._classes,
        "plan": net.plan,
        "precision": list(net.precision),
        "accuracy": None if net.accuracy is None else astuple(net.accuracy),
        "inputs": [[list(shape), str(dtype), last] for shape, dtype, _, last in sizes],
        "isa": net._isa,
    }


def write(path: str | PathLike[str], about: dict[str, Any], graphs: list[Captured]) -> None:
    """Writes a network. `about` is plain data, for JSON. OSError if the file cannot be written."""
    tensors: dict[str, Tensor] = {}
    encoded = []
    for number, graph in enumerate(graphs):
        names = {p.name: p.name for p in graph.placeholders if p.kind == "state"}
        names |= {p.name: f"{number}:{p.name}" for p in graph.placeholders if p.kind == "made"}
        tensors |= {new: graph.state[old].detach().contiguous() for old, new in names.items()}
        encoded.append(_encode_graph(graph, names))
    document = {"version": VERSION, **about, "graphs": encoded}
    if _names_modules(document):
        raise TypeError("save: a network whose arguments or results have an enumeration as a key")
    text = json.dumps(document)
    # Copies: safetensors refuses tensors that share memory.
    copies = {n: t.clone() for n, t in tensors.items()}
    write_bytes(path, save(copies, metadata={KEY: text}))


def read(path: str | PathLike[str]) -> tuple[dict[str, Any], list[Captured]]:
    """What `write` wrote. Raises FileError for any other file, ValueError for a pipe or a device,
    TypeError for what is no path, OSError if it cannot be read."""
    raw = open_regular(path)  # refuses in words what safetensors would wait for, or close
    try:
        with raw, safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
            if text is None:
                raise FileError(f"{path} is no compiled network; CompiledNetwork.save writes one")
            state = _tensors(file, raw)
        about = json.loads(text)
        if _names_modules(about):
            raise FileError(f"{path} names a module to import, which no compiled network does")
        if about["version"] not in READABLE:
            raise FileError(
                f"{path} has version {about['version']} of the format, and this jsc reads "
                f"up to {VERSION}; save the network again with this release"
            )
        return about, [_decode_graph(g, state) for g in about.pop("graphs")]
    except FileError:
        raise
    except Exception as error:  # whatever a damaged file makes of JSON, safetensors or a graph
        raise FileError(
            f"{path} is damaged ({type(error).__name__}: {error}); save the network again"
        ) from error


def _tensors(file: Any, raw: BinaryIO) -> dict[str, Tensor]:
    """All tensors, in memory of their own: else the network would change with the file, which
    safetensors maps. Large ones are read, since pages that are mapped take memory beside a copy."""
    size = int.from_bytes(raw.read(8), "little")
    header = json.loads(raw.read(size))  # safetensors has checked it
    state: dict[str, Tensor] = {}
    for name in file.keys():  # noqa: SIM118
        kind, (begin, end) = header[name]["dtype"], header[name]["data_offsets"]
        if kind != "F32" or end - begin < LARGE:
            state[name] = file.get_tensor(name).clone()
            continue
        tensor = torch.empty(header[name]["shape"], dtype=torch.float32, device="cpu")
        raw.seek(8 + size + begin)
        if raw.readinto(tensor.numpy().data) != end - begin:  # type: ignore[attr-defined]
            raise ValueError(f"it ends within {name}")
        state[name] = tensor
    return state


def _names_modules(value: Any) -> bool:
    """Whether a document has a structure for which torch would import a module by its name: an
    enumeration, or a defaultdict of anything but a builtin. torch keeps JSON in strings of JSON."""
    if isinstance(value, str):
        if "{" not in value:
            return False
        try:
            return _names_modules(json.loads(value))
        except ValueError:  # no JSON
            return False
    if isinstance(value, list):
        return any(map(_names_modules, value))
    if isinstance(value, dict):
        foreign = value.get("default_factory_module", "builtins") != "builtins"
        return foreign or "__enum__" in value or any(map(_names_modules, value.values()))
    return False


def _encode_graph(captured: Captured, names: dict[str, str]) -> dict[str, Any]:
    nodes = list(captured.graph.nodes)
    numbers = {node: i for i, node in enumerate(nodes)}

    def encode(a: Any) -> Any:
        if isinstance(a, fx.Node):
            return {"node": numbers[a]}
        if isinstance(a, (list, tuple)):
            return [encode(v) for v in a]
        if isinstance(a, (torch.dtype, torch.layout, torch.memory_format)):
            return {"torch": str(a)}
        if isinstance(a, torch.device):
            return {"device": str(a)}
        if isinstance(a, float) and not math.isfinite(a):
            return {"float": str(a)}
        if a is None or isinstance(a, (bool, int, float, str)):
            return a
        raise TypeError(f"save: a network with an argument of type {type(a).__name__}: {a!r}")

    return {
        "placeholders": [
            [p.kind, names.get(p.name, ""), encode(p.value)] for p in captured.placeholders
        ],
        "sizes": captured.sizes,
        "free": {name: [low, encode(high)] for name, (low, high) in captured.free.items()},
        "guards": captured.guards,
        "results": pytree.treespec_dumps(captured.out_spec),
        "nodes": [
            [node.op, node.name, _target_name(node), _layer(node), encode(node.args)]
            + [[name, encode(value)] for name, value in node.kwargs.items()]
            for node in nodes
        ],
    }


def _decode_graph(data: dict[str, Any], state: dict[str, Tensor]) -> Captured:
    graph = fx.Graph()
    nodes: list[fx.Node] = []

    def decode(a: Any) -> Any:
        if isinstance(a, list):
            return [decode(v) for v in a]
        if not isinstance(a, dict):
            return a
        ((kind, value),) = a.items()
        if kind == "node":
            return nodes[value]
        if kind == "torch":
            return NAMED[value]
        return {"device": torch.device, "float": float}[kind](value)

    for op, name, target, layer, arguments, *options in data["nodes"]:
        args = tuple(decode(arguments))
        kwargs = {key: decode(value) for key, value in options}
        function = _target(target) if op == "call_function" else target
        if op not in ("placeholder", "call_function", "output"):
            raise ValueError(f"a node of kind {op}")
        node = graph.create_node(op, function, args, kwargs, name)
        node.meta["nn_module_stack"] = {"layer": (layer, None)}
        nodes.append(node)
    placeholders = [
        Placeholder(kind, name, decode(value)) for kind, name, value in data["placeholders"]
    ]
    needed = {p.name for p in placeholders if p.kind in ("state", "made")}
    free = {name: (low, decode(high)) for name, (low, high) in data["free"].items()}
    conditions = tuple(data.get("guards", ()))
    if not guards.understood(conditions, free):
        raise ValueError(f"conditions on sizes that are none: {conditions}")
    return Captured(
        graph,
        placeholders,
        [tuple(shape) for shape in data["sizes"]],
        free,
        conditions,
        pytree.treespec_loads(data["results"]),
        {name: state[name] for name in needed},
        sized=False,
    )


def _layer(node: fx.Node) -> str:
    paths = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    return paths[-1] if paths else ""


def _target_name(node: fx.Node) -> str:
    if node.op != "call_function":
        return str(node.target)
    if node.target is operator.getitem:
        return "getitem"
    for name, function in ON_SIZES.items():
        if node.target is function:
            return name
    name = str(node.target)
    aten = isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "aten"
    if not aten and name not in OURS:
        raise TypeError(
            f"save: the network calls {name}, which is neither an operator of torch's nor one of "
            f"{', '.join(OURS)}; compile and save the part of the model without it"
        )
    return name


def _target(name: str) -> Any:
    """The function of a name that `_target_name` gave."""
    if name == "getitem":
        return operator.getitem
    if name in ON_SIZES:
        return ON_SIZES[name]
    namespace, operation, overload = name.split(".")
    if name in OURS:
        return getattr(getattr(torch.ops.jsc, operation), overload)
    found = getattr(getattr(torch.ops.aten, operation), overload)
    # Of TorchScript alone are those without a kernel: they seed generators and print.
    # aten.from_file is the one operator without side effects on tensors that opens a file.
    functional = torch._C._dispatch_has_kernel(found.name()) and not found._schema.is_mutable
    gives_tensors = any("Tensor" in str(result.type) for result in found._schema.returns)
    functional = functional and (gives_tensors or operation.startswith("_assert"))
    if namespace != "aten" or not functional or operation == "from_file":
        raise ValueError(f"{name} is no functional operator of torch's")
    return found
