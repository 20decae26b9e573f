"""`jsc.load`: a compiled network from a file."""

from __future__ import annotations

import logging
from os import PathLike

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from jsc import _config, _precision
from jsc._precision import Precision
from jsc.network import saving
from jsc.network.accuracy import Accuracy
from jsc.network.arguments import kind_of
from jsc.network.choices import checked_plan
from jsc.network.compiled import CompiledNetwork
from jsc.network.constants import Store

log = logging.getLogger("jsc")


def load(path: str | PathLike[str]) -> CompiledNetwork:
    """The network that `CompiledNetwork.save` wrote, here or on another machine.

    It takes the image sizes that the saved network had been called with. A batch of two or more
    stands for every other batch but one image, which the saved network must have been called with
    too. Convolutions keep their methods, but for "amx" and "direct_bf16", in whose place the direct
    kernel runs where the processor has no tiles or no products of bfloat16; if they were timed with
    another instruction set, the logger "jsc" says so, and `retune` chooses them again. Kernels are
    those of this processor. Nothing in the file is run as code. Raises ValueError (`FileError`) for
    any other or a damaged file, OSError if it cannot be read.
    """
    about, graphs = saving.read(path)
    try:
        structure = pytree.treespec_loads(about["structure"])
        precision = Precision(*(_precision.checked(word) for word in about["precision"]))
        net = CompiledNetwork(about["name"], structure, about["kinds"], None, precision)
        net._choices = checked_plan(about["plan"])
        net._persistent = frozenset(about["persistent"])
        classes = about.get("classes")  # which files of earlier releases do not have
        net._classes = None if classes is None else {k: str(v) for k, v in classes.items()}
        net.accuracy = None if about["accuracy"] is None else Accuracy(*about["accuracy"])
        net._captured, net._isa = graphs, str(about.get("isa", net._isa))
        net._store = Store({name: t for graph in graphs for name, t in graph.state.items()})
        leaves = [_empty(*size) for size in about["inputs"]]
        if [kind_of(leaf) for leaf in leaves] == net._arguments.kinds:
            with torch.no_grad():
                net._program(leaves)
    except Exception as error:  # whatever follows from what a damaged file says
        raise saving.FileError(
            f"{path} is damaged ({type(error).__name__}: {error}); save the network again"
        ) from error
    if net._isa != _config.isa_name():
        log.warning(
            "jsc.load: the methods of %s were chosen with %s, and this processor has %s: results "
            "are right, times may differ; net.retune(sample) times them again here",
            path, net._isa, _config.isa_name(),
        )  # fmt: skip
    return net


def _empty(shape: list[int], dtype: str, channels_last: bool) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=saving.DTYPES[dtype], memory_format=layout, device="cpu")
