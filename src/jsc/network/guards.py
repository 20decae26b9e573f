"""Conditions on the free sizes of a graph, such as 2*(s1 // 16) == s1 // 8.

Export takes one path through the model's Python, and these are what it asked of the sizes on that
way; where one of them does not hold, the graph is another one. They are text, so that a file can
keep them: comparisons of whole numbers, and nothing else that Python could do.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Iterable, Mapping
from functools import lru_cache

from torch.export import ExportedProgram

FUNCTIONS = {"max": max, "min": min}
ALLOWED = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Compare,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.BinOp, ast.Add, ast.Sub, ast.Mult,
    ast.FloorDiv, ast.Mod, ast.Call, ast.Name, ast.Load, ast.Constant,
)  # fmt: skip


def of(program: ExportedProgram) -> tuple[str, ...]:
    """What the path through an exported program asked of its sizes."""
    from torch.utils._sympy.printers import PythonPrinter  # sympy takes .2 seconds to import

    for node in program.graph.nodes:
        mode = getattr(node.meta.get("val"), "fake_mode", None)
        if mode is not None and mode.shape_env is not None:
            sizes = mode.shape_env  # which has one name for sizes that must be equal
            printed = [PythonPrinter().doprint(sizes.replace(g.expr)) for g in sizes.guards]
            return tuple(text for text in dict.fromkeys(printed) if text != "True")
    return ()


def understood(guards: Iterable[str], names: Iterable[str]) -> bool:
    """Are these conditions on the sizes of these names, and no more than that?"""
    known = {*names, *FUNCTIONS}
    for guard in guards:
        try:
            tree = ast.parse(guard, mode="eval")
        except SyntaxError:
            return False
        for node in ast.walk(tree):
            name = node.id if isinstance(node, ast.Name) else None
            number = node.value if isinstance(node, ast.Constant) else 0
            function = node.func if isinstance(node, ast.Call) else None
            if (
                not isinstance(node, ALLOWED)
                or (name is not None and name not in known)
                or type(number) not in (int, bool)
                or (function is not None and getattr(function, "id", None) not in FUNCTIONS)
            ):
                return False
    return True


def hold(guards: Iterable[str], sizes: Mapping[str, int]) -> bool:
    """Do conditions that are `understood` hold for these sizes?"""
    return all(eval(_code(guard), {"__builtins__": {}, **FUNCTIONS}, sizes) for guard in guards)


@lru_cache(maxsize=4096)
def _code(guard: str) -> types.CodeType:
    return compile(guard, "<condition on sizes>", "eval")
