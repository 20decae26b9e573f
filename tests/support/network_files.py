"""Compiled networks in files, as they are and with another content."""

import json
import struct

from random_networks import randomise
from torch import nn

import jsc
from jsc.network.saving import KEY


def small() -> nn.Module:
    return randomise(nn.Sequential(nn.Conv2d(3, 9, 3, padding=1), nn.ReLU(), nn.Flatten(1)))


def saved(tmp_path, model, *xs, **options):
    net = jsc.compile(model, xs[0], budget=0.0, check=False, **options)
    for x in xs:
        net(x)
    net.save(tmp_path / "net.jsc")
    return net, tmp_path / "net.jsc"


def altered(path, change):
    """The file with another JSON."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    about = json.loads(header["__metadata__"][KEY])
    change(about)
    header["__metadata__"][KEY] = json.dumps(about)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
