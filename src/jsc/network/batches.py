"""How many images of a batch go through a network together.

A batch whose maps leave the last cache waits for memory at every layer. A part of it whose maps
stay there is faster, but reads all weights again. The bytes to and from memory decide:

    parts x weights + the maps of each operation whose part of the batch does not fit in the cache

Images of a batch do not touch each other in our operations, so that the bits stay the same. A
network with torch's operators, which might do anything, is not divided.

MobileNetV2, 8 images, one thread of an AMD EPYC (AVX-512, 2 MB of second and 32 MB of third cache),
in turn with all of them together, which CACHE_BYTES = 1 << 60 gives: 53.7 against 64.6 ms.
"""

from __future__ import annotations

from collections.abc import Iterator

from jsc.network.graph import Convolution, Graph, Linear, Operation, TorchCall, Value, numel

CACHE_BYTES = 16 << 20  # that what an operation reads and writes may take: half of a third cache
TUNING_MACS = 1 << 35  # half a second: layers of so much work are many tasks for all methods
HEAVY = (Convolution, Linear)


def images_together(graph: Graph, for_tuning: bool = False) -> int:
    """Images to a part; all of them where nothing is gained by less, or where it is not sure that
    everything is a map of so many images that an operation of ours writes. For tuning no more than
    TUNING_MACS, as long as that is an image."""
    batches = {value.shape[0] for value in _values(graph)}
    batch = max(batches, default=1)
    if len(batches) > 1 or any(isinstance(o, TorchCall) for o in graph.operations):
        return batch
    choices = [batch]
    while choices[-1] > 1:
        choices.append(-(-choices[-1] // 2))
    images = min(choices, key=lambda images: _traffic(graph, batch, images))
    if not for_tuning:
        return images
    macs = sum(o.macs for o in graph.operations if isinstance(o, HEAVY))
    return min(images, max(1, TUNING_MACS * batch // max(1, macs)))


def divide(graph: Graph, images: int) -> list[int]:
    """Gives maps so many images, and the first image of each part. All parts have the same size:
    where the batch is no multiple of it, the last one begins earlier and does some images again,
    with the same bits."""
    batch = max((value.shape[0] for value in _values(graph)), default=0)
    if images == batch:
        return [0]
    for value in set(_values(graph)):
        value.shape = (images, *value.shape[1:])
    return [min(first, batch - images) for first in range(0, batch, images)]


def _values(graph: Graph) -> Iterator[Value]:
    """Every map and those that they are parts of, some of them several times."""
    for operation in graph.operations:
        for value in (*operation.inputs, operation.out):
            yield value
            while value.whole is not None:
                value = value.whole
                yield value


def _traffic(graph: Graph, batch: int, images: int) -> int:
    """Bytes to and from memory for the whole batch, `images` at a time."""
    parts = -(-batch // images)
    weights = sum(_weights(o) for o in graph.operations)
    maps = [sum(numel(v.shape) for v in (*o.inputs, o.out)) * 4 for o in graph.operations]
    return parts * weights + sum(n for n in maps if n // batch * images > CACHE_BYTES)


def _weights(operation: Operation) -> int:
    if isinstance(operation, HEAVY):
        return 4 * operation.macs // max(1, operation.out.pixels)
    return 0
