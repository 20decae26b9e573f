"""JPEG of random quality as an augmentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jsc import _checks
from jsc.functional.jpeg import as_batch, jpeg_with
from jsc.functional.options import JpegOptions
from jsc.jpeg.tables import quality_tables


class RandomJPEG(nn.Module):
    """JPEG artefacts of a random quality, for each image by itself: an augmentation.

    (N, 3, H, W) or (N, 1, H, W), or one image without N -> same shape and dtype. Works inside
    `nn.Sequential`, `torchvision.transforms.v2.Compose` (of images alone) and kornia's
    `ImageSequential`, and like their transforms in `eval` mode too.

    Parameters
    ----------
    quality : int, or (least, most)
        From 1 to 100 as in libjpeg, both ends included, each whole number as likely.
    p : float
        Probability that an image is compressed at all.
    same_on_batch : bool
        One draw for the whole batch, and not one for each image.
    generator : torch.Generator, optional
        On the CPU. Torch's own when left out, which a DataLoader seeds anew in each worker; copies
        of one given here draw the same numbers in all workers.
    alpha, kappa : float, optional
        Sharpness or hardness of the soft quantiser, as in :func:`jsc.functional.jpeg`.
    **options
        Of :class:`jsc.functional.JpegOptions`: `subsampling`, `mean`, `std`, `peak`, ...
        `quantizer` is "hard" when left out: what a file does. With "ste" or "soft" gradients flow
        to the images.

    Raises
    ------
    TypeError, ValueError  if an argument does not fit.

    Notes
    -----
    The result is clipped to the range of pixels, [0, peak]. uint8 images have `peak` 255, no `mean`
    and `std`, and are rounded; :func:`jsc.jpeg.decoded` gives libjpeg's very bits.
    Each image is one call of the layer, since each has tables of its own.

    Examples
    --------
    >>> augment = torch.nn.Sequential(jsc.nn.RandomJPEG((30, 95), p=0.5, subsampling="4:2:0"))
    >>> y = augment(torch.rand(8, 3, 64, 64))
    """

    def __init__(
        self,
        quality: int | Sequence[int] = (30, 95),
        p: float = 1.0,
        *,
        same_on_batch: bool = False,
        generator: torch.Generator | None = None,
        alpha: float = 5.0,
        kappa: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.quality = _checks.pair(quality, "quality", 1)
        if not self.quality[0] <= self.quality[1] <= 100:
            raise ValueError(
                "quality must be an int from 1 to 100, or (least, most) of them; "
                f"got {_checks.shown(quality)}"
            )
        self.p = _checks.number(p, "p")
        if not 0 <= self.p <= 1:
            raise ValueError(f"p must be a probability, from 0 to 1, got {_checks.shown(p)}")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(
                f"generator must be a torch.Generator or None, got {_checks.shown(generator)}"
            )
        self.same_on_batch, self.generator = bool(same_on_batch), generator
        self.options = JpegOptions(**{"quantizer": "hard", **options})
        self.alpha = _sharpness(alpha, "alpha")
        self.kappa = None if kappa is None else _sharpness(kappa, "kappa")

    def forward(self, x: Tensor) -> Tensor:
        _checks.require_tensor(x, "x")
        images = as_batch(x)
        if images.dtype == torch.uint8:
            options = dataclasses.replace(self.options, peak=255.0, mean=None, std=None)
            images = images.float()
        else:
            options = self.options
            _checks.as_computed(images, "x")  # an error in words, also where nothing is drawn
        drawn = self._draw(len(images))
        low, high = (_limit(options, images, pixel) for pixel in (0.0, options.peak))
        out = []
        for i, quality in enumerate(drawn):
            image = images[i : i + 1]
            if quality is None:
                out.append(image)
                continue
            with torch.device("cpu"):  # whatever the default device is
                tables = quality_tables(quality, torch.float64)
            tables = tables.to(image)
            y = jpeg_with(options, image, tables, self.alpha, self.kappa, self.generator)
            out.append(y.clamp(low, high))
        y = torch.cat(out) if out else images
        if x.dtype == torch.uint8:
            y = y.round()
        return y.to(x.dtype).view(x.shape)

    def _draw(self, count: int) -> list[int | None]:
        """The quality of each image, None where it stays as it is."""
        least, most = self.quality
        draws = 1 if self.same_on_batch else count
        source: Any = {"generator": self.generator, "device": "cpu"}
        chosen = torch.rand(draws, **source) < self.p
        qualities = torch.randint(least, most + 1, (draws,), **source)
        drawn = [
            quality if yes else None
            for quality, yes in zip(qualities.tolist(), chosen.tolist(), strict=True)
        ]
        return drawn * count if self.same_on_batch else drawn

    def extra_repr(self) -> str:
        return f"quality={self.quality}, p={self.p}, {self.options.shown()}"


def _sharpness(value: float, name: str) -> float:
    if not _checks.number(value, name) >= 0:
        raise ValueError(f"{name} must not be negative, got {_checks.shown(value)}")
    return value


def _limit(options: JpegOptions, images: Tensor, pixel: float) -> Tensor:
    """(C, 1, 1): `pixel`, normalised as the images are."""
    means, stds = options.normalisation(images.shape[1])
    values = [(pixel - m) / s for m, s in zip(means, stds, strict=True)]
    return torch.tensor(values, dtype=images.dtype, device=images.device).view(-1, 1, 1)
