"""A network for inputs of one size: native segments, torch's operators between them, and the memory
of its calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from jsc import _config
from jsc._kernels.network.program import Program, Walk
from jsc._precision import Precision
from jsc.network import batches, bf16_maps, memory, passes
from jsc.network.captured import Captured
from jsc.network.choices import workspace_of
from jsc.network.constants import FLOATS, Store
from jsc.network.emit import Emitter
from jsc.network.graph import Convolution, Copy, Graph, Operation, TensorRef, TorchCall, Value
from jsc.network.lowering.entries import Entry, Opaque, Parameter, ViewOf
from jsc.network.lowering.walk import lower
from jsc.network.methods import Methods

IEEE = Precision()
LANES = (4, 8, 16)  # of float32, by instruction set


def _without_autocast() -> AbstractContextManager[Any]:
    if torch.is_autocast_enabled("cpu"):
        return torch.autocast("cpu", enabled=False)
    return nullcontext()


class CallMemory:
    """The arena and the scratch of one call at a time."""

    def __init__(self, floats: int, scratch_bytes: int, threads: int):
        self.threads = threads
        self.arena = torch.empty(floats + 16, **FLOATS)
        self.scratch = torch.empty(scratch_bytes * threads + 64, dtype=torch.uint8, device="cpu")
        self.arena_at = _aligned(self.arena.data_ptr())
        self.scratch_at = _aligned(self.scratch.data_ptr())
        self.skip = (self.arena_at - self.arena.data_ptr()) // 4


class NetworkProgram:
    """A captured network's program; calls may run at the same time, each with its memory."""

    def __init__(
        self,
        captured: Captured,
        channels_last: tuple[bool, ...],
        store: Store,
        choices: Mapping[str, str],
        precision: Precision = IEEE,
        for_tuning: bool = False,
    ):
        self.graph: Graph = lower(captured, channels_last)
        passes.simplify(self.graph, precision.conv)
        self.out_spec = captured.out_spec
        self.planar = [not last for last in channels_last]
        self.store = store
        self.isa = _config.isa()
        self.outputs = [self._output(o, channels_last) for o in self.graph.outputs]
        self.images = batches.images_together(self.graph, for_tuning)
        self.starts = batches.divide(self.graph, self.images)
        for operation in self.graph.operations:
            if isinstance(operation, Convolution):
                operation.workspace = workspace_of(operation, precision.of(operation.linear))
        self.methods = Methods(choices, store, precision, LANES[self.isa])
        if not for_tuning:
            bf16_maps.mark(self.graph, precision, self.methods.of)
        self.segments = memory.schedule(self.graph)
        self.memory = memory.plan(self.graph, self.segments)
        self.program = Program(self.isa)
        self.emitter = Emitter(self.program, self.memory, store, self.methods)
        self.index: dict[Operation, int] = {}
        for operation in self.graph.operations:
            if not isinstance(operation, TorchCall):
                self.index[operation] = self.emitter.emit(operation)
        self.steps: list[Walk | TorchCall] = [
            segment.torch
            or Walk(self.program, [[self.index[o] for o in stage] for stage in segment.stages])
            for segment in self.segments
        ]
        walks = [s for s in self.steps if isinstance(s, Walk)]
        self.scratch_bytes = max((w.scratch_bytes for w in walks), default=0)
        self._free: list[CallMemory] = []
        self._standing = threading.local()  # where this thread's `walk_singly` stands
        refs = [o for o in self.outputs if isinstance(o, OutputRef)]
        self._allocations = [(o.ref.index, o.ref.shape, o.layout) for o in refs]
        # The one tensor that the network returns, where it returns just that.
        one = len(self.outputs) == 1 and isinstance(self.outputs[0], RESULTS)
        alone = one and self.out_spec == pytree.tree_structure(0)
        self._single = self.outputs[0].ref.index if alone else None
        work = sum(getattr(o, "macs", o.out.pixels * o.out.C) for o in self.graph.operations)
        self.work = int(work)

    def _output(self, entry: Any, channels_last: tuple[bool, ...]) -> Any:
        """How a result reaches the caller: as a tensor that the call's last operations write."""
        if not isinstance(entry, Entry):
            return entry
        value, shape = entry.value, entry.shape
        _, H, W, C = value.shape
        as_last = entry.last or any(channels_last)
        planes = entry.form in ("nchw", "flat") and not as_last
        planar = H * W > 1 and C > 1 and (planes or entry.form == "ncl")
        ref = TensorRef(self.graph.tensors, shape, planar)
        self.graph.tensors += 1
        out = Value(value.shape, tensor=ref)
        native = [o for o in self.graph.operations if not isinstance(o, TorchCall)]
        made = [o for o in native if o.out.held is value]
        readers = self.graph.readers().get(value, [])
        # Several outputs may share the map: then each is copied from it.
        outputs = [o for o in self.graph.outputs if isinstance(o, Entry)]
        shared = sum(o.value.root is value for o in outputs) > 1
        owns = value.whole is None and value.tensor is None and not shared
        direct = made and owns and not planar and not readers
        if direct and entry.form != "flat":
            made[0].out = out.recount(made[0].out.shape[:3])
        else:
            if entry.form == "flat":
                out.tensor.planar = True  # type: ignore[union-attr]
            self.graph.operations.append(Copy([value], out))
        # With one channel the layouts differ in what strides say alone; then as torch says it.
        last = entry.form == "nchw" and not planar and (C > 1 or as_last)
        return OutputRef(ref, torch.channels_last if last else torch.contiguous_format)

    def method(self, operation: Operation) -> str:
        """How an operation is done."""
        if isinstance(operation, TorchCall):
            return "torch"
        if isinstance(operation, Convolution):
            return self.methods.of(operation)
        return "native"

    def walk_singly(
        self, inputs: Sequence[Tensor], run: Callable[[Operation, Any], None], threads: int = 1
    ) -> None:
        """Goes through the operations in order, with the first part of the batch; `run(operation,
        function)` is to call each function at least once."""
        tensors = self._tensors(inputs)
        call = self._take(1)
        self._standing.at = (call, tensors, threads)
        for segment in self.segments:
            if segment.torch is not None:
                step = segment.torch
                run(step, lambda step=step: self._run_torch(step, call, tensors))
                continue
            for stage in segment.stages:
                for operation in stage:
                    run(operation, self._alone(self.program, self.index[operation]))
        del self._standing.at

    def _alone(self, program: Program, index: int) -> Callable[[], None]:
        """One instruction, on the memory that `walk_singly` has."""
        call, tensors, threads = self._standing.at
        walk, regions = Walk(program, [[index]]), self._regions(call, tensors)
        scratch = torch.empty(walk.scratch_bytes * threads + 64, dtype=torch.uint8, device="cpu")
        return lambda: walk.run(regions, _aligned(scratch.data_ptr()), threads)

    def alternative(self, conv: Convolution, choice: str) -> Callable[[], None]:
        """While `walk_singly` stands at a convolution: a function that does it another way."""
        program, store = Program(self.isa), Store(self.store.state)
        emitter = Emitter(program, self.memory, store, self.methods)
        alone = self._alone(program, emitter.convolution(conv, choice))

        def run(kept: Emitter = emitter) -> None:
            alone()

        return run

    def map_view(self, value: Value) -> Tensor:
        """While `walk_singly` stands somewhere: a map as an NCHW tensor on its memory."""
        call, tensors, _ = self._standing.at
        return self._view(ViewOf(value, "nchw"), call, tensors)

    def density(self, conv: Convolution) -> float:
        """While `walk_singly` stands at a convolution: how much of its input is not zero."""
        x = self.map_view(conv.inputs[0])
        return x.count_nonzero().item() / max(1, x.numel())

    def _tensors(self, inputs: Sequence[Tensor]) -> list[Tensor | None]:
        """The tensors of a call: inputs, then room for outputs and torch's results."""
        tensors: list[Tensor | None] = [None] * self.graph.tensors
        for i, planar in enumerate(self.planar):
            tensors[i] = inputs[i].contiguous() if planar else inputs[i]
        for index, shape, layout in self._allocations:
            tensors[index] = torch.empty(shape, memory_format=layout, **FLOATS)
        return tensors

    def _regions(self, call: CallMemory, tensors: list[Tensor | None], image: int = 0) -> list[int]:
        """Where the memory of a part of the batch begins, by its first image."""
        addresses = [0 if t is None else t.data_ptr() for t in tensors]
        if image:
            for i, t in enumerate(tensors):
                if t is not None and t.dim() > 0:
                    addresses[i] += image * t.stride(0) * t.element_size()
        return [call.arena_at, *addresses]

    def __call__(self, inputs: Sequence[Tensor]) -> Any:
        """The network's outputs; `inputs` have the layouts that the program was made for."""
        threads = _config.num_threads(self.work)
        tensors = self._tensors(inputs)
        call = self._take(threads)
        try:
            for image in self.starts:
                for step in self.steps:
                    if isinstance(step, TorchCall):
                        self._run_torch(step, call, tensors)
                    else:
                        step.run(self._regions(call, tensors, image), call.scratch_at, threads)
        finally:
            self._free.append(call)
        if self._single is not None:
            return tensors[self._single]
        results = [tensors[o.ref.index] if isinstance(o, RESULTS) else o for o in self.outputs]
        return pytree.tree_unflatten(results, self.out_spec)

    def _take(self, threads: int) -> CallMemory:
        try:
            call = self._free.pop()  # at once, whoever else pops
            if call.threads >= threads:
                return call
        except IndexError:
            pass
        return CallMemory(self.memory.size, self.scratch_bytes, threads)

    def _run_torch(self, step: TorchCall, call: CallMemory, tensors: list[Tensor | None]) -> None:
        def argument(a: Any) -> Any:
            if isinstance(a, ViewOf):
                return self._view(a, call, tensors)
            if isinstance(a, TensorRef):
                return tensors[a.index]
            if isinstance(a, Parameter):
                return self.store.tensor(a.constant)
            if isinstance(a, (list, tuple)):
                return type(a)(argument(v) for v in a)
            return a

        args = [argument(a) for a in step.arguments]
        options = {k: argument(v) for k, v in step.options.items()}
        # The dtypes are those of the capture, also under the caller's autocast.
        with _without_autocast():
            made = step.target(*args, **options)
        several = made if isinstance(made, (list, tuple)) else [made]
        for ref, tensor in zip(step.results, several, strict=True):
            if ref is not None:
                last = not ref.planar and tensor.dim() == 4
                layout = torch.channels_last if last else torch.contiguous_format
                made = tensor if ref.kept else tensor.contiguous(memory_format=layout)
                # A view of the arena would change when its place is taken by another map.
                shared = (
                    made.untyped_storage().data_ptr() == call.arena.untyped_storage().data_ptr()
                )
                tensors[ref.index] = made.clone() if shared else made

    def _view(self, view: ViewOf, call: CallMemory, tensors: list[Tensor | None]) -> Tensor:
        """A map as torch sees it, on the memory of the call."""
        place = self.emitter.place(view.value)
        if place["region"] == 0:
            base, offset = call.arena, place["offset"] + call.skip
            if place["bf16"]:
                base, offset = base.view(torch.bfloat16), offset + call.skip
        else:
            base = tensors[place["region"] - 1]  # type: ignore[assignment]
            offset = int(base.storage_offset()) + place["offset"]  # the region begins at the tensor
        N, H, W, C = (place[k] for k in "NHWC")
        steps = [place[k] for k in ("image", "channel", "row", "pixel")]
        if C == 1:  # as torch itself says it: some of its operators read the step of one channel
            steps[1] = H * steps[2]
        nchw = base.as_strided((N, C, H, W), steps, offset)
        if view.groups:
            split = nchw.reshape(N, view.groups, C // view.groups, H, W)
            return split.transpose(1, 2) if view.exchanged else split
        if view.form == "nchw":
            return nchw
        if view.form == "nhwc":
            return nchw.permute(0, 2, 3, 1)
        if view.form == "nlc":
            return nchw.permute(0, 2, 3, 1)[:, 0]
        return nchw[:, :, 0] if view.form == "ncl" else nchw.reshape(N, -1)


class OutputRef:
    """A result of the network that native operations write."""

    def __init__(self, ref: TensorRef, layout: torch.memory_format):
        self.ref = ref
        self.layout = layout


RESULTS = (OutputRef, Opaque)


def _aligned(address: int) -> int:
    return -(-address // 64) * 64
