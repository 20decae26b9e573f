"""Whether a model that gives new weights is built like the one that was compiled."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import fx, nn


def classes_of(model: nn.Module) -> dict[str, str]:
    """The names of the classes of all modules, by their paths."""
    return {path: _class_of(module) for path, module in model.named_modules()}


def _class_of(module: nn.Module) -> str:
    if isinstance(module, fx.GraphModule):  # each has a class of its own
        return "GraphModule"
    return type(module).__name__.replace("SparseConv2d", "Conv2d")  # `jsc.apply` changes no result


def refuse_other(
    model: nn.Module, names: Collection[str], classes: Mapping[str, str] | None
) -> None:
    """Raises ValueError if the model has a parameter or buffer that is not among `names`, or the
    same ones in other modules than `classes` (None: not known)."""
    given = model.state_dict().keys()
    unknown = sorted(given - set(names))
    found = [f"it has {name} besides" for name in unknown]
    if classes is not None and not unknown and given >= set(names):
        own = classes_of(model)
        found = [
            f"{path or 'the model itself'} must be {_shown(classes, path)}, and is "
            f"{_shown(own, path)}"
            for path in sorted(classes.keys() | own.keys())
            if classes.get(path) != own.get(path)
        ]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise ValueError(
            f"refresh: the model is built otherwise than the one that was compiled: "
            f"{'; '.join(found[:3])}{more}. Compile it anew"
        )


def _shown(classes: Mapping[str, str], path: str) -> str:
    return f"of class {classes[path]}" if path in classes else "missing"
