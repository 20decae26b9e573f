"""Where the time of the CPC convolution goes: one cause of loss after another is taken away.

One image, one thread, random activations. The sweep is timed as it is, over different masks in
turn; then over masks that have the same number of common and of lone channels in every pair of
pixels (no loop ends where the branch predictor does not expect it); then also with the activations
of all pixels in one place, that is, in L1; then also with one row of weights and one row of partial
sums (nothing but masks and outputs is outside L1). What is then left above the time of the
multiply-adds alone (all operands in registers) are instructions and loads of the sweep, and its way
through pixels without non-zeros with the outputs' to memory (timed with empty masks). The rest is
the encoding, the pages of fresh memory for the output, and what else a call does (Python, threads;
their code and data are not in the caches after a long sweep). Shares are of the sum; to remove a
cause would save its share at most. Times are the least of the rounds, which other load disturbs
least.

"repeated %" is what the sweep saves when it sees the same masks again and again, as in a benchmark
and never in use: the predictor learns them. "useful": multiply-adds that an output needs, of those
that are done (the rest fall beyond the edges or on filters that do not exist). A visit is one non-
zero in one kernel row and block of filters. Instructions are counted by single steps on one row of
outputs. Cycles are the core's: its rate is measured in the run, by multiplications that wait for
each other (3 cycles each).
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import jsc
from benchmarks import conv, report, workloads
from benchmarks.harness import interleave, num_threads
from benchmarks.masks import even, pack, work
from jsc import _config
from jsc._kernels import cpc as kernel
from jsc.ops import conv as ops
from jsc.ops import cpc

Row = dict[str, Any]
SOURCE = Path(__file__).with_name("bounds.cpp")
NATIVE = Path(__file__).parents[1] / "src" / "jsc" / "_kernels" / "native"
# Those of setup.py that change code.
FLAGS = ["-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
DENSITIES = (0.5, 0.2)
LAYERS = {
    "3x3": [(64, 64, 56, 3, 3, 1), (128, 128, 28, 3, 3, 1), (256, 256, 14, 3, 3, 1)],
    **{key: workloads.LAYERS[key] for key in ("3x3 small", "1x1", "long", "stride 2")},
}
QUICK = [("3x3 small", (16, 16, 8, 3, 3, 1), 0.5), ("1x1", (64, 32, 8, 1, 1, 1), 0.5)]
WHERE = {"as it is": 0, "activations in L1": 1, "all in L1": 2}
CAUSES = (
    "multiply-adds", "instructions, loads", "empty pixels, outputs", "weights, sums not in L1",
    "activations not in L1", "mispredictions", "encoding", "fresh memory", "rest of the call",
)  # fmt: skip


class Layer(ctypes.Structure):
    """As in bounds.cpp."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("x", "mask", "weight", "tile", "out")],
        *[
            (name, ctypes.c_int64)
            for name in [*"CHWK", "Kh", "Kw", "Sh", "Sw", "Ph", "Pw", "Oh", "Ow"]
        ],
        *[(name, ctypes.c_int64) for name in ("V", "lanes", "band_rows")],
    ]


def build(folder: Path, flags: list[str] | None = None) -> ctypes.CDLL:
    """The measuring program, compiled around the kernel's own header."""
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        raise SystemExit(f"bounds compiles a small program; there is no compiler {compiler!r}")
    library = folder / "bounds.so"
    command = [compiler, *(flags or FLAGS), "-shared", "-fPIC", f"-I{NATIVE}", str(SOURCE)]
    subprocess.run([*command, "-o", str(library)], check=True)
    native = ctypes.CDLL(str(library))
    addresses = ctypes.POINTER(ctypes.c_void_p)
    native.sweep.argtypes = [addresses, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    native.instructions.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int64]
    native.instructions.restype = ctypes.c_int64
    native.products.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_void_p]
    native.chain.argtypes = [ctypes.c_int64, ctypes.c_uint64]
    native.chain.restype = ctypes.c_uint64
    return native


# times


