"""The ways to do a convolution, and which of them fit it."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

from jsc import _checks, _config, _precision
from jsc._geometry import ConvGeometry
from jsc._kernels.amx import amx as amx_kernel
from jsc.network.graph import Convolution, Value
from jsc.ops import amx

TILES = {"winograd2x2": (2, 2), "winograd2x4": (2, 4), "winograd4x4": (4, 4)}
METHODS = ("direct", "direct_bf16", "depthwise", "grouped", "cpc", "amx", *TILES)
FEW_CHANNELS = 32  # of a group
STEM_CHANNELS = 4  # of an image
MOST_LANES = 16
LEAST_CHANNELS = 16  # for `cpc`
# Beside sizes and what `amx.cut` says.
AMX_FIELDS = (
    "x_pitch", "out_pitch", "residual_pitch", "x_bytes", "out_bytes", "weight", "bias", "relu",
    "packed",
)  # fmt: skip


def checked_plan(plan: Mapping[str, str]) -> dict[str, str]:
    """Methods of convolutions by name. TypeError for what is no mapping, ValueError for a method
    that there is not."""
    if not isinstance(plan, Mapping):
        raise TypeError(
            "plan must be a mapping of weights' names to methods, as a network's `plan` is; "
            f"got {_checks.shown(plan)}"
        )
    for name, method in plan.items():
        if not isinstance(method, str) or method not in METHODS:
            raise ValueError(
                f"plan: the method of {name} must be one of {', '.join(METHODS)}; got {method!r}"
            )
    return dict(plan)


def warn_of_unknown(plan: Iterable[str], names: Collection[str], weights: Iterable[str]) -> None:
    """Warns of names in a plan that are neither those of convolutions nor of other weights, such
    as of a second one that became one with the first, or stand for what another size makes of a
    weight, such as "('rows of windows', '0.weight')"."""
    weights = list(weights)
    unknown = [
        name
        for name in plan
        if name not in names and not any(w == name or repr(w) in name for w in weights)
    ]
    if unknown:
        closest = get_close_matches(unknown[0], names) or sorted(names)[:3]
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        warnings.warn(
            f"jsc.compile: plan: no convolution has the name {unknown[0]}{more}, whose method is "
            f"not used; the closest are: {', '.join(closest) or '(the network has none)'}. A plan "
            "names a convolution by its weight, and several that became one by that of the first",
            RuntimeWarning,
            stacklevel=3,
        )


def candidates(conv: Convolution, lanes: int, precision: str = "ieee") -> list[str]:
    """The ways to do this convolution with vectors of `lanes`, the rule's own first."""
    if conv.depthwise:
        return ["depthwise"]
    found = ["direct"]
    if grouped_fits(conv, lanes):
        found.insert(0, "grouped")
    if precision == "bf16" and pairs_fit(conv):
        found.insert(0, "direct_bf16")
    geometry = (*conv.kernel, *conv.stride, *conv.dilation)
    plain = geometry == (3, 3, 1, 1, 1, 1)
    if plain and conv.groups == 1 and conv.inputs[0].C >= 8 and conv.out.C >= 8:
        _, H, W, _ = conv.out.shape
        found += [name for name, (v, h) in TILES.items() if v <= H and h <= W]
    if sparse_fits(conv):
        found.append("cpc")
    if tiles_fit(conv):
        found.insert(0 if precision != "ieee" else len(found), "amx")
    return found


def sparse_fits(conv: Convolution) -> bool:
    """May `cpc`, which passes over the channels that are zero, gain anything?"""
    return conv.groups == 1 and conv.inputs[0].C >= LEAST_CHANNELS and _channels_last(conv)


def pairs_fit(conv: Convolution) -> bool:
    """Can AVX-512 multiply pairs of channels in bfloat16?"""
    return _config.bf16() and conv.groups == 1 and not conv.exact and _channels_last(conv)


def _channels_last(conv: Convolution) -> bool:
    root = conv.inputs[0].root
    return root.tensor is None or not root.tensor.planar


def tiles_fit(conv: Convolution) -> bool:
    """Can AMX tiles do it: nothing or a ReLU after it, maps whose rows follow each other?"""
    if not _config.amx() or conv.groups > 1 or str(conv.act) not in ("none", "relu") or conv.exact:
        return False
    g = geometry_of(conv)
    if (g.Oh, g.Ow) != conv.out.shape[1:3] or amx.unsupported(g) is not None:
        return False
    return all(_rows_follow(value) for value in (*conv.inputs, conv.out))


def _rows_follow(value: Value) -> bool:
    """Does row follow row in memory, channels last?"""
    while value.whole is not None:
        if not value.recounted and value.shape[:3] != value.whole.shape[:3]:
            return False
        value = value.whole
    return value.tensor is None or not value.tensor.planar


def geometry_of(conv: Convolution) -> ConvGeometry:
    N, H, W, C = conv.inputs[0].shape
    sizes = (*conv.kernel, *conv.stride, *conv.padding, *conv.dilation)
    return ConvGeometry(N, C, H, W, conv.out.C, *sizes, conv.groups)


def workspace_of(conv: Convolution, precision: str) -> Value | None:
    """Room for what the threads of a convolution share, by whichever method: masks of the input, a
    bit for each of its numbers by sets of 64 channels; what `amx` says."""
    floats = 0
    if sparse_fits(conv):
        N, H, W, C = conv.inputs[0].shape
        floats = N * H * W * 2 * -(-C // 64)
    if tiles_fit(conv):
        g = geometry_of(conv)
        cut = amx.cut(g, _precision.PIECES[precision])
        fields = {**dict.fromkeys(AMX_FIELDS, 0), **g.sizes(), **cut}
        floats = max(floats, amx_kernel.Convolution(fields).common_bytes // 4)
    return Value((1, 1, 1, floats)) if floats else None


def grouped_fits(conv: Convolution, lanes: int) -> bool:
    """Does `grouped` do it: 3 wide (an image's first layer 7), few channels to a group, enough
    filters and pixels?"""
    if conv.kernel[1] == 7:
        few = conv.groups == 1 and conv.inputs[0].C <= STEM_CHANNELS
        return few and _steps_fit(conv) and lanes <= conv.out.C
    narrowest = lanes // 2 if lanes > 4 else lanes
    enough = conv.out.C // conv.groups >= narrowest or groups_together(conv, lanes)
    return (
        conv.kernel[1] == 3
        and _steps_fit(conv)
        and conv.inputs[0].C // conv.groups <= FEW_CHANNELS
        and enough
    )


def reads_images(conv: Convolution, precision: str) -> bool:
    """Is `grouped` the fastest for a network's first layer? Tiles, and with 7 columns products of
    bfloat16, take windows' rows."""
    if _config.amx() or (precision == "bf16" and _config.bf16() and conv.kernel[1] == 7):
        return False
    return grouped_fits(conv, MOST_LANES) and conv.groups == 1


def _steps_fit(conv: Convolution) -> bool:
    return conv.dilation[1] == 1 and conv.stride in ((1, 1), (2, 2)) and conv.out.shape[2] >= 4


def groups_together(conv: Convolution, lanes: int) -> bool:
    """Do several groups of `grouped` lie in a vector? They have as many filters as channels."""
    filters, channels = conv.out.C // conv.groups, conv.inputs[0].C // conv.groups
    return filters == channels < lanes <= conv.out.C and lanes % filters == 0
