"""Of the JPEG layer and what surrounds it."""

from __future__ import annotations

import io
import random
from typing import Any

import torch
from torch import Tensor, nn

import jsc
from tests.reliability.arguments import Arguments, Call, dtype, rand, some


def image(r: random.Random, kind: torch.dtype = torch.float32) -> Tensor:
    return rand(
        r, r.choice([0, 1, 2]), r.choice([1, 3]), r.randint(1, 20), r.randint(1, 20), dtype=kind
    )


def pixels(r: random.Random) -> Tensor:
    """8-bit images, with channels first or last, some of them every second column only."""
    channels, h, w = r.choice([1, 3]), r.randint(0, 20), r.randint(1, 40)
    shape = r.choice([(channels, h, w), (h, w, channels)])
    made = torch.randint(0, 256, (r.choice([0, 1, 2]), *shape), dtype=torch.uint8)
    return made[:, :, ::2] if r.random() < 0.3 else made


def tables(r: random.Random, kind: torch.dtype = torch.float32, rounds: bool = True) -> Tensor:
    shape = r.choice([(2, 8, 8), (2, 8, 8), (3, 2, 8, 8)] if rounds else [(2, 8, 8)])
    return rand(r, *shape, dtype=kind) * r.choice([1, 20, 255]) + 1e-3


def steps(r: random.Random) -> Tensor:
    generator = torch.Generator().manual_seed(r.getrandbits(32))
    return torch.randint(1, 256, (2, 8, 8), generator=generator)


def options(r: random.Random) -> Arguments:
    """Of the JPEG layer."""
    return some(
        r,
        alpha=r.choice([5.0, 0.0, 1e6, 0.01, torch.tensor(2.0)]),
        kappa=r.choice([None, 0.0, 2.0, 1e9]),
        quantizer=r.choice(["soft", "hard", "ste", "sample"]), window=r.choice([None, 3, 5, 23]),
        levels=r.choice([None, 1, 11, 127, 2**31 - 1]),
        subsampling=r.choice(["4:4:4", "4:2:2", "4:2:0"]),
        mean=r.choice([None, 0.5, (0.5, 0.4, 0.3)]), std=r.choice([None, 0.2, (0.2, 0.2, 0.2)]),
        peak=r.choice([1.0, 255]), chroma_offset=r.choice([0.0, 0.5]),
        padding=r.choice(["replicate", "zero"]),
    )  # fmt: skip


def jpeg_arguments(r: random.Random) -> Arguments:
    kind = dtype(r)
    x = pixels(r) if r.random() < 0.2 else image(r, kind)
    return {"x": x, "tables": tables(r, kind), **options(r)}


def layer_arguments(r: random.Random) -> Arguments:
    kind = dtype(r)
    own = some(r, rounds=r.choice([1, 2, 3]), train_alpha=True)
    return {"tables": tables(r, kind), "x": image(r, kind), **own, **options(r)}


def layer(x: Any, **arguments: Any) -> Any:
    made = jsc.nn.JPEG(**arguments)
    made.extra_repr(), made.quant_tables(), made.state_dict()
    if len(made.tables) > 1000:
        return None  # as many rounds as were asked for, and as much time
    return made(x)


def random_arguments(r: random.Random) -> Arguments:
    own = some(
        r, quality=r.choice([1, 100, (20, 90)]), p=r.choice([0.0, 0.5, 1.0]), same_on_batch=True
    )
    return {"x": image(r, dtype(r)), **own, **options(r)}


def decoded(x: Any, **arguments: Any) -> Any:
    return jsc.nn.JPEG(**arguments).decoded(x)


def rate(x: Any, **arguments: Any) -> Any:
    return jsc.nn.JPEG(**arguments).rate(x)


def quantizer_arguments(r: random.Random) -> Arguments:
    kind = dtype(r)
    shape = r.choice([(5,), (2, 3, 1, 2, 8, 8), (4, 7), ()])
    q = rand(r, *r.choice([shape[-1:], (), shape]), dtype=kind) + 0.1
    sharpness = r.choice(["alpha", "kappa"])
    value = r.choice([0.0, 1.0, 1e6, rand(r, *shape[-2:], dtype=kind)])
    window = some(r, window=r.choice([None, 3, 5, 23]), levels=r.choice([None, 1, 11, 127]))
    return {"z": rand(r, *shape, dtype=kind) * 100 - 50, "q": q, sharpness: value, **window}


def save_and_load(image: Any, tables: Any, **arguments: Any) -> Any:
    file = io.BytesIO()
    jsc.jpeg.save(file, image, tables, **arguments)
    file.seek(0)
    return jsc.jpeg.load(file), jsc.jpeg.read_tables(file)


def save_arguments(r: random.Random) -> Arguments:
    own = some(
        r, subsampling=r.choice(["4:2:0", "4:2:2"]), peak=1, optimize=False, progressive=True
    )
    return {
        "image": rand(r, r.choice([1, 3]), r.randint(1, 20), r.randint(1, 20)),
        "tables": steps(r),
        **own,
    }


def axes(r: random.Random) -> list[Any]:
    from matplotlib.figure import Figure

    return list(Figure().subplots(1, 2))


def loader(r: random.Random) -> list[Any]:
    return [(image(r), torch.zeros(2, dtype=torch.long)) for _ in range(r.randrange(3))]