class Case:
    """A layer with its memory, and its sweeps as calls."""

    def __init__(self, native: ctypes.CDLL, layer: nn.Conv2d, x: Tensor) -> None:
        self.native, self.isa, self.layer = native, _config.isa(), layer
        self.g = g = ops.geometry(x, layer.weight, layer.stride, layer.padding, (1, 1), 1)
        self.x = x.contiguous(memory_format=torch.channels_last)
        self.pixels = self.x.permute(0, 2, 3, 1).numpy()
        self.weight = cpc.pack(layer.weight, g).numpy()
        self.blocks, block = self.weight.shape[0], self.weight.shape[5]
        self.vectors = block // cpc._lanes(layer.weight.dtype)
        columns = kernel.tile_columns(g.Kw, g.Sw, 1, g.Ow) * block
        rows = max(1, min(g.Oh, cpc.TILE_BYTES // (4 * columns)))
        while rows > 1 and self.blocks * -(-g.Oh // rows) < 4:  # as cpc.Convolution does
            rows = -(-rows // 2)
        self.tile, self.out = aligned(rows * columns), aligned(g.Oh * g.Ow * g.K)
        self.rows, self.lanes = rows, block
        self.kept: list[Any] = []  # what the native side has addresses of

    def described(self, masks: np.ndarray) -> int:
        """The address of a `Layer` with these masks."""
        g = self.g
        arrays = (self.pixels, masks, self.weight, self.tile, self.out)
        made = Layer(
            *(array.ctypes.data for array in arrays), g.C, g.H, g.W, g.K, g.Kh, g.Kw, g.Sh, g.Sw,
            g.Ph, g.Pw, g.Oh, g.Ow, self.vectors, self.lanes, self.rows,
        )  # fmt: skip
        self.kept += [made, masks]
        return ctypes.addressof(made)

    def sweep(self, masks: list[np.ndarray], where: str, group: int) -> Callable[[], None]:
        """A call sweeps over the next `group` of `masks`."""
        at = [self.described(m) for m in masks]
        groups = [at[i : i + group] for i in range(0, len(at), group)]
        turn = itertools.cycle([(ctypes.c_void_p * group)(*g) for g in groups])
        code = WHERE[where]
        return lambda: self.native.sweep(next(turn), group, self.isa, code)  # keeps the memory


def aligned(count: int) -> np.ndarray:
    """`count` float32 zeros that begin with a cache line."""
    memory = np.zeros(count + 16, np.float32)
    first = -memory.ctypes.data % 64 // 4
    return memory[first : first + count]


def clock(native: ctypes.CDLL) -> tuple[float, float]:
    """Seconds of a cycle of this core, and of a vector multiply-add from registers."""
    sink, n = aligned(32), 120_000
    times = interleave(
        {
            "chain": lambda: native.chain(n, 3),
            "products": lambda: native.products(_config.isa(), n, sink.ctypes.data),
        },
        51,
    )
    return times["chain"].samples.min() / n / 3, times["products"].samples.min() / n


def measure(native: ctypes.CDLL, layer: nn.Conv2d, x: Tensor, rounds: int) -> Row:
    density = (x != 0).double().mean().item()
    case, random = Case(native, layer, x), np.random.default_rng(0)
    g = case.g
    occupied = (x[0] != 0).permute(1, 2, 0).numpy()
    visits, products = work(g, occupied, case.blocks, case.vectors)
    # Masks so many that the predictor has forgotten the first when it comes again.
    group = 1 + 400_000 // products
    copies = group * (1 + 40_000 // (g.H * g.W * -(-g.C // 32)) // group)
    drawn = [occupied, *(random.random(occupied.shape) < density for _ in range(copies - 1))]
    same = [even(g, density, random) for _ in range(copies)]
    masks, even_masks = [pack(o) for o in drawn], [pack(o) for o in same]
    encoded = np.zeros((1, *masks[0].shape), np.uint64)
    sparse = jsc.nn.SparseConv2d.from_dense(layer, method="cpc").requires_grad_(False)
    out = sparse(case.x)
    last = {"memory_format": torch.channels_last}
    whole: dict[str, Callable[[], Any]] = {
        "call": lambda: sparse(case.x),
        "encoding": lambda: kernel.encode(case.pixels, encoded, case.isa, 1),
        "fresh": lambda: torch.empty(out.shape, **last).zero_(),
        "old": out.zero_,
    }
    empty = np.zeros_like(masks[0])
    sweeps = {
        "repeated": case.sweep(masks[:1] * group, "as it is", group),
        "as it is": case.sweep(masks, "as it is", group),
        "even": case.sweep(even_masks, "as it is", group),
        "activations": case.sweep(even_masks, "activations in L1", group),
        "all": case.sweep(even_masks, "all in L1", group),
        "empty": case.sweep([empty] * group, "all in L1", group),
    }
    # Single calls: on a busy machine the least of them are those that nobody interrupted.
    times = interleave({**whole, **sweeps}, rounds, sample_seconds=0)
    least = {key: float(timing.samples.min()) for key, timing in times.items()}
    least |= {key: least[key] / group for key in sweeps}
    # Each as if it had done as many multiply-adds as the first masks want.
    for key, made in (("as it is", drawn), *((k, same) for k in ("even", "activations", "all"))):
        done = [work(g, o, case.blocks, case.vectors)[1] for o in made]
        least[key] *= products / np.mean(done)
    # One row of outputs in the middle, by single steps.
    row = g.Oh // 2
    read = occupied[row * g.Sh - g.Ph :][: g.Kh]
    one = work(g._replace(H=g.Kh, Ph=0), read, 1, case.vectors)
    return {
        "layer": workloads.name(layer, g.H), "density": density,
        "visits": visits, "vector multiply-adds": products, "seconds": least,
        "useful": conv.products(layer, x) / (products * case.lanes / case.vectors),
        "instructions": native.instructions(case.described(masks[0]), case.isa, row),
        "of visits": one[0], "of multiply-adds": one[1],
    }  # fmt: skip


# tables


def causes(row: Row, per_product: float) -> dict[str, float]:
    """Seconds of a call by cause."""
    t, done = row["seconds"], row["vector multiply-adds"] * per_product
    fresh = t["fresh"] - t["old"]
    parts = (
        done, t["all"] - t["empty"] - done, t["empty"], t["activations"] - t["all"],
        t["even"] - t["activations"], t["as it is"] - t["even"], t["encoding"], fresh,
        t["call"] - t["repeated"] - t["encoding"] - fresh,
    )  # fmt: skip
    return dict(zip(CAUSES, parts, strict=True))


def figures(row: Row, cycle: float, per_product: float) -> Row:
    """A row as it is shown: shares in percent of the call."""
    t, counted, parts = row["seconds"], row["instructions"] > 0, causes(row, per_product)
    return {
        "µs": 1e6 * sum(parts.values()),
        "cycles / visit": t["as it is"] / cycle / row["visits"],
        "cycles / vector multiply-add": t["as it is"] / cycle / row["vector multiply-adds"],
        "instructions / visit": row["instructions"] / row["of visits"] if counted else None,
        "multiply-adds / instruction": (
            row["of multiply-adds"] / row["instructions"] if counted else None
        ),
        "useful %": 100 * row["useful"],
        "repeated %": 100 * (1 - t["repeated"] / t["as it is"]),
        **{f"{k} %": 100 * v / sum(parts.values()) for k, v in parts.items()},
    }


def rounded(line: Row) -> Row:
    def short(key: str, value: Any) -> Any:
        if not isinstance(value, float):
            return value
        return round(value) if key.endswith("%") else round(value, 2)

    return {key: short(key, value) for key, value in line.items()}


def class_table(rows: list[Row], cycle: float, per_product: float) -> str:
    lines = []
    for name in dict.fromkeys(row["class"] for row in rows):
        for density in dict.fromkeys(row["nominal"] for row in rows):
            mine = [r for r in rows if (r["class"], r["nominal"]) == (name, density)]
            shown = [figures(row, cycle, per_product) for row in mine]
            means = {
                key: float(np.mean([line[key] for line in shown]))
                for key in shown[0]
                if key != "µs" and all(line[key] is not None for line in shown)
            }
            lines.append(rounded({"class": name, "layers": len(mine), "density": density} | means))
    return report.table(lines)


def main(arguments: list[str]) -> None:
    parser = report.parser("bounds", __doc__)
    parser.add_argument("--isa", choices=_config.ISA_NAMES, help="instead of the widest")
    options = parser.parse_args(arguments)
    rounds = min(options.rounds, 3) if options.quick else 9 * options.rounds
    level = options.isa or _config.ISA_NAMES[_config.isa()]
    torch.manual_seed(0)
    rows = []
    with tempfile.TemporaryDirectory() as folder, num_threads(1), _config.use_isa(level):
        native = build(Path(folder), ["-std=c++17", "-O2", "-Wno-psabi"] if options.quick else None)
        cycle, per_product = clock(native)
        cases = [
            (key, shape, d) for key, shapes in LAYERS.items() for shape in shapes for d in DENSITIES
        ]
        for key, shape, density in report.progress(QUICK if options.quick else cases, "layers"):
            inputs, outputs, size, height, width, stride = shape
            layer = workloads.conv(inputs, outputs, (height, width), stride)
            row = measure(native, layer, workloads.activation(inputs, size, density), rounds)
            rows.append({"class": key, "nominal": density, **row})
    lines = [
        rounded({"layer": r["layer"], "density": r["nominal"]} | figures(r, cycle, per_product))
        for r in rows
    ]
    sections = {
        "Machine": (
            f"{1e-9 / cycle:.2f} GHz; one {level} multiply-add from registers takes "
            f"{per_product / cycle:.2f} cycles."
        ),
        "Classes of layers (means)": class_table(rows, cycle, per_product),
        "Layers": report.table(lines),
    }
    name = f"bounds_{options.isa}" if options.isa else "bounds"
    data = {"rows": rows, "cycle seconds": cycle, "multiply-add seconds": per_product}
    report.write(options.out, name, report.command("bounds", arguments), __doc__, sections, data)
