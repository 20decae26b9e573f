"""The instructions of convolutions, one function for each method: fields and packed weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from jsc._kernels.cpc.forward import tile_columns
from jsc._precision import PIECES
from jsc.network import packing
from jsc.network.blocking import (
    band_rows_of,
    blocking,
    sparse_band_rows,
    tiles_of_a_task,
    vectors_of,
)
from jsc.network.choices import TILES, geometry_of, groups_together
from jsc.network.constants import FLOATS, Constant
from jsc.network.graph import Convolution
from jsc.network.methods import scaled_weight
from jsc.ops import amx, cpc

if TYPE_CHECKING:
    from jsc.network.emit import Emitter


def emit(e: Emitter, conv: Convolution, method: str) -> int:
    """The index of the instruction."""
    if method in TILES:
        return winograd(e, conv, TILES[method])
    return METHOD[method](e, conv)


def winograd(e: Emitter, conv: Convolution, tile: tuple[int, int]) -> int:
    vectors = vectors_of(conv.out.C, e.lanes)
    packed = e.tensor(scaled_weight(conv).then(
        ("winograd", tile, e.lanes, vectors),
        lambda w: packing.winograd(w, tile, e.lanes, vectors),
    ))  # fmt: skip
    fields = {
        **e.maps(conv), "Ph": conv.padding[0], "Pw": conv.padding[1],
        "mv": tile[0], "mh": tile[1], "vectors": vectors,
        "tiles": tiles_of_a_task(conv, tile, e.lanes),
        "weight": packed.data_ptr(),
        "plain": packed.data_ptr() + packing.winograd_plain(packed, tile),
        "epilogue": e.epilogue(conv),
    }  # fmt: skip
    return int(e.program.add_winograd(fields))


def direct(e: Emitter, conv: Convolution) -> int:
    return int(e.program.add_convolution(direct_fields(e, conv)))


def direct_bf16(e: Emitter, conv: Convolution) -> int:
    return int(e.program.add_direct_bf16({"direct": pairs_fields(e, conv)}))


def pairs_fields(e: Emitter, conv: Convolution) -> dict[str, Any]:
    cut = blocking(conv, e.lanes, numbers=-(-conv.inputs[0].C // 2))
    weight = scaled_weight(conv)
    e.store.keep_bounded(weight)
    packed = weight.then(
        ("direct_bf16", e.lanes, cut.vectors, cut.chunk),
        lambda w: packing.direct(packing.pairs(w), 1, e.lanes, cut.vectors, cut.chunk),
    )
    return {**e.geometry(conv), **cut.fields(), "weight": e.raw(packed)}


def direct_fields(e: Emitter, conv: Convolution) -> dict[str, Any]:
    cut = blocking(conv, e.lanes)
    key = ("direct", conv.groups, e.lanes, cut.vectors, cut.chunk)
    packed = scaled_weight(conv).then(
        key, lambda w: packing.direct(w, conv.groups, e.lanes, cut.vectors, cut.chunk)
    )
    return {**e.geometry(conv), **cut.fields(), "weight": e.address(packed)}


def tiles(e: Emitter, conv: Convolution) -> int:
    g, weight = geometry_of(conv), scaled_weight(conv)
    halves = conv.inputs[0].root.bf16, conv.out.root.bf16
    # What takes numbers that have no such sum.
    direct = pairs_fields(e, conv) if any(halves) else direct_fields(e, conv)
    e.store.keep_bounded(weight)
    pieces = PIECES[e.precision.of(conv.linear)]
    packed = weight.then(("amx", g.Dw, pieces), lambda w: amx.pack(w.float(), g, pieces))
    missing = -g.K % amx.BLOCK
    shift = conv.shift or Constant(("zeros", g.K), lambda _: torch.zeros(g.K, **FLOATS))
    bias = shift.then(("padded", missing), lambda b: F.pad(b.float(), (0, missing)))
    assert conv.workspace is not None
    fields = {
        **g.sizes(), **amx.cut(g, pieces), "packed": pieces,
        "x_pitch": direct["x"]["pixel"], "out_pitch": direct["out"]["pixel"],
        "residual_pitch": direct["epilogue"]["residual"]["pixel"],
        "x_bytes": 2 if halves[0] else 4, "out_bytes": 2 if halves[1] else 4,
        "weight": e.raw(packed), "bias": e.address(bias),
        "relu": int(conv.act.kind == "clamp"),
    }  # fmt: skip
    common = e.memory.offsets[conv.workspace]
    return int(e.program.add_tiles({"amx": fields, "common": common, "direct": direct}))


def depthwise(e: Emitter, conv: Convolution) -> int:
    packed = scaled_weight(conv).then(
        ("depthwise", e.lanes), lambda w: packing.depthwise(w, e.lanes)
    )
    fields = e.geometry(conv)
    del fields["groups"]
    return int(e.program.add_depthwise({**fields, "weight": e.address(packed)}))


def grouped(e: Emitter, conv: Convolution) -> int:
    filters = conv.out.C // conv.groups
    together = groups_together(conv, e.lanes)
    groups = 1 if together else conv.groups  # a vector takes the filters of several as they come
    width = e.lanes if together or filters >= e.lanes else e.lanes // 2
    two = conv.kernel[1] == 3 and width == e.lanes and filters >= 2 * width
    most = 2 if two else 1
    packed = scaled_weight(conv).then(
        ("grouped", groups, width, most), lambda w: packing.grouped(w, groups, width, most)
    )
    fields = {
        **e.maps(conv), "Kh": conv.kernel[0], "T": conv.kernel[1], "S": conv.stride[0],
        "Ph": conv.padding[0], "Pw": conv.padding[1], "Dh": conv.dilation[0],
        "groups": conv.groups, "width": width, "band_rows": band_rows_of(conv),
        "weight": e.address(packed), "epilogue": e.epilogue(conv),
    }  # fmt: skip
    return int(e.program.add_grouped(fields))


def sparse(e: Emitter, conv: Convolution) -> int:
    Kw, Sw, Dw = conv.kernel[1], conv.stride[1], conv.dilation[1]
    vectors = cpc.vectors_of(conv.out.C, Kw, Sw, Dw, e.lanes)
    block = vectors * e.lanes
    weight = scaled_weight(conv)
    e.store.keep_bounded(weight)
    packed = weight.then(("cpc", block), lambda w: cpc.pack_blocks(w.float(), block))
    columns = tile_columns(Kw, Sw, Dw, conv.out.shape[2])
    assert conv.workspace is not None
    fields = {
        **e.geometry(conv), "masks": e.memory.offsets[conv.workspace],
        "vectors": vectors, "block": block, "columns": columns,
        "band_rows": sparse_band_rows(conv, block, columns), "weight": e.address(packed),
    }  # fmt: skip
    del fields["groups"]
    return int(e.program.add_sparse(fields))


METHOD: dict[str, Callable[[Emitter, Convolution], int]] = {
    "direct": direct,
    "direct_bf16": direct_bf16,
    "depthwise": depthwise,
    "grouped": grouped,
    "cpc": sparse,
    "amx": tiles,
}
