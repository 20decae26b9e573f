"""The JPEG layer against other differentiable JPEGs: time forward and backward, and memory.

All operators have the same tables (quality 50), a batch of 8 images of 224x224 in float32, and give
the gradients of images and tables. `x.clone()` is the floor: what reading and writing the images
costs. Operators with the authors' definition are checked against it in float64, gradients too;
those defined otherwise (4:2:0, cubic rounding) are checked against their own result in float64.

The second table has the layer's own settings against its plain one, 4:4:4 in one round: chroma
subsampled, three rounds of the quantiser, levels drawn, 8-bit images that it normalises itself.

The one before the last has `jsc.nn.LocalContrast`, a front end that knows nothing of JPEG, against
the same in torch's operators, in the faster of both memory formats.

The last one compares two processes: one as it is, and one with MALLOC_TRIM_THRESHOLD_ and
MALLOC_MMAP_THRESHOLD_ at 4 GB, so that glibc keeps the memory that torch frees and asks for again.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import jsc
from benchmarks.common import allocation, figures, report
from benchmarks.common.harness import Ratio, WrongResult, check, interleave, num_threads
from benchmarks.common.report import Figure
from benchmarks.inputs import images
from benchmarks.jpeg import allocator, contrast
from benchmarks.peers.diff_jpeg import CubicJPEG
from benchmarks.peers.jpeg_dl import AuthorsJPEG

TOLERANCE = 1e-4  # of the largest value or gradient
PEER_DECIBELS = 50.0  # cubic rounding jumps: a few coefficients may fall on the other side
AUTHORS = "JPEG-DL authors' operator"
PLAIN, CLONE = "jsc, exact", "x.clone()"
SETTINGS: dict[str, dict[str, Any]] = {
    "4:2:2": {"subsampling": "4:2:2"}, "4:2:0": {"subsampling": "4:2:0"}, "3 rounds": {"rounds": 3},
    "levels drawn": {"quantizer": "sample"},
}  # fmt: skip
BYTES, NORMALISED = "jsc, 8-bit images", "8-bit images made float by torch, then jsc"
OTHERS_420 = ("Diff-JPEG style (4:2:0, cubic)", "kornia jpeg_codec_differentiable")  # 4:2:0, both

# ITU-T T.81, tables K.1 and K.2: quality 50.
LUMA = """16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56
14 17 22 29 51 87 80 62  18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92
49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99"""
CHROMA = (
    """17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99
47 66 99 99 99 99 99 99"""
    + " 99" * 32
)


def quality_50(dtype: torch.dtype = torch.float32) -> Tensor:
    values = [float(word) for word in (LUMA + " " + CHROMA).split()]
    return torch.tensor(values, dtype=dtype).view(2, 8, 8)


class Clone(nn.Module):
    def __init__(self, tables: Tensor) -> None:
        super().__init__()
        self.tables = nn.Parameter(tables.clone())

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


class Normalised(nn.Module):
    """What a data pipeline does today: 8-bit images made float before the layer has them."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    @property
    def tables(self) -> Tensor:
        return self.layer.tables  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.to(self.tables.dtype))


class Kornia(nn.Module):
    """kornia.enhance.jpeg_codec_differentiable, which takes images in [0, 1]; at 4:2:0."""

    def __init__(self, tables: Tensor) -> None:
        super().__init__()
        from kornia.enhance import jpeg_codec_differentiable

        self.codec = jpeg_codec_differentiable
        self.tables = nn.Parameter(tables.clone())
        self.quality = torch.full((1,), 50.0, dtype=tables.dtype)  # leaves the tables as they are

    def forward(self, x: Tensor) -> Tensor:
        luma, chroma = self.tables
        return self.codec(x / 255, self.quality, luma[None], chroma[None]) * 255


