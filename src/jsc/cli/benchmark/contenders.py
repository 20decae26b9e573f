"""What is timed: the model in torch in both layouts, compiled by jsc, and other runtimes."""

from __future__ import annotations

import copy
import importlib.util
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jsc.network import CompiledNetwork
from jsc.network import compile as compile_network

Run = Callable[[], Any]


def contenders(
    model: nn.Module, x: Tensor, key: str | None, budget: float, torch_compile: bool
) -> tuple[dict[str, Run | str], CompiledNetwork]:
    """Functions that run the model once, or why there is none; and jsc's network."""
    last = x.contiguous(memory_format=torch.channels_last)
    model_last = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net = compile_network(model, _arguments(x, key), budget=budget)
    made: dict[str, Run | str] = {
        "jsc": _runs(net, x, key),
        "torch": _runs(model, x, key),
        "torch channels-last": _runs(model_last, last, key),
    }
    if torch_compile:
        made["torch.compile"] = _runs(torch.compile(copy.deepcopy(model)), x, key)
    if all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime")):
        made["ONNX Runtime"] = _onnxruntime(model, x, key)
    return made, net


def exact(model: nn.Module, x: Tensor, key: str | None) -> Any:
    """The outputs in float64, or float32's where the model does not run in float64."""
    try:
        return _runs(copy.deepcopy(model).double(), x.double(), key)()
    except (RuntimeError, TypeError):
        return _runs(model, x, key)()


def _arguments(x: Tensor, key: str | None) -> Any:
    return (x,) if key is None else {key: x}


def _runs(model: Any, x: Tensor, key: str | None) -> Run:
    return (lambda: model(x)) if key is None else (lambda: model(**{key: x}))


def _onnxruntime(model: nn.Module, x: Tensor, key: str | None) -> Run | str:
    import onnxruntime

    class Flat(nn.Module):  # a mapping as output is more than the exporter takes
        def __init__(self) -> None:
            super().__init__()
            self.model = copy.deepcopy(model)  # the exporter sets its mode

        def forward(self, image: Tensor) -> Any:
            y = _runs(self.model, image, key)()
            return tuple(y.values()) if isinstance(y, dict) else y

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder) / "model.onnx"
        try:
            torch.onnx.export(
                Flat().eval(),
                (x,),
                str(file),
                dynamo=False,
                opset_version=17,
                input_names=["image"],
            )
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # exporters raise errors of many types
            first = next(iter(str(error).splitlines()), "")[:80]
            return f"cannot take it: {type(error).__name__}: {first}"
    array = x.numpy()
    return lambda: [torch.from_numpy(y) for y in session.run(None, {"image": array})]
