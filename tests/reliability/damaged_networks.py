"""Compiled networks in files (`jsc.load`), damaged; a file is a network that can be called and
saved again, or a ValueError."""

from __future__ import annotations

import functools
import json
import random
import struct
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import jsc
from jsc.network.saving import KEY
from tests.reliability.damage import JSON_VALUES, flipped, in_words, overwritten, spliced
from tests.reliability.damaged_pictures import pictures

OPERATORS = (
    "aten.relu.default", "aten.mul.Tensor", "aten.cumsum.default", "aten.view.default",
    "aten.as_strided.default", "aten.expand.default", "aten.slice.Tensor", "aten.cat.default",
    "aten.index.Tensor", "aten.embedding.default", "aten.convolution.default",
    "aten.permute.default", "aten.max_pool2d_with_indices.default", "aten.full.default",
    "aten.avg_pool2d.default",
    "aten.constant_pad_nd.default", "aten.addmm.default", "aten.native_layer_norm.default",
    "aten.upsample_nearest2d.vec", "aten._unsafe_view.default", "aten.resize_.default",
    "aten.from_file.default", "aten.no_such_operator", "getitem", "floordiv", "mod", "sym_size",
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 3, 7, 64, 2**15, 2**31, 2**40, 2**62, 2**63, -(2**63), 0.5, 1e300)


class Small(nn.Module):
    """Convolutions of several kinds, a concatenation, pooling, an operator of torch's, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.c = nn.Conv2d(16, 8, 1, stride=2)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        y = torch.relu(self.norm(self.b(x))) + x
        y = self.c(torch.cat([x, nn.functional.max_pool2d(y, 3, 1, 1)], 1))
        return self.head(torch.cumsum(nn.functional.pad(y, (1, 0, 0, 1)), 3).mean((2, 3)))


def sample() -> Tensor:
    return torch.rand(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))


@functools.cache
def network_file() -> bytes:
    model = Small().eval()
    net = jsc.compile(model, sample(), budget=0, check=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.jsc"
        net.save(path)
        return path.read_bytes()


def parts() -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """The header of safetensors, our JSON in it, and the numbers behind it."""
    data = network_file()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    return header, json.loads(header["__metadata__"][KEY]), data[8 + length :]


def containers(value: Any) -> list[Any]:
    """Every dict and list in a document that has an entry."""
    found = [value] if isinstance(value, (dict, list)) and value else []
    if found:
        for inner in value.values() if isinstance(value, dict) else value:
            found += containers(inner)
    return found


def changed(r: random.Random, document: Any) -> None:
    """One entry somewhere becomes another, or goes, or comes twice."""
    inner = r.choice(containers(document))
    key = r.choice(sorted(inner)) if isinstance(inner, dict) else r.randrange(len(inner))
    kind, old = r.randrange(8), inner[key]
    if isinstance(old, str) and "." in old and r.random() < 0.7:
        inner[key] = r.choice(OPERATORS)
    elif kind == 0:
        del inner[key]
    elif kind == 1 and isinstance(inner, list):
        inner.insert(key, r.choice(inner))
    elif kind == 2 and isinstance(inner, list):
        r.shuffle(inner)
    elif kind == 3 and isinstance(inner, list):
        inner[key] = r.choice(containers(document))  # a part of another place, or the whole
    elif isinstance(old, (int, float)) and not isinstance(old, bool) and kind < 7:
        inner[key] = r.choice([*NUMBERS, old + 1, old - 1])
    else:
        inner[key] = r.choice(
            [None, True, "", "x", [], {}, [1], {"node": 3}, {"torch": "torch.int"}]
        )


def mutated_network(r: random.Random) -> bytes:
    data, kind = network_file(), r.randrange(12)
    if kind == 0:
        return data[: r.randrange(len(data) + 1)]
    if kind == 1:
        return overwritten(r, flipped(r, data))
    if kind == 2:
        return spliced(r, data, r.choice([data, r.choice(pictures())]))
    header, about, numbers = parts()
    mark = "a mark that is in no file"
    if kind == 3:  # what safetensors says of the tensors
        changed(r, header)
    for _ in range(r.choice([1, 1, 1, 2]) if kind > 3 else 0):
        try:
            changed(r, about if r.random() < 0.3 else about["graphs"][0]["nodes"])
        except (IndexError, KeyError, TypeError):  # nothing of it is left to change
            break
    if kind == 7 and about:
        about[r.choice(sorted(about))] = mark
    try:
        text = json.dumps(about).replace(f'"{mark}"', r.choice(JSON_VALUES))
    except (ValueError, RecursionError):  # a part holds itself
        text = "{}"
    if kind == 4 and r.random() < 0.5:  # one number of the text, as a bit may change it
        text = overwritten(r, text.encode()).decode(errors="replace")
    if isinstance(header.get("__metadata__"), dict):
        header["__metadata__"][KEY] = text
    head = json.dumps(header).encode("utf-8", "replace")
    return struct.pack("<Q", len(head)) + head + numbers


def check_network(data: bytes) -> bool:
    """Load it, and call it as the network was called; whether either was refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.jsc"
        path.write_bytes(data)
        try:
            net = jsc.load(path)
        except ValueError as error:
            return in_words(error)
        repr(net), net.plan
        try:
            with torch.no_grad():
                outputs = [net(x) for x in (sample(), sample().repeat(2, 1, 1, 1))]
            net.save(path)
        except (TypeError, ValueError, RuntimeError) as error:
            return in_words(error, type(error))
        for leaf in torch.utils._pytree.tree_leaves(outputs):
            if isinstance(leaf, Tensor):
                leaf.double().sum().item()  # memory that is not there shows here
    return False