def contenders(kappa: float) -> dict[str, tuple[nn.Module, nn.Module | None]]:
    """Each layer, and the definition that it must agree with (None: itself in float64)."""
    tables = quality_50()
    alpha = kappa / tables**2
    exact64 = AuthorsJPEG(tables.double(), alpha.double(), 17, None, chroma_offset=0.0)
    window64 = AuthorsJPEG(tables.double(), alpha.double(), chroma_offset=0.0)
    options = {"alpha": alpha, "peak": 255.0}  # as the authors': alpha does not follow the tables
    found: dict[str, tuple[nn.Module, nn.Module | None]] = {
        PLAIN: (jsc.nn.JPEG(tables, **options), exact64),
        "jsc, window 5, levels 127": (
            jsc.nn.JPEG(tables, window=5, levels=127, **options),
            window64,
        ),
        **{
            f"jsc, {name}": (jsc.nn.JPEG(tables, **options, **setting), None)
            for name, setting in SETTINGS.items()
        },
        BYTES: (jsc.nn.JPEG(tables, **options), None),
        NORMALISED: (Normalised(jsc.nn.JPEG(tables, **options)), None),
        AUTHORS: (AuthorsJPEG(tables, alpha, chroma_offset=0.0), window64),
        OTHERS_420[0]: (CubicJPEG(tables), None),
    }
    try:
        found[OTHERS_420[1]] = (Kornia(tables), None)
    except ImportError:
        print("kornia is not installed: left out (pip install kornia)")
    found[CLONE] = (Clone(tables), None)
    return found


