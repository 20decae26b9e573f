"""Trained networks from a data folder (graph in JSON, weights in safetensors), as plain modules.

    network = load(folder, "googlenet_bvlc")
    x = network.batch(folder, 4)                 # real images, preprocessed
    y = network.model(x)
    inputs = conv_inputs(network.model, x)       # what each nn.Conv2d really receives

A graph is a list of nodes {"name", "op", "in": [names], ...} from the input "data" to "output".
It becomes a `torch.fx.GraphModule`: ordinary nn modules under the nodes' names, and a readable,
traceable forward (`print(network.model.code)`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from benchmarks.inputs.images import ImageSet, preprocess

Node = dict[str, Any]
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Network:
    name: str
    model: nn.Module
    input_shape: tuple[int, int, int]
    recipe: dict[str, Any]
    first_class: int  # 1 where class 0 is "background"

    @property
    def image_set(self) -> str:
        return "cifar10_lossless" if self.input_shape[1] == 32 else "imagenet_sample200_256"

    def images(self, folder: Path) -> ImageSet:
        return ImageSet(folder / "images" / f"{self.image_set}.npz")

    def batch(self, folder: Path, count: int, start: int = 0) -> Tensor:
        images = self.images(folder)
        # Spread over the set, which may be sorted by class.
        step = max(1, len(images) // count)
        chosen = [(start + i * step) % len(images) for i in range(count)]
        return torch.stack([preprocess(images[i], self.recipe) for i in chosen])


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "weights").glob("*.json"))


def load(folder: Path, name: str) -> Network:
    from safetensors.torch import load_file

    graph = json.loads((folder / "weights" / f"{name}.json").read_text())
    weights = load_file(folder / "weights" / f"{name}.safetensors")
    model = build(graph, {key: value.float() for key, value in weights.items()})
    first_class = 1 if graph.get("classes") == 1001 else 0
    return Network(name, model, tuple(graph["input"]), graph["preprocess"], first_class)


def build(graph: dict[str, Any], weights: Weights) -> fx.GraphModule:
    """The module of a graph, in eval mode and without gradients for its weights."""
    program = fx.Graph()
    modules: dict[str, nn.Module] = {}
    values = {"data": program.placeholder("data")}
    for node in graph["nodes"]:
        arguments = tuple(values[name] for name in node["in"])
        operation = node["op"]
        if operation == "add":
            value = program.call_function(torch.add, arguments)
        elif operation == "concat":
            value = program.call_function(torch.cat, (arguments, 1))
        elif operation == "gap":
            value = program.call_method("mean", (*arguments, (2, 3)))
        elif operation == "conv" and (padding := _uneven_padding(node)):
            # Its own module, so that the convolution stays an ordinary nn.Conv2d.
            name = module_name(node["name"])
            modules[f"{name}_pad"] = nn.ZeroPad2d(padding)
            modules[name] = MODULES["conv"]({**node, "p": [0, 0, 0, 0]}, weights)
            value = program.call_module(name, (program.call_module(f"{name}_pad", arguments),))
        elif operation in MODULES:
            name = module_name(node["name"])
            modules[name] = MODULES[operation](node, weights)
            value = program.call_module(name, arguments)
        else:
            raise ValueError(f"node {node['name']!r}: unknown op {operation!r}")
        values[node["name"]] = value
    program.output(values[graph["output"]])
    return fx.GraphModule(modules, program, "Network").eval().requires_grad_(False)


def module_name(node_name: str) -> str:
    """`inception_3a/5x5` is the module `inception_3a_5x5`; dots stay levels of the module tree."""
    return node_name.replace("/", "_")


def _uneven_padding(node: Node) -> tuple[int, int, int, int] | None:
    top, left, bottom, right = node["p"]
    return None if (top, left) == (bottom, right) else (left, right, top, bottom)


def _conv(node: Node, weights: Weights) -> nn.Module:
    weight, bias = weights[node["w"]], weights[node["b"]] if node.get("b") else None
    groups = node.get("g", 1)
    conv = nn.Conv2d(
        weight.shape[1] * groups, weight.shape[0], tuple(node["k"]), tuple(node["s"]),
        tuple(node["p"][:2]), groups=groups, bias=bias is not None,
    )  # fmt: skip
    conv.weight = nn.Parameter(weight)
    if bias is not None:
        conv.bias = nn.Parameter(bias)
    return conv


def _batch_norm(node: Node, weights: Weights) -> nn.Module:
    prefix = node["prefix"]
    norm = nn.BatchNorm2d(weights[f"{prefix}.weight"].numel(), eps=node.get("eps", 1e-5))
    kept = ("weight", "bias", "running_mean", "running_var")
    norm.load_state_dict({key: weights[f"{prefix}.{key}"] for key in kept}, strict=False)
    return norm


def _pool(node: Node, weights: Weights) -> nn.Module:
    if _uneven_padding(node):
        raise ValueError(f"node {node['name']!r}: pooling with uneven padding is not supported")
    window = tuple(node["k"]), tuple(node["s"]), tuple(node["p"][:2])
    ceil = node.get("ceil", False)  # torch drops a last window that begins in the padding, as Caffe
    if node["op"] == "maxpool":
        return nn.MaxPool2d(*window, ceil_mode=ceil)
    return nn.AvgPool2d(*window, ceil_mode=ceil, count_include_pad=node.get("include_pad", True))


def _linear(node: Node, weights: Weights) -> nn.Module:
    weight, bias = weights[node["w"]], weights[node["b"]] if node.get("b") else None
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.weight = nn.Parameter(weight)
    if bias is not None:
        linear.bias = nn.Parameter(bias)
    return linear


class PadShortcut(nn.Module):
    """ResNet option A: every second pixel, new channels are zero (He et al. 2015, section 3.3)."""

    def __init__(self, front: int, back: int) -> None:
        super().__init__()
        self.front, self.back = front, back

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.front, self.back))

    def extra_repr(self) -> str:
        return f"front={self.front}, back={self.back}"


MODULES: dict[str, Callable[[Node, Weights], nn.Module]] = {
    "conv": _conv,
    "bn": _batch_norm,
    "linear": _linear,
    "maxpool": _pool,
    "avgpool": _pool,
    "relu": lambda node, _: nn.ReLU(),
    "relu6": lambda node, _: nn.ReLU6(),
    "softmax": lambda node, _: nn.Softmax(1),
    "flatten": lambda node, _: nn.Flatten(),
    "lrn": lambda node, _: nn.LocalResponseNorm(
        node["size"], node["alpha"], node["beta"], node["k"]
    ),
    "shortcutA": lambda node, _: PadShortcut(*node["pad"]),
}


def conv_inputs(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The input of each nn.Conv2d in one forward pass on `x`, by module name."""
    inputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        return lambda module, arguments: inputs.__setitem__(name, arguments[0].detach().clone())

    convs = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    hooks = [conv.register_forward_pre_hook(keep(name)) for name, conv in convs.items()]
    try:
        with torch.inference_mode():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return inputs
