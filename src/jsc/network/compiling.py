"""`jsc.compile`: a network frozen and compiled for the CPU, as one graph or in parts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from jsc import _precision
from jsc.network import report
from jsc.network.accuracy import measure
from jsc.network.arguments import arguments_of, checked_budget
from jsc.network.choices import checked_plan, warn_of_unknown
from jsc.network.compiled import CompiledNetwork, compiling, one_graph
from jsc.network.effects import with_attributes_of_its_own
from jsc.network.errors import NotOneGraph
from jsc.network.parts import in_parts, warn_of_parts
from jsc.typing import PrecisionName

log = logging.getLogger("jsc")


def compile(
    model: nn.Module,
    sample: Any,
    *,
    precision: PrecisionName | None = None,
    budget: float = 20.0,
    plan: Mapping[str, str] | None = None,
    check: bool = True,
    progress: bool = True,
) -> CompiledNetwork:
    """The network as one native program for inference.

    Convolution of one and two dimensions (which applies batch-norm, residual and activation while
    it writes its result), linear layers, pooling, normalisations and arithmetic run in kernels of
    our own over channels-last memory that is planned beforehand; concatenation, padding with zeros
    and views cost nothing; any other operator runs in torch in between. The result is *frozen*: it
    has the weights, the structure and the mode (eval) of the moment of compiling. `refresh` gives
    it new weights. Several threads may compile: one waits for the other.

    A model that is no single graph to torch.export, because its Python depends on numbers in a
    tensor, is compiled in the parts that torch's Dynamo finds, with Python between them; a warning
    says so, with the line. Such a network has neither plan nor profile, and is not saved.

    Parameters
    ----------
    model : nn.Module of float32 parameters on the CPU
        It is copied, not changed.
    sample : Tensor, tuple (positional arguments) or dict (keyword arguments)
        A real input: methods are timed on it, one of which passes over zeros. Other batch and image
        sizes work too: the second image size costs another export, the third one with its sizes
        free, up to six times as long; later ones are only planned.
    precision : "ieee", "tf32" or "bf16", optional
        How exact the operands of convolutions and linear layers have to be: 24, 11 or 8
        significant bits; sums are float32. None takes what torch's own switches say now
        (`torch.backends.mkldnn.conv.fp32_precision`, `.matmul` for linear layers), which is "ieee"
        where nobody has set them. A lower one is a permission, used where this CPU is faster with
        it (AMX tiles for both, AVX-512's BF16 for "bf16"). At "bf16" maps between layers
        are stored as bfloat16 where all that writes and reads them can.
    budget : float
        Seconds that timing the methods of all convolutions may take, each in its place, with
        torch's number of threads. Convolutions that are not reached by then take the default
        method: depthwise or grouped where these fit, else direct. 0 times nothing.
    plan : mapping, optional
        Methods of convolutions by the names of their weights, as another network's `plan` has them:
        nothing is timed; others take the default method. Convolutions that became one (those of
        one map) have the name of the first.
    check : bool
        Compare the outputs for the sample with those of the model in float64, and warn where they
        are further off than twice torch's own float32 with operands of that precision.
    progress : bool
        Show a bar while methods are timed.

    Returns
    -------
    CompiledNetwork, called as the model is; its outputs are like the model's, without gradients.

    Raises
    ------
    CompileError  if no part of the model can be captured, or if that would lose something in
                  silence: hooks, attributes or buffers that its forward writes at each call (a
                  copy of the model runs twice to see it; a cache that the first run fills is
                  accepted).
    TypeError, ValueError  for a model, sample, budget, plan or precision of the wrong kind.

    Warns
    -----
    RuntimeWarning  where `check` finds the outputs further off, and by more than 1e-6 of the
                    largest; where most operations run in torch; where no convolution has a name
                    of the plan; where the model is compiled in parts.
    """
    budget = checked_budget(budget)
    choices = None if plan is None else checked_plan(plan)
    exactness = _precision.resolved(precision)
    try:
        net = one_graph(model, sample, exactness, budget, choices, progress)
    except NotOneGraph as reason:
        net = in_parts(model, sample, exactness, budget, progress, str(reason))
        warn_of_parts(net)
    else:
        if choices:
            weights = [name for name, p in model.state_dict().items() if p.dim() > 1]
            warn_of_unknown(choices, {c.name for c in net._convolutions()}, weights)
        if check:
            report.warn_of_little_gain(net._name, next(iter(net._programs.values())))
    if check:
        args, kwargs = arguments_of(sample)
        with compiling, torch.no_grad(), torch.autocast("cpu", enabled=False):
            (frozen,) = net._frozen
            assert frozen is not None
            plain = with_attributes_of_its_own(frozen)
            net.accuracy = measure(plain, net(*args, **kwargs), args, kwargs, exactness)
    log.info("jsc.compile: %s", net)
    return net