def gradients(layer: nn.Module, x: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    y = layer(x)
    wanted = (x, layer.tables) if x.is_floating_point() else (layer.tables,)
    return (y, *torch.autograd.grad(y, wanted, grad, allow_unused=True, materialize_grads=True))


def verify(name: str, layer: nn.Module, oracle: nn.Module | None, x: Tensor, grad: Tensor) -> None:
    """`WrongResult` unless output and gradients are those of the definition."""
    exact = oracle or copy.deepcopy(layer).double()
    _to_double(exact)
    exact_x = x.detach().double().requires_grad_() if x.is_floating_point() else x
    torch.manual_seed(0)  # the same levels are drawn
    wanted = gradients(exact, exact_x, grad.double())
    torch.manual_seed(0)
    given = gradients(layer, x, grad)
    if oracle is not None:
        for what, result, reference in zip(("", ", dx", ", dq"), given, wanted, strict=True):
            check(name + what, result, reference, TOLERANCE)
        return
    noise = (given[0].double() - wanted[0]).square().mean()
    decibels = 10 * torch.log10(255**2 / noise.clamp_min(1e-12)).item()
    if not decibels >= PEER_DECIBELS:
        raise WrongResult(f"{name}: {decibels:.1f} dB from its own float64 result; not timed")


def _to_double(layer: nn.Module) -> None:
    # Constants that peers keep as plain attributes, which .double() does not convert.
    for key, value in vars(layer).items():
        if isinstance(value, Tensor) and value.is_floating_point():
            setattr(layer, key, value.double())


def pictures(options: argparse.Namespace, count: int, size: int) -> Tensor:
    """Real photographs where there is a data folder, else smooth random images with noise."""
    if options.data is None:
        x = 127.5 + 110 * images.smooth(count, size) + 4 * torch.randn(count, 3, size, size)
        return x.clamp(0, 255).round()
    photos = images.ImageSet(options.data / "images" / "flowers12_224.npz")
    chosen = [photos[i * len(photos) // count][:size, :size] for i in range(count)]
    return torch.stack([torch.from_numpy(p.copy()).permute(2, 0, 1).float() for p in chosen])


def measure(options: argparse.Namespace, count: int, size: int) -> list[dict[str, Any]]:
    x = pictures(options, count, size).requires_grad_()
    grad = torch.randn_like(x)
    layers = contenders(options.kappa)
    pixels = x.detach().to(torch.uint8)
    images = {name: pixels if name in (BYTES, NORMALISED) else x for name in layers}
    for name, (layer, oracle) in layers.items():
        verify(name, layer, oracle, images[name], grad)

    def forward(name: str) -> Callable[[], Tensor]:
        return torch.no_grad()(lambda: layers[name][0](images[name]))

    def both(name: str) -> Callable[[], Any]:
        return lambda: gradients(layers[name][0], images[name], grad)

    rows = []
    passes = {"forward": forward, "forward+backward": both}
    for threads, what in report.progress(product(options.threads, passes), "passes"):
        runs = {name: passes[what](name) for name in layers}
        with num_threads(threads):
            times = interleave(runs, options.rounds)
        for name, timing in times.items():
            ratio, plain = Ratio.of(times[AUTHORS], timing), Ratio.of(timing, times[PLAIN])
            rows.append({
                "operator": name, "threads": threads, "pass": what,
                "ms per image": 1e3 * timing.median / count, "ratio": ratio.value,
                "low": ratio.low, "high": ratio.high,
                "of plain": f"{plain.value:.2f} ({plain.low:.2f}–{plain.high:.2f})",
                "of 4:2:0": Ratio.of(timing, times["jsc, 4:2:0"]).value,
            })  # fmt: skip
    return rows + [
        {
            "operator": name,
            "saved MB": allocation.saved_bytes(
                lambda m=layer, x=images[name]: m(x), (images[name], layer.tables)
            )
            / 1e6
            / count,
            "peak MB": allocation.peak_bytes(both(name)) / 1e6 / count,
        }
        for name, (layer, _) in layers.items()
    ]


def time_table(rows: list[dict[str, Any]]) -> str:
    shown: dict[str, dict[str, Any]] = {}
    for row in rows:
        line = shown.setdefault(row["operator"], {"operator": row["operator"]})
        if "pass" in row:
            key = f"{row['pass']}, {row['threads']} thr."
            line[f"{key}, ms"] = row["ms per image"]
            line[f"{key}, ratio"] = f"{row['ratio']:.2f} ({row['low']:.2f}–{row['high']:.2f})"
    return report.table(list(shown.values()))


def settings_table(rows: list[dict[str, Any]]) -> str:
    """The time of each setting as a multiple of the plain layer's; the quartiles of its rounds."""
    names = [*(f"jsc, {name}" for name in SETTINGS), BYTES, NORMALISED, CLONE]
    shown: dict[str, dict[str, Any]] = {name: {"setting": name} for name in names}
    for row in rows:
        if "pass" in row and row["operator"] in shown:
            shown[row["operator"]][f"{row['pass']}, {row['threads']} thr."] = row["of plain"]
    return report.table(list(shown.values()))


def others_table(rows: list[dict[str, Any]]) -> str:
    """How many times faster the layer is at 4:2:0 than others at theirs."""
    shown: dict[str, dict[str, Any]] = {}
    for row in rows:
        if "pass" in row and row["operator"] in OTHERS_420:
            line = shown.setdefault(row["operator"], {"operator": row["operator"]})
            line[f"{row['pass']}, {row['threads']} thr."] = row["of 4:2:0"]
    return report.table(list(shown.values()))


def main(arguments: list[str]) -> None:
    parser = report.parser("jpeg", __doc__)
    parser.add_argument(
        "--kappa", type=float, default=2.0, help="sharpness alpha q^2 of the soft ones"
    )
    options = report.parse(parser, arguments)
    count, size = (2, 32) if options.quick else (8, 224)
    options.rounds = min(options.rounds, 3) if options.quick else options.rounds
    torch.manual_seed(0)
    rows = measure(options, count, size)
    memory = [row for row in rows if "saved MB" in row]
    local = contrast.rows(options, pictures(options, count, size) / 255)
    kept = allocator.rows(options)
    page = {
        f"Milliseconds per image, {count} x {size}x{size}; ratio to the authors'": time_table(rows),
        "Settings: time as a multiple of jsc, exact": settings_table(rows),
        "jsc at 4:2:0: how many times faster than others at 4:2:0": others_table(rows),
        "MB per image: saved for backward, and peak of forward+backward": report.table(memory),
        "Local contrast: milliseconds per image": report.table(local),
        "Memory that glibc keeps": report.table(kept),
    }
    data = {
        "rows": rows,
        "contrast": local,
        "kept": kept,
        "batch": count,
        "size": size,
        "kappa": options.kappa,
    }
    shown = figures.drawn(time_figure, options.out, rows)
    report.write(options, __doc__, page, data=data, figures=shown)


def time_figure(folder: Path, rows: Sequence[dict[str, Any]]) -> list[Figure]:
    """Milliseconds an image of each operator, on the first number of threads."""
    bars: dict[str, dict[str, float]] = {}
    threads = rows[0]["threads"]
    for row in rows:
        if row.get("threads") == threads:
            bars.setdefault(row["operator"], {})[row["pass"]] = row["ms per image"]
    words = f"ms an image, {threads} thread{'s' * (threads > 1)}"
    figures.bars(folder / "jpeg.png", bars, words, log=True)
    return [Figure("jpeg.png", "Time of each operator, forward and with backward")]
