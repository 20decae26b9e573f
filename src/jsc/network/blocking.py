"""How convolutions are cut: by rules, from sizes that fit the caches of today's machines."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from jsc.network.graph import Convolution, Value

CHUNK_BYTES = 48 << 10  # of the weights that the tiles of a band go past: first or second cache
BAND_BYTES = 192 << 10  # of the input of a task: second cache
BLOCK_BYTES = 128 << 10  # of a block's weights that each tile goes past: second cache
TILES_FIRST_BYTES = 160 << 10  # of all weights, where a tile goes through all of them
TILE_BYTES = 128 << 10  # of a task's sums in `cpc`: a share of the second cache
SCRATCH_BYTES = 256 << 10  # of a task's transformed tiles in `winograd`: second cache
MOST_TILES = 96  # of such a task
TASKS = 8  # at least, if there is work for so many: two to four for each thread of a small machine
TASK_MACS = 1 << 20
FEW_PIXELS = 48  # of a band: with fewer, weights go past for too little work
LONGEST_CHUNK = 256  # channels: zero_line of convolution.h
NORM_FLOATS = 32768  # of a task of a group norm
NORM_TASKS = 32  # of an image at most: one thread adds up what they found
LONGEST_CHAIN = 288  # products that are added up in one chain, for the sake of accuracy


@dataclass(frozen=True)
class Blocking:
    vectors: int
    chunk: int
    band_rows: int
    task_blocks: int
    tiles_first: int

    def fields(self) -> dict[str, int]:
        return asdict(self)


def vectors_of(filters: int, lanes: int) -> int:
    """Vectors of filters to a block: as many as registers allow, few of them empty."""
    needed = -(-filters // lanes)
    if lanes < 16:
        return needed if needed <= 3 else 3 if needed % 2 and needed % 3 == 0 else 2
    if needed <= 4:
        return needed
    return 3 if needed % 4 and needed % 3 == 0 else 4


def band_rows_of(conv: Convolution) -> int:
    """Output rows to a task of a convolution whose tasks do all filters: some tens of
    microseconds, and TASKS tasks where there are so many."""
    _, Oh, _, _ = conv.out.shape
    most = max(1, TASK_MACS * Oh * conv.out.shape[0] // max(1, conv.macs))
    return -(-Oh // -(-Oh // min(most, max(1, Oh // TASKS))))


def sparse_band_rows(conv: Convolution, block: int, columns: int) -> int:
    """Output rows to a task of `cpc`, whose rows of sums are `columns` by `block`: as many as the
    tile holds, in equal bands, and TASKS tasks where there is work for so many."""
    N, Oh, _, K = conv.out.shape
    rows = max(1, min(Oh, TILE_BYTES // (4 * columns * block)))
    tasks = min(TASKS, max(1, conv.macs // TASK_MACS))
    bands = max(-(-Oh // rows), min(Oh, -(-tasks // (N * -(-K // block)))))
    return -(-Oh // bands)


def blocking(conv: Convolution, lanes: int, numbers: int | None = None) -> Blocking:
    """How a convolution is cut that reads so many numbers of 32 bits for each pixel; by itself its
    channels."""
    (N, Oh, Ow, K), C = conv.out.shape, conv.inputs[0].C // conv.groups
    C = C if numbers is None else numbers
    W, (Kh, Kw), Sh = conv.inputs[0].shape[2], conv.kernel, conv.stride[0]
    Kg, taps = K // conv.groups, Kh * Kw
    vectors = vectors_of(Kg, lanes)
    block_bytes = 4 * taps * vectors * lanes
    longest = max(8, min(CHUNK_BYTES // block_bytes, LONGEST_CHUNK, LONGEST_CHAIN // taps))
    chunk = -(-C // -(-C // longest))  # equal ones
    tiles_first = 1 if block_bytes * C <= BLOCK_BYTES else 0
    if conv.groups == 1 and 4 * taps * C * K <= TILES_FIRST_BYTES:
        tiles_first = 2
    row_bytes = 4 * C * conv.groups * min(Sh, Kh) * min(W, Ow * Kw)
    band_rows = max(BAND_BYTES // row_bytes - Kh + 1, math.ceil(FEW_PIXELS / Ow))
    band_rows = min(band_rows, max(math.ceil(Oh * N / TASKS), math.ceil(96 / Ow)), Oh)
    band_rows = -(-Oh // -(-Oh // band_rows))
    blocks = conv.groups * -(-Kg // (vectors * lanes))
    bands = N * -(-Oh // band_rows)
    task_blocks = blocks if bands >= TASKS else max(1, blocks * bands // TASKS)
    return Blocking(vectors, chunk, band_rows, task_blocks, tiles_first)


def tiles_of_a_task(conv: Convolution, tile: tuple[int, int], lanes: int) -> int:
    """Tiles that are transformed together: as many as the scratch holds, in equal tasks."""
    N, H, W, _ = conv.out.shape
    total = N * -(-H // tile[0]) * -(-W // tile[1])
    positions = (tile[0] + 2) * (tile[1] + 2)
    step = 12 if vectors_of(conv.out.C, lanes) == 1 else 6
    most = max(step, min(MOST_TILES, SCRATCH_BYTES // (4 * positions * conv.inputs[0].C)))
    tasks = max(-(-total // most), 2 if total >= 4 * step else 1)
    return math.ceil(total / tasks / step) * step


def pixels_of_a_task(value: Value) -> int:
    """Pixels to a task of a group norm."""
    _, H, W, C = value.shape
    return max(1, NORM_FLOATS // C, -(-H * W // NORM_TASKS))


def norm_floats(value: Value, groups: int) -> int:
    """What the threads of a group norm share: sums of each task and group in float64, then mean,
    scale and shift for each channel of each image."""
    N, H, W, C = value.shape
    tasks = -(-H * W // pixels_of_a_task(value))
    return N * (tasks * groups * 4 + 3 * C)
