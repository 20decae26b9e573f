"""The docstrings of jsc as reStructuredText, for the reference of the site.

They are written to be read in an editor: numpydoc's sections, in which

    an indented paragraph            is an equation, shown as it stands,
    `ValueError  if ...`             under Raises and Warns is a class and when it comes,
    `"soft"  the mean of the levels` is a value of an argument and what it means,
    `[1] ...`                        under References is an entry.
"""

from __future__ import annotations

import inspect
import re

import torch

ENTRIES = ("Parameters", "Attributes", "Returns")  # sections of names with indented text below
CLASSES = re.compile(r"([A-Z]\w+(?:, [A-Z]\w+)*)\s+(\S.*)")
VALUE = re.compile(r'((?:"[\w:.]+", )*"[\w:.]+")\s{2,}(\S.*)')
REFERENCE = re.compile(r"(\[\d+\]) (.*)")


def converted(lines: list[str]) -> list[str]:
    """The lines of one docstring, without indentation of their own, as Napoleon takes them."""
    found: list[str] = []
    for section, body in _sections(lines):
        found += [section, "-" * len(section)] if section else []
        if section in ("Raises", "Warns"):
            body = _classes(body)
        elif section == "References":
            body = _items(body, REFERENCE, "* {} {}")
        elif section not in ENTRIES:
            body = _equations(body)
        found += _items(body, VALUE, "* ``{}``: {}")
    return found


def _sections(lines: list[str]) -> list[tuple[str, list[str]]]:
    """The name and the lines of each section; what stands before the first has no name."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for line in lines:
        body = found[-1][1]
        if re.fullmatch("-{3,}", line) and body and body[-1]:
            found.append((body.pop(), []))
        else:
            body.append(line)
    return found


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _equations(body: list[str]) -> list[str]:
    """A paragraph that begins further right than the one before is marked as literal."""
    found: list[str] = []
    before = 0
    for i, line in enumerate(body):
        begins = line and i > 0 and not body[i - 1]
        if begins and _depth(line) > 0 == before and not found[-2].endswith("::"):
            found += ["::", ""]
        before = _depth(line) if line else before
        found.append(line)
    return found


def _classes(body: list[str]) -> list[str]:
    """`A, B  if ...` as items of a list; lines that begin with no class go on."""
    items: list[list[str]] = []
    for line in filter(None, body):
        entry = CLASSES.fullmatch(line)
        if entry and all(name.endswith(("Error", "Warning")) for name in entry[1].split(", ")):
            names = ", ".join(f":exc:`{name}`" for name in entry[1].split(", "))
            items.append([names, entry[2]])
        else:
            items[-1].append(line.strip())
    return [*(f"* {' '.join(item)}" for item in items), ""]


def _items(body: list[str], entry: re.Pattern[str], form: str) -> list[str]:
    """Lines that match as a list, each with the lines further right that follow it."""
    found: list[str] = []
    depth = None  # of the list that is being made
    for line in body:
        match = entry.fullmatch(line.strip())
        if match:
            if depth is None:
                found.append("")
            depth = _depth(line)
            found.append(" " * depth + form.format(*match.groups()))
        elif depth is not None and line and _depth(line) > depth:
            found.append(" " * (depth + 2) + line.strip())
        else:
            if depth is not None and line:
                found.append("")
            depth = None
            found.append(line)
    return found


def process(app, what, name, obj, options, lines: list[str]) -> None:
    """Sphinx's event autodoc-process-docstring, before Napoleon."""
    lines[:] = converted(lines)


def process_property(app, what, name, obj, options, lines: list[str]) -> None:
    """The same after Napoleon, which takes what stands before a colon for the type."""
    if what == "property":
        lines[:] = [*converted(inspect.cleandoc(obj.__doc__ or "").splitlines()), ""]


def signature(app, what, name, obj, options, arguments: str | None, result: str | None):
    """Sphinx's event autodoc-process-signature: a module without arguments of its own has none."""
    if what == "class" and getattr(obj, "__init__", None) is torch.nn.Module.__init__:
        return "()", result
    return None


def public_bases(app, name, obj, options, bases: list[type]) -> None:
    """Sphinx's event autodoc-process-bases: a private base is replaced by its own bases."""
    while private := [base for base in bases if base.__module__.startswith("jsc.nn._")]:
        for base in private:
            place = bases.index(base)
            bases[place : place + 1] = base.__bases__
