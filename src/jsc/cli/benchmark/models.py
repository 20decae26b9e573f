"""Models by name, and what they are given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jsc.cli.extras import PICTURES, MissingExtraError, need, picture
from jsc.cli.tune import load_model

SIZE = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Loaded = tuple[nn.Module, int, str | None]  # model, pixels a side, keyword of the image


def load(text: str) -> Loaded:
    """The model in eval mode, the size of its images, and the keyword that takes them, if any."""
    source, _, name = text.partition(":")
    torch.manual_seed(0)
    if source in SOURCES and name:
        model, size, key = SOURCES[source](name)
    else:
        model, size, key = load_model(text), SIZE, None
    return model.eval().requires_grad_(False), size, key


def _import(package: str) -> Any:
    try:
        return need(package, package, "bench", f"{package}:NAME")
    except MissingExtraError as error:
        raise MissingExtraError(
            f"{str(error).partition('; install')[0]}: pip install {package}"
        ) from None


def _timm(name: str) -> Loaded:
    timm = _import("timm")
    if name not in timm.list_models():
        raise ValueError(f"timm has no model {name!r}")
    model = timm.create_model(name, pretrained=False)
    return model, int(model.pretrained_cfg.get("input_size", (3, SIZE, SIZE))[-1]), None


def _torchvision(name: str) -> Loaded:
    models = _import("torchvision").models
    if name not in models.list_models():
        raise ValueError(f"torchvision has no model {name!r}")
    backbone = name in models.list_models(models.segmentation)
    backbone = backbone or name in models.list_models(models.detection)
    options = {"weights_backbone": None} if backbone else {}
    return models.get_model(name, weights=None, **options), SIZE, None


def _transformers(name: str) -> Loaded:
    transformers = _import("transformers")
    made = getattr(transformers, name, None)
    if made is None or getattr(made, "config_class", None) is None:
        raise ValueError(f"transformers has no model class {name!r}")
    config = made.config_class()
    size = getattr(config, "image_size", None)
    size = size[-1] if isinstance(size, (list, tuple)) else size
    return made(config), int(size or SIZE), str(made.main_input_name)


SOURCES: dict[str, Callable[[str], Loaded]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "transformers": _transformers,
}


def sample_of(batch: int, channels: int, size: int, images: Path | None) -> Tensor:
    """Images of a folder, scaled as ImageNet's are, or noise."""
    if images is None:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch, channels, size, size, generator=generator)
    files = sorted(f for f in images.rglob("*") if f.suffix.lower() in PICTURES)
    if not files:
        raise FileNotFoundError(f"there are no images ({', '.join(PICTURES)}) in {images}")
    if channels not in (1, 3):
        raise ValueError(f"--images has images of 1 or 3 channels, not {channels}")
    found = []
    for i in range(batch):
        image = picture(files[i % len(files)], "RGB" if channels == 3 else "L", "--images")
        pixels = image.resize((size, size))
        array = np.asarray(pixels, dtype=np.float32).reshape(size, size, channels) / 255
        scaled = (array - MEAN[:channels]) / DEVIATION[:channels]
        found.append(torch.from_numpy(scaled.astype(np.float32)).permute(2, 0, 1))
    return torch.stack(found).contiguous()
