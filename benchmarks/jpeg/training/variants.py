"""What stands in front of the network in each variant of the comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jsc

AUTHORS = {"alpha": 5.0, "window": 5, "levels": 127, "chroma_offset": 0.5, "padding": "zero"}


class ZeroDC(nn.Module):
    """Takes the mean of every 8x8 block off each channel, as if all DC coefficients were 0.

    (N, C, H, W) -> the same, H and W multiples of 8; a block without contrast becomes 0.5.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x - F.interpolate(F.avg_pool2d(x, 8), scale_factor=8, mode="nearest") + 0.5


def blurred(x: Tensor, deviation: float = 4.0) -> Tensor:
    """(N, C, H, W) by a Gaussian of `deviation` pixels, edges repeated."""
    reach = int(2 * deviation)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=x.dtype) / deviation) ** 2)
    taps = taps / taps.sum()
    count = x.shape[1]
    x = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    x = F.conv2d(x, taps.view(1, 1, 1, -1).expand(count, 1, 1, -1), groups=count)
    return F.conv2d(x, taps.view(1, 1, -1, 1).expand(count, 1, -1, 1), groups=count)


class HighPass(nn.Module):
    """Takes a blurred copy off, about as wide as a block: (N, C, H, W) -> the same around 0.5."""

    def forward(self, x: Tensor) -> Tensor:
        return x - blurred(x) + 0.5


FILTERS = {"high-pass": HighPass, "local contrast": jsc.nn.LocalContrast}


@dataclass(frozen=True)
class Variant:
    """A layer and how its tables are trained.

    start : "sensitivity", "root sensitivity" (steps as 1 / sqrt(S)), "ones", "quality 50", or ""
        for no table at all
    options : of `jsc.nn.JPEG`
    rate : learning rate of the tables (Adam), 0 to leave them as they are
    zero_dc : take the block means off before
    filter : another fixed filter before, of FILTERS
    """

    text: str
    start: str = ""
    q_max: float = 5.0
    rate: float = 0.0
    zero_dc: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    filter: str = ""

    def recipe(self) -> dict[str, Any]:
        """All that determines a training, as plain values: what names a finished run. `filter` is
        younger than the runs without one, which keep their names."""
        found = asdict(self)
        return {k: v for k, v in found.items() if k != "text" and not (k == "filter" and not v)}

    def build(self, sensitivity: Callable[[], Tensor]) -> nn.Module:
        """The layer, images in [0, 1] to images; `sensitivity` is called if it is needed."""
        parts: list[nn.Module] = [ZeroDC()] if self.zero_dc else []
        parts += [FILTERS[self.filter]()] if self.filter else []
        if self.start:
            parts.append(self._jpeg(sensitivity))
        return nn.Sequential(*parts)

    def _jpeg(self, sensitivity: Callable[[], Tensor]) -> jsc.nn.JPEG:
        if self.start.endswith("sensitivity"):
            s = sensitivity()
            s = s.clamp_min(s.max() * 1e-9)  # a coefficient that nothing depends on
            s = s.sqrt() if self.start.startswith("root") else s
            layer = jsc.nn.JPEG.from_sensitivity(s, self.q_max, **self.options)
        elif self.start == "ones":
            layer = jsc.nn.JPEG(torch.ones(2, 8, 8), **self.options)
        elif self.start.startswith("quality "):
            layer = jsc.nn.JPEG.from_quality(int(self.start.split()[1]), **self.options)
        else:
            raise ValueError(
                f"start must be 'sensitivity', 'ones', 'quality Q' or ''; got {self.start!r}"
            )
        layer.tables.requires_grad_(self.rate > 0)
        return layer


RECIPE: dict[str, Any] = {"alpha": 5.0, "levels": 127}
MEASURED = "sensitivity"

MAIN = {
    "standard": Variant("the network alone"),
    "jpeg-dl": Variant(
        "sensitivity start, q_max 5, alpha 5, exact quantizer, 127 levels, Adam .003",
        MEASURED,
        rate=0.003,
        options=RECIPE,
    ),
    "saturation": Variant(
        "jpeg-dl's first tables, clamped to 127 levels, no rounding (kappa .001), not trained",
        MEASURED,
        options={"kappa": 1e-3, "levels": 127},
    ),
    "fixed tables": Variant("jpeg-dl, tables not trained", MEASURED, options=RECIPE),
    "local contrast": Variant(
        "high-pass over the local deviation, no quantizer", filter="local contrast"
    ),
}
CONTROLS = {
    "zero-dc": Variant("block means taken off, no quantizer", zero_dc=True),
    "high-pass": Variant("a Gaussian blur taken off (4 pixels), no quantizer", filter="high-pass"),
    "no saturation": Variant(
        "jpeg-dl without a limit on levels", MEASURED, rate=0.003, options={"alpha": 5.0}
    ),
    "authors": Variant(
        "authors' operator: window 5, as jpeg-dl else", MEASURED, rate=0.003, options=AUTHORS
    ),
    "ones": Variant("jpeg-dl from all-ones tables", "ones", rate=0.003, options=RECIPE),
    "quality 50": Variant(
        "JPEG's tables, kappa 2, not trained", "quality 50", options={"kappa": 2.0}
    ),
    "quality 50, trained": Variant(
        "JPEG's tables, kappa 2, trained", "quality 50", rate=0.05, options={"kappa": 2.0}
    ),
    "zero-dc, trained": Variant(
        "jpeg-dl behind zero-dc, no limit on levels",
        MEASURED,
        rate=0.003,
        zero_dc=True,
        options={"alpha": 5.0},
    ),
}
PILOTS = {
    "15 levels": Variant(
        "jpeg-dl with 15 levels", MEASURED, rate=0.003, options={"alpha": 5.0, "levels": 15}
    ),
    "q_max 20": Variant(
        "jpeg-dl, largest step of Y 20", MEASURED, q_max=20.0, rate=0.003, options=RECIPE
    ),
    "quality 20, trained": Variant(
        "JPEG's tables of quality 20, kappa 2", "quality 20", rate=0.05, options={"kappa": 2.0}
    ),
    "root": Variant(
        "steps as 1 / sqrt(S), largest of Y 20, no limit on levels",
        "root sensitivity",
        q_max=20.0,
        rate=0.003,
        options={"alpha": 5.0},
    ),
}
VARIANTS = MAIN | CONTROLS | PILOTS


def name_of(recipe: dict[str, Any]) -> str | None:
    """The variant with this recipe; None where there is none."""
    for name, variant in VARIANTS.items():
        if variant.recipe() == recipe:
            return name
    return None
