"""Functions that torch or a model writes out in several operators, recognised by their last one."""

from __future__ import annotations

from typing import Any

from torch import fx


def match_lrn(node: fx.Node) -> tuple[fx.Node, int, float, float, float] | None:
    """Is this division the end of torch's local_response_norm, x / (k + alpha mean(x^2))^beta?

    Torch has no operator of that name: it squares, pads, averages over channels in three
    dimensions, and so on. Gives x, size, alpha, beta, k.
    """

    def step(at: Any, name: str) -> fx.Node | None:
        matches = isinstance(at, fx.Node) and str(at.target).removeprefix("aten.") == name
        return at if matches else None

    def through_views(at: Any) -> Any:
        names = ("view.default", "squeeze.dim", "unsqueeze.default", "squeeze.dims")
        while isinstance(at, fx.Node) and str(at.target).removeprefix("aten.") in names:
            at = at.args[0]
        return at

    if len(node.args) != 2 or not (power := step(node.args[1], "pow.Tensor_Scalar")):
        return None
    if not (added := step(power.args[0], "add.Tensor")):
        return None
    if not (scaled := step(added.args[0], "mul.Tensor")):
        return None
    if not (pooled := step(through_views(scaled.args[0]), "avg_pool3d.default")):
        return None
    padded = through_views(pooled.args[0])
    if not isinstance(padded, fx.Node) or not _pads_with_zeros(padded):
        return None
    if not (square := step(through_views(padded.args[0]), "mul.Tensor")):
        return None
    x, size = node.args[0], int(pooled.args[1][0])  # type: ignore[index,arg-type]
    numbers = (scaled.args[1], power.args[1], added.args[1])
    plain = all(isinstance(v, (int, float)) for v in numbers)
    window = [list(a) for a in pooled.args[1:3]]  # type: ignore[arg-type]
    whole = len(pooled.args) == 3 and window == [[size, 1, 1], [1, 1, 1]]
    pads = list(padded.args[1]) == [0, 0, 0, 0, size // 2, (size - 1) // 2]  # type: ignore[arg-type]
    if not plain or not whole or not pads or square.args != (x, x) or not isinstance(x, fx.Node):
        return None
    # Channels are the third of five dimensions there, and the second of four before and after.
    shape = x.meta["val"].shape
    there = (padded.args[0].meta["val"].shape, scaled.args[0].meta["val"].shape)  # type: ignore[union-attr]
    if len(shape) != 4 or there != ((shape[0], 1, *shape[1:]), shape):
        return None
    if any(n.kwargs for n in (node, power, added, scaled, pooled, square)):
        return None
    alpha, beta, k = (float(v) for v in numbers)  # type: ignore[arg-type]
    return x, size, alpha, beta, k


def _pads_with_zeros(node: fx.Node) -> bool:
    name, rest = str(node.target).removeprefix("aten."), node.args[2:]
    if node.kwargs or name not in ("constant_pad_nd.default", "pad.default"):
        return False
    if name == "pad.default":
        mode, rest = (rest[0], rest[1:]) if rest else ("constant", ())
        if mode != "constant":
            return False
    return not rest or rest[0] in (None, 0)


def match_layer_norm(node: fx.Node) -> tuple[fx.Node, float] | None:
    """Is this division the end of a layer-norm over channels that is written out, as in ConvNeXt's
    and SAM's code: u = x.mean(1, keepdim=True), v = (x - u).pow(2).mean(1, keepdim=True),
    (x - u) / sqrt(v + eps)? Gives x, eps."""

    def step(at: Any, *names: str) -> fx.Node | None:
        matches = isinstance(at, fx.Node) and str(at.target).removeprefix("aten.") in names
        return at if matches else None

    def is_mean(at: fx.Node | None) -> bool:
        return at is not None and len(at.args) == 3 and at.args[1:] == ([1], True) and not at.kwargs

    if len(node.args) != 2 or len(node.meta["val"].shape) != 4:
        return None
    centred, root = step(node.args[0], "sub.Tensor"), step(node.args[1], "sqrt.default")
    if not centred or not root or centred.kwargs:
        return None
    x, u = centred.args[0], step(centred.args[1], "mean.dim")
    added = step(root.args[0], "add.Tensor")
    if not isinstance(x, fx.Node) or not u or not is_mean(u) or u.args[0] is not x or not added:
        return None
    variance, eps = step(added.args[0], "mean.dim"), added.args[1]
    if not variance or not is_mean(variance) or not isinstance(eps, float) or added.kwargs:
        return None
    square = step(variance.args[0], "pow.Tensor_Scalar", "square.default", "mul.Tensor")
    if not square or not _is_square(square):
        return None
    same = square.args[0] is node.args[0] or _same_centre(square, x, u)
    return (x, eps) if same else None


def _same_centre(square: fx.Node, x: fx.Node, u: fx.Node) -> bool:
    """x - u, computed a second time."""
    at = square.args[0]
    if not isinstance(at, fx.Node) or at.kwargs:
        return False
    return str(at.target) == "aten.sub.Tensor" and at.args == (x, u)


def _is_square(node: fx.Node) -> bool:
    name = str(node.target).removeprefix("aten.")
    if name == "mul.Tensor":
        return node.args[0] is node.args[1]
    return name == "square.default" or bool(node.args[1] == 2)
