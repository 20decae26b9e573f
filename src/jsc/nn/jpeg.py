"""The JPEG layer as a module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from jsc import _checks
from jsc.functional.jpeg import checked, jpeg_with
from jsc.functional.options import JpegOptions, Scale
from jsc.functional.quant import SMALLEST_STEP, require_broadcast
from jsc.functional.rate import jpeg_rate_with
from jsc.jpeg.decoded import decoded_with
from jsc.jpeg.tables import from_zigzag, quality_tables
from jsc.nn._hardness import Hardness, holds
from jsc.ops._torch_jpeg import from_bytes
from jsc.typing import ImagePadding, Preset, Quantizer, Subsampling

# One node of a graph, each: their checks cannot ask a Proxy.
torch.fx.wrap("jpeg_with")
torch.fx.wrap("jpeg_rate_with")

# The whole operator of the authors' code (github.com/JpegInspiredDl/JPEG-Inspired-DL, 071650f):
# images in [0, 255], levels -127..127 of which the five nearest count, Cb and Cr moved by 0.5,
# mid-grey padding.
PRESETS: dict[str, dict[str, Any]] = {
    "jpeg-dl": {
        "alpha": 5.0, "window": 5, "levels": 127,
        "chroma_offset": 0.5, "padding": "zero", "peak": 255.0,
    },
}  # fmt: skip


class JPEG(Hardness):
    """A trainable JPEG encoder and decoder in front of a network (see :func:`jsc.functional.jpeg`).

    (N, 3, H, W) or (N, 1, H, W), or one image without N -> same shape and dtype, any H and W;
    float32 or float64, or float16 and bfloat16, which are computed in float32. Or 8-bit images,
    with channels first or last -> (N, C, H, W), normalised, in the dtype of the tables.

    Parameters
    ----------
    tables : Tensor, (2, 8, 8) or (K, 2, 8, 8), optional
        Initial quantisation steps of Y, and of Cb and Cr; natural order, grey levels of an 8-bit
        image.
        Annex K of the standard when left out.
    rounds : int, optional
        Rounds of the quantiser, each with tables of its own. (2, 8, 8) tables start all of them;
        (K, 2, 8, 8) already are K rounds.
    alpha, kappa : float or Tensor broadcastable to `tables`
        Sharpness, or hardness alpha q^2 which replaces it: then alpha = kappa / q^2 follows the
        tables. (K, 1, 1, 1) is one number a round.
    train_alpha : bool
        Train log alpha, or log kappa if that was given: one number, or one per entry if given as a
        tensor.
    quantizer, window, levels, subsampling, mean, std, peak, chroma_offset, padding
        As in :func:`jsc.functional.jpeg`.

    Attributes
    ----------
    tables : Parameter, (2, 8, 8), or (K, 2, 8, 8)
        Trained as they are, as in the paper, so that learning rates carry over. They cannot become
        unusable: the operator reads max(tables, 1e-5), and passes to an entry below that floor only
        gradients that lift it, so none runs away. Nothing is changed in place. Where kappa is
        below 0.4 (float64: 0.2) the operator is the identity and its gradient in the step is 0.
    options : JpegOptions
        The options, checked once, here. Assign `dataclasses.replace(layer.options, ...)` to change
        some of them.

    Raises
    ------
    TypeError   if an argument or the input is of the wrong type or dtype.
    ValueError  if a shape does not fit, tables are not positive and finite, or an option does not
                exist.

    Notes
    -----
    `state_dict` holds `tables` and one of `alpha`, `kappa`, `log_alpha`, `log_kappa`; all else that
    determines the output is an argument of the constructor and shown by `repr`.

    Examples
    --------
    >>> layer = jsc.nn.JPEG.from_quality(50, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    >>> model = torch.nn.Sequential(layer, network)
    """

    def __init__(
        self,
        tables: Tensor | None = None,
        *,
        rounds: int | None = None,
        alpha: Tensor | float = 5.0,
        kappa: Tensor | float | None = None,
        quantizer: Quantizer = "soft",
        window: int | None = None,
        levels: int | None = None,
        subsampling: Subsampling = "4:4:4",
        mean: Scale = None,
        std: Scale = None,
        peak: float = 1.0,
        chroma_offset: float = 0.0,
        padding: ImagePadding = "replicate",
        train_alpha: bool = False,
    ) -> None:
        super().__init__()
        self.options = JpegOptions(
            quantizer=quantizer,
            window=window,
            levels=levels,
            subsampling=subsampling,
            mean=mean,
            std=std,
            peak=peak,
            chroma_offset=chroma_offset,
            padding=padding,
        )
        tables = quality_tables(50, torch.get_default_dtype()) if tables is None else tables
        _checks.require_tensor(tables, "tables")
        tables = _repeated(tables, rounds)
        if not holds((tables > 0) & tables.isfinite()):
            raise ValueError("tables must be positive and finite")
        dtype = tables.dtype if tables.is_floating_point() else torch.get_default_dtype()
        self.tables = nn.Parameter(
            tables.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)
        )
        self._register_hardness(alpha, kappa, train_alpha, dtype)
        for name, value in self._hardness().items():
            require_broadcast(value, name, tables.shape, "tables")

    @classmethod
    def from_quality(cls, quality: int, **options: Any) -> JPEG:
        """The tables that libjpeg uses for `quality` 1 to 100."""
        return cls(quality_tables(quality, torch.get_default_dtype()), **options)

    @classmethod
    def from_sensitivity(cls, s: Tensor, q_max: float = 5.0, **options: Any) -> JPEG:
        """Steps in inverse proportion to what :func:`jsc.jpeg.sensitivity` measured, as the authors
        start.

            q_Y = q_max min(S_Y) / S_Y,    q_C = q_max min(S_Y) 2 / (S_Cb + S_Cr)

        so that the largest step of Y is `q_max`; those of chroma may exceed it. `s` is (3, 8, 8) in
        natural or (3, 64) in zig-zag order.
        """
        s, q_max = _three_planes(s, "s"), _checks.number(q_max, "q_max")
        if not holds((s > 0) & s.isfinite()):
            raise ValueError("s must be positive and finite; measure it on more images")
        inverse = torch.stack([1 / s[0], 2 / (s[1] + s[2])])
        return cls((q_max / inverse[0].max() * inverse).to(torch.get_default_dtype()), **options)

    @classmethod
    def from_mean_absolute(
        cls, m: Tensor, bits: int = 8, *, dc_as_first_ac: bool = False, **options: Any
    ) -> JPEG:
        """q = 2 m / sqrt(2^(bits - 1)) with the mean absolute coefficients m of
        :func:`jsc.jpeg.mean_absolute`, (3, 8, 8) or (3, 64) in zig-zag order, Cb and Cr pooled
        (LSQ, Esser et al., ICLR 2020); `bits` from 1 to 32.

        `dc_as_first_ac` gives DC the step of the AC coefficient beside it, as the authors' code
        does unless it sets a smallest step."""
        if not _checks.is_whole(bits) or not 1 <= bits <= 32:
            raise ValueError(f"bits must be an int from 1 to 32, got {_checks.shown(bits)}")
        m = _three_planes(m, "m")
        if not holds(m >= 0):
            raise ValueError("m must be what jsc.jpeg.mean_absolute returns: 0 or more, no NaN")
        pooled = torch.stack([m[0], (m[1] + m[2]) / 2])
        steps = (2 * pooled / 2 ** ((bits - 1) / 2)).clamp(min=SMALLEST_STEP)
        if dc_as_first_ac:
            steps[:, 0, 0] = steps[:, 0, 1]
        return cls(steps.to(torch.get_default_dtype()), **options)

    @classmethod
    def preset(cls, name: Preset, tables: Tensor | None = None, **options: Any) -> JPEG:
        """`"jpeg-dl"`: the operator of the authors' code; `tables` default to ones, `options`
        override.

        It returns images in [0, 255], where the authors' layer also normalises its result.
        """
        if not isinstance(name, str) or name not in PRESETS:
            raise ValueError(
                f"preset must be one of {', '.join(PRESETS)}; got {_checks.shown(name)}"
            )
        return cls(
            torch.ones(2, 8, 8) if tables is None else tables, **{**PRESETS[name], **options}
        )

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return jpeg_with(self.options, x, self.tables, **self._hardness(), generator=generator)

    def rate(self, x: Tensor) -> Tensor:
        """Bits per pixel of a batch, differentiable: train with `loss + lam * layer.rate(x)`. See
        :func:`jsc.functional.jpeg_rate`; `x` is what the layer takes."""
        return jpeg_rate_with(self.options, x, self.tables, **self._hardness())

    def decoded(self, x: Tensor) -> Tensor:
        """What the network sees if its images come from real JPEG files with `quant_tables()`: this
        layer with hard rounding and 8-bit pixels, bit for bit as libjpeg. No gradient. Takes and
        returns what the layer does. See :func:`jsc.jpeg.decoded`."""
        tables = self.quant_tables()
        _checks.require_tensor(x, "x")
        if x.dtype != torch.uint8:
            return decoded_with(self.options, x, tables)
        images, _ = checked(x, self.tables, or_bytes=True)
        settings = self.options.settings(images.shape[1])
        y = from_bytes(decoded_with(self.options, images, tables), settings, self.tables.dtype)
        return y if x.ndim == 4 else y.squeeze(0)

    def quant_tables(self) -> Tensor:
        """(2, 8, 8) int64: the tables rounded to what a baseline JPEG file can hold, 1 to 255. Of
        several rounds those of the last, whose multiples the coefficients end on."""
        last = self.tables.detach().view(-1, 2, 8, 8)[-1]
        if not holds(last.isfinite()):
            raise ValueError("no file can hold tables with NaN or infinity; has training diverged?")
        return last.round().clamp(1, 255).to(torch.int64)

    def extra_repr(self) -> str:
        rounds = [f"rounds={len(self.tables)}"] if self.tables.ndim == 4 else []
        return ", ".join(
            [
                *rounds,
                f"{'trained' if self._trains_hardness() else 'fixed'} {self.hardness_name}",
                self.options.shown(),
            ]
        )


def _repeated(tables: Tensor, rounds: int | None) -> Tensor:
    """Tables as given, or (rounds, 2, 8, 8) made of one set."""
    if tables.ndim not in (3, 4) or tuple(tables.shape[-3:]) != (2, 8, 8) or not len(tables):
        raise ValueError(
            "tables must be (2, 8, 8): steps of Y, and of Cb and Cr; or (K, 2, 8, 8) for K rounds; "
            f"got {tuple(tables.shape)}"
        )
    if rounds is None:
        return tables
    if not _checks.is_whole(rounds) or rounds < 1:
        raise ValueError(f"rounds must be an int of at least 1, got {_checks.shown(rounds)}")
    rounds = int(rounds)
    if tables.ndim == 3:
        return tables if rounds == 1 else tables.expand(rounds, -1, -1, -1)
    if len(tables) != rounds:
        raise ValueError(
            f"tables of {len(tables)} rounds do not fit rounds={rounds}; leave `rounds` out, or "
            "give (2, 8, 8) tables to start all of them"
        )
    return tables


def _three_planes(s: Tensor, name: str) -> Tensor:
    _checks.require_tensor(s, name)
    if s.is_complex():
        raise TypeError(f"{name} must be real, got {s.dtype}")
    if tuple(s.shape) == (3, 64):
        s = from_zigzag(s)
    if tuple(s.shape) != (3, 8, 8):
        raise ValueError(
            f"{name} must be (3, 8, 8) in natural or (3, 64) in zig-zag order, got {tuple(s.shape)}"
        )
    return s.double()