def sensitivity_arguments(r: random.Random) -> Arguments:
    own = some(r, mean=0.5, std=(0.2, 0.2, 0.2), peak=255.0, max_images=r.choice([1, 3]))
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten())
    return {"model": model, "loader": loader(r), "loss": lambda y, t: y.square().mean(), **own}


def contrast_arguments(r: random.Random) -> Arguments:
    own = some(
        r, deviation=r.choice([0.5, 3, 64.0]), gain=r.choice([0.0, 0.2, -1e6]),
        epsilon=r.choice([1e-30, 0.05, 1e9]), mean=r.choice([None, 0.5, (0.5, 0.4, 0.3)]),
        std=r.choice([None, 0.2, (0.2, 0.2, 0.2)]), peak=r.choice([1.0, 255]),
    )  # fmt: skip
    return {"x": image(r, dtype(r)), **own}


def contrast(x: Any, **arguments: Any) -> Any:
    made = jsc.nn.LocalContrast(**arguments)
    made.extra_repr(), made.state_dict()
    return made(x)


CALLS = [
    Call("functional.local_contrast", contrast_arguments, jsc.functional.local_contrast),
    Call("nn.LocalContrast", contrast_arguments, contrast),
    Call("functional.block_dct", lambda r: {"x": rand(r, 2, 3, 8, 16)}, jsc.functional.block_dct),
    Call(
        "functional.block_idct",
        lambda r: {"z": rand(r, 2, 3, 1, 2, 8, 8)},
        jsc.functional.block_idct,
    ),
    Call("functional.jpeg", jpeg_arguments, jsc.functional.jpeg, 4),
    Call("functional.jpeg_rate", jpeg_arguments, jsc.functional.jpeg_rate, 1),
    Call("functional.soft_quantize", quantizer_arguments, jsc.functional.soft_quantize, 3),
    Call("nn.JPEG", layer_arguments, layer, 3),
    Call("nn.JPEG.decoded", layer_arguments, decoded),
    Call("nn.JPEG.rate", layer_arguments, rate, 0.5),
    Call(
        "nn.JPEG.from_quality",
        lambda r: {"quality": r.randint(1, 100)},
        jsc.nn.JPEG.from_quality,
        0.3,
    ),
    Call(
        "nn.JPEG.from_sensitivity",
        lambda r: {"s": rand(r, 3, 8, 8) + 0.1, **some(r, q_max=5.0)},
        jsc.nn.JPEG.from_sensitivity,
        0.5,
    ),
    Call(
        "nn.JPEG.from_mean_absolute",
        lambda r: {"m": rand(r, 3, 8, 8), **some(r, bits=8, dc_as_first_ac=True)},
        jsc.nn.JPEG.from_mean_absolute,
        0.5,
    ),
    Call(
        "nn.JPEG.preset",
        lambda r: {"name": "jpeg-dl", **some(r, tables=tables(r))},
        jsc.nn.JPEG.preset,
        0.3,
    ),
    Call(
        "nn.SoftQuantizer",
        quantizer_arguments,
        lambda z, **arguments: jsc.nn.SoftQuantizer(**arguments)(z),
        2,
    ),
    Call(
        "nn.RandomJPEG",
        random_arguments,
        lambda x, **arguments: jsc.nn.RandomJPEG(**arguments)(x),
    ),
    Call("nn.BlockDCT", lambda r: {"x": image(r)}, lambda x: jsc.nn.BlockDCT()(x), 0.3),
    Call(
        "nn.InverseBlockDCT",
        lambda r: {"z": rand(r, 1, 1, 2, 1, 8, 8)},
        lambda z: jsc.nn.InverseBlockDCT()(z),
        0.3,
    ),
    Call(
        "jpeg.quality_tables",
        lambda r: {"quality": r.randint(1, 100), **some(r, dtype=torch.float64)},
        jsc.jpeg.quality_tables,
        0.5,
    ),
    Call("jpeg.to_zigzag", lambda r: {"tables": tables(r)}, jsc.jpeg.to_zigzag, 0.5),
    Call("jpeg.from_zigzag", lambda r: {"coefficients": rand(r, 3, 64)}, jsc.jpeg.from_zigzag, 0.5),
    Call("jpeg.save, load, read_tables", save_arguments, save_and_load),
    Call("jpeg.load", lambda r: {"file": io.BytesIO(b"\xff\xd8")}, jsc.jpeg.load, 0.3),
    Call("jpeg.read_tables", lambda r: {"file": io.BytesIO(b"")}, jsc.jpeg.read_tables, 0.3),
    Call(
        "jpeg.decoded",
        lambda r: {"x": image(r), "tables": steps(r), **some(r, subsampling="4:2:0", peak=255)},
        jsc.jpeg.decoded,
    ),
    Call("jpeg.sensitivity", sensitivity_arguments, jsc.jpeg.sensitivity, 0.3),
    Call(
        "jpeg.param_groups",
        lambda r: {
            "model": nn.Sequential(jsc.nn.JPEG(), nn.Linear(2, 2)),
            "lr": 0.1,
            "table_lr": 1.0,
            **some(r, weight_decay=0.05),
        },
        jsc.jpeg.param_groups,
        0.3,
    ),
    Call(
        "jpeg.mean_absolute",
        lambda r: {"loader": loader(r), **some(r, mean=0.5, std=2.0)},
        jsc.jpeg.mean_absolute,
        0.3,
    ),
    Call(
        "jpeg.plot_tables",
        lambda r: {"tables": steps(r), "target": axes(r), **some(r, title="t")},
        jsc.jpeg.plot_tables,
        0.05,
    ),
]
