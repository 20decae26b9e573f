"""A plan as a table: plain text, Markdown and HTML from the same rows."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from jsc import _tables

if TYPE_CHECKING:
    from jsc.tuning.plan.plan import LayerChoice, Plan

HEADER = (
    "layer", "input", "kernel", "density", "method",
    "dense ms", "chosen ms", "gain", "dense MB", "chosen MB", "max error", "why",
)  # fmt: skip
BUSY = 1.5  # median over fastest run, from which on the times are called doubtful
TEXT_COLUMNS = (0, 1, 2, 4, 11)  # flushed left; numbers are flushed right
# Plain text has the first columns and the reason, within 120 columns: folded at these widths.
SHOWN = (*range(8), 11)
SHOWN_LEFT = (0, 1, 2, 4, 8)
WIDEST = {0: 22, 1: 14, 2: 14}


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.3f}"


def _error(value: float) -> str:
    return f"{value:.0e}" if value else "0"


def _kernel(layer: LayerChoice) -> str:
    k, _, kh, kw = layer.weight_shape
    text = f"{kh}x{kw} -> {k}"
    if set(layer.stride) != {1}:
        text += f" /{layer.stride[0]}"
    if set(layer.dilation) != {1}:
        text += f" dilated {layer.dilation[0]}"
    return text if layer.groups == 1 else f"{text} groups {layer.groups}"


def _row(layer: LayerChoice) -> list[str]:
    name = layer.name or "(the model)"
    if layer.aliases:
        name += f" (= {', '.join(layer.aliases)})"
    if not layer.calls:
        return [name, "-", _kernel(layer), "-", layer.method, *["-"] * 6, layer.reason]
    shape = "x".join(map(str, layer.input_shape))
    return [
        name,
        shape if layer.calls == 1 else f"{shape}, {layer.calls} calls",
        _kernel(layer),
        f"{layer.density:.2f}",
        layer.method,
        f"{layer.dense_ms:.3f}",
        f"{layer.chosen_ms:.3f}",
        f"{layer.gain:.2f}x",
        _megabytes(layer.dense_bytes),
        _megabytes(layer.chosen_bytes),
        _error(layer.max_error),
        layer.reason,
    ]


def _totals(plan: Plan) -> list[list[str]]:
    layers = plan.layers
    dense, chosen = sum(x.dense_ms for x in layers), sum(x.chosen_ms for x in layers)
    before, after = sum(x.dense_bytes for x in layers), sum(x.chosen_bytes for x in layers)
    gain = dense / chosen if chosen > 0 else 1.0
    count = f"{len(plan.chosen)} of {len(layers)} changed"
    sums = [f"{dense:.3f}", f"{chosen:.3f}", f"{gain:.2f}x"]
    sums += [_megabytes(before), _megabytes(after)]
    whole = [f"{plan.dense_ms:.3f}", "-", "-", "", "", "-", "not measured as a whole"]
    if plan.tuned_ms:
        whole[1:3] = [f"{plan.tuned_ms:.3f}", f"{plan.gain:.2f}x"]
        whole[5:] = [_error(plan.max_error), "measured as a whole"]
    return [
        ["convolutions", "", "", "", "", *sums, "", count],
        ["whole model", "", "", "", "", *whole],
    ]


def memory_by_method(plan: Plan) -> dict[str, int]:
    """Bytes of all input activations in the form of one method, for methods that can hold all."""
    layers = [layer for layer in plan.layers if layer.calls]
    methods = [
        m for m in (layers[0].memory if layers else ()) if all(m in x.memory for x in layers)
    ]
    return {method: sum(layer.memory[method] for layer in layers) for method in methods}


def torch_is_faster(plan: Plan) -> str:
    """What to do about it, in a sentence."""
    return (
        f"torch alone takes {plan.channels_last_ms:.3f} ms with channels-last maps, this plan "
        f"{plan.tuned_ms:.3f} ms. Call model.to(memory_format=torch.channels_last), make the "
        "sample channels-last likewise, and tune again"
    )


def _notes(plan: Plan) -> list[str]:
    sizes = [f"{name} {_megabytes(size)}" for name, size in memory_by_method(plan).items()]
    notes = []
    if plan.max_error:
        notes.append(f"largest error of the whole model: {_error(plan.max_error)} of its outputs")
    if sizes:
        notes.append(f"all input activations, MB: {', '.join(sizes)}")
    if plan.channels_last_ms:
        notes.append(f"torch alone, all channels-last: {plan.channels_last_ms:.3f} ms")
    if plan.torch_is_faster:
        notes.append(f"note: {torch_is_faster(plan)}")
    notes.append(f"measured on {plan.environment}")
    if plan.spread < BUSY:
        return notes
    return [
        *notes,
        f"note: the machine was busy, the median run took {plan.spread:.1f} times the fastest; "
        "tune again when it is idle",
    ]


def rows(plan: Plan) -> list[list[str]]:
    """Header, one row per layer, two rows of totals."""
    return [list(HEADER), *map(_row, plan.layers), *_totals(plan)]


def text(plan: Plan) -> str:
    """The aligned table in 120 columns, without bytes and errors, and the environment below it."""
    cells = [[row[i] for i in SHOWN] for row in rows(plan)]
    for row, layer in zip(cells[1:], plan.layers, strict=False):
        if layer.method != "dense" and " at density " in layer.reason:
            row[-1] = ""  # method, gain and density stand in the row
    head, *body = _tables.aligned(cells, SHOWN_LEFT, WIDEST)
    rule = "-" * max(len(line) for lines in (head, *body) for line in lines)
    layers, totals = body[:-2], body[-2:]
    lines = [*head, rule, *chain(*layers), rule, *chain(*totals)]
    return "\n".join([*lines, *chain(*(_tables.folded(note) for note in _notes(plan)))])


def markdown(plan: Plan) -> str:
    """A GitHub table."""
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows(plan)]
    marks = [":--" if i in TEXT_COLUMNS else "--:" for i in range(len(HEADER))]
    lines = ["| " + " | ".join(row) + " |" for row in (head, marks, *body)]
    return "\n".join([*lines, "", *_notes(plan)])


def html(plan: Plan) -> str:
    """For notebooks."""
    return f"{_tables.html(rows(plan), TEXT_COLUMNS)}\n{_tables.paragraphs(_notes(plan))}"
