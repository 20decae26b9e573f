"""Whole networks compiled for the CPU: `jsc.compile`.

    compiling    compile: as one graph, or in parts where torch.export refuses it
    compiled     CompiledNetwork: programs by input size, summary, profile, refresh
    parts        a network of several graphs, with Python between them
    backend      torch.compile(model, backend="jsc")
    capture      from a module to functional ATen operators, and what is refused
    calls        the arguments of a call
    captured, guards          those operators, their sizes for other inputs, and for which
    saving, loading           networks in files
    lowering/    from ATen operators to operations over channels-last maps
    graph        what operations and maps are
    passes       padding, epilogues, concatenation: what becomes part of what, and what is gone
    siblings     convolutions that read one map in the same way become one
    choices, methods, tune    which method a convolution takes
    bf16_maps    which maps are stored as bfloat16
    memory       stages, and where maps lie
    blocking, packing, emit   how operations become instructions
    program      one input size: native parts, torch's operators between, memory of calls
    constants    weights by recipe, so that `refresh` can make them again
    report, accuracy          what a network does, in words and numbers

The kernels are in `jsc._kernels.network`.
"""

from jsc.network.compiled import CompiledNetwork as CompiledNetwork
from jsc.network.compiling import compile as compile
from jsc.network.errors import CompileError as CompileError
from jsc.network.loading import load as load
