"""Size of a convolution's input in each storage: elements, bytes, compression ratio.

The compression ratio (CR) is the paper's: elements of im2col over elements stored (values, indices
and pointers count one each). CPS counts the paper's index words, "CPS packed" the fewer ones that
are really stored; bytes are those of what is stored. No ratio is below the closed formula of its
format, which is checked for every layer. A dense convolution without lowering needs the input
alone, so "of dense" is the figure that says whether memory is saved at all.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jsc
from benchmarks.common import figures, report
from benchmarks.common.harness import WrongResult, geometric_mean
from benchmarks.convolution import plots
from benchmarks.inputs import networks, workloads

FORMATS = ("CPO", "CPS", "CPC")
RATIOS = ("CPO", "CPS", "CPS packed", "CPC")
DENSITIES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Size:
    elements: int
    nbytes: int
    compression_ratio: float


def lowered(layer: nn.Conv2d, x: Tensor) -> dict[str, Size]:
    """The dense storages of `x` for `layer` (dilation 1): as it is, im2col and MEC."""
    (kernel_h, kernel_w), (stride_h, stride_w) = layer.kernel_size, layer.stride
    pad_h, pad_w = layer.padding
    n, c, h, w = x.shape
    padded_h, padded_w = h + 2 * pad_h, w + 2 * pad_w
    out_h = (padded_h - kernel_h) // stride_h + 1
    out_w = (padded_w - kernel_w) // stride_w + 1
    counts = {
        "dense": n * c * h * w,
        "im2col": n * c * out_h * out_w * kernel_h * kernel_w,
        "MEC": n * c * out_w * padded_h * kernel_w,  # Cho & Brand 2017: lowered along rows only
    }
    return {
        key: Size(count, count * x.element_size(), counts["im2col"] / count)
        for key, count in counts.items()
    }


def formulas(layer: nn.Conv2d, x: Tensor) -> dict[str, int]:
    """Elements by the closed formulas of the formats (dilation 1), counted from the map by torch.

    With z non-zeros and T pointers to a channel that is not all zero: CPO 2 z + T; CPS z + T and
    min(2, non-zeros) words for each set of four rows; packed, one word for each that is not empty;
    CPC z, a word for 64 channels of a pixel, and one for a row. Columns that no window reads are
    counted though they are not stored, so these are upper bounds; exact ones at stride 1.
    """
    (_, kernel_w), (_, stride_w), (_, pad_w) = layer.kernel_size, layer.stride, layer.padding
    n, c, h, w = x.shape
    out_w = (w + 2 * pad_w - kernel_w) // stride_w + 1
    occupied = x != 0
    nonzeros, channels = int(occupied.sum()), int(occupied.any(3).any(2).sum())
    patterns = min(-(-kernel_w // stride_w), out_w)
    # At stride 1 only the two outermost windows have columns that no other window reads.
    first = 3 if stride_w == 1 and patterns > 1 else out_w + 1
    pointers = channels * ((patterns - 1) * (out_w + 1) + first)
    sets = F.pad(occupied, (0, 0, 0, -h % 4)).unflatten(2, (-1, 4)).sum(3)
    return {
        "CPO": 2 * nonzeros + pointers,
        "CPS": nonzeros + int(sets.clamp(max=2).sum()) + pointers,
        "CPS packed": nonzeros + int((sets > 0).sum()) + pointers,
        "CPC": nonzeros + n * -(-c // 64) * h * w + n * h + 1,
    }


def footprint(layer: nn.Conv2d, x: Tensor) -> dict[str, Size]:
    """Every storage of `x` for `layer`, in elements and bytes; `WrongResult` for a format that
    takes more elements than its closed formula."""
    sizes = lowered(layer, x)
    for key in FORMATS:
        code = getattr(jsc.formats, key).encode(x, layer.kernel_size, layer.stride, layer.padding)
        sizes[key] = Size(code.elements, code.nbytes, code.compression_ratio)
        if key == "CPS":
            packed = code.packed_elements
            ratio = sizes["im2col"].elements / packed if packed else float("inf")
            sizes["CPS packed"] = Size(packed, code.nbytes, ratio)
    for key, bound in formulas(layer, x).items():
        if sizes[key].elements > bound:
            raise WrongResult(
                f"{key} of {workloads.name(layer, x.shape[2])}: {sizes[key].elements} elements, "
                f"its closed formula gives {bound}"
            )
    return sizes


def cases(options: argparse.Namespace) -> Iterator[tuple[nn.Conv2d, Tensor, dict[str, Any]]]:
    densities = DENSITIES[1::4] if options.quick else DENSITIES
    for key, inputs, outputs, size, height, width, measured in workloads.PAPER:
        if options.quick and size * inputs > 17 * 160:
            continue
        layer = workloads.conv(inputs, outputs, (height, width))
        for density in (measured, *densities):
            labels = {"id": key, "authors' density": density == measured}
            yield layer, workloads.activation(inputs, size, density), labels
    if options.data is None:
        return
    for name in networks.names(options.data):
        network = networks.load(options.data, name)
        inputs = networks.conv_inputs(network.model, network.batch(options.data, 1))
        convs = dict(network.model.named_modules())
        for key, x in list(inputs.items())[: 4 if options.quick else None]:
            if convs[key].groups == 1:
                yield convs[key], x.clone(), {"network": name, "name": key}


def row(layer: nn.Conv2d, x: Tensor, labels: dict[str, Any]) -> dict[str, Any]:
    sizes = footprint(layer, x)
    dense = sizes["dense"].nbytes
    found: dict[str, Any] = {
        **labels,
        "layer": workloads.name(layer, x.shape[2]),
        "density": (x != 0).double().mean().item(),
    }
    for key, size in sizes.items():
        found[key] = {
            "elements": size.elements,
            "bytes": size.nbytes,
            "compression ratio": size.compression_ratio,
            "of dense": size.nbytes / dense,
        }
    return found


def layer_table(rows: list[dict[str, Any]]) -> str:
    shown = []
    for found in rows:
        line = {
            "layer": f"{found['name']} ({found['layer']})" if "name" in found else found["layer"],
            "density": round(found["density"], 3),
            "dense kB": round(found["dense"]["bytes"] / 1e3, 1),
        }
        for key in ("MEC", *RATIOS):
            line[f"CR {key}"] = round(found[key]["compression ratio"], 2)
        for key in ("im2col", "MEC", *FORMATS):
            line[f"{key} of dense"] = round(found[key]["of dense"], 2)
        shown.append(line)
    return report.table(shown)


def network_table(rows: list[dict[str, Any]]) -> str:
    """Per network: bytes of all layer inputs together, and the geometric mean of the ratios."""
    shown = []
    for network in dict.fromkeys(found["network"] for found in rows):
        mine = [found for found in rows if found["network"] == network]
        line: dict[str, Any] = {"network": network, "layers": len(mine)}
        for key in RATIOS:
            ratios = [found[key]["compression ratio"] for found in mine]
            line[f"CR {key} (geometric mean)"] = round(geometric_mean(ratios), 2)
        dense = sum(found["dense"]["bytes"] for found in mine)
        for key in ("im2col", "MEC", *FORMATS):
            total = sum(found[key]["bytes"] for found in mine)
            line[f"{key} of dense"] = round(total / dense, 2)
        shown.append(line)
    return report.table(shown)


def losses(rows: list[dict[str, Any]]) -> str:
    """How often each storage takes more bytes than the dense tensor, and the worst case."""
    shown = []
    for key in ("im2col", "MEC", *FORMATS):
        for inputs, mine in (
            ("random", [row for row in rows if "id" in row]),
            ("real", [row for row in rows if "network" in row]),
        ):
            if mine:
                worst = max(mine, key=lambda row: row[key]["of dense"])
                shown.append({
                    "storage": key, "inputs": inputs, "layers": len(mine),
                    "larger than dense": sum(row[key]["of dense"] > 1 for row in mine),
                    "at most, of dense": round(worst[key]["of dense"], 2),
                    "layer": worst["layer"], "density": round(worst["density"], 2),
                })  # fmt: skip
    return report.table(shown)


def main(arguments: list[str]) -> None:
    options = report.parse(report.parser("memory", __doc__, timed=False), arguments)
    torch.manual_seed(0)
    rows = [row(*case) for case in report.progress(cases(options), "layers")]
    authors = [found for found in rows if found.get("authors' density")]
    random = [found for found in rows if "id" in found and not found["authors' density"]]
    real = [found for found in rows if "network" in found]
    page = {
        "Inception-v3 layers at the authors' densities (random)": layer_table(authors),
        "Networks": network_table(real) if real else "",
        "Losses": losses(rows),
    }
    layers = {"Random activations": layer_table(random)}
    for network in dict.fromkeys(found["network"] for found in real):
        layers[network] = layer_table([found for found in real if found["network"] == network])
    drawn = figures.drawn(plots.memory_figures, options.out, rows)
    report.write(options, __doc__, page, layers=layers, data={"rows": rows}, figures=drawn)
