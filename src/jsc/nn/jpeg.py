"""The JPEG layer and its parts as modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jsc import _checks
from jsc.functional.dct import block_dct, block_idct
from jsc.functional.jpeg import jpeg, normalisation, require_options
from jsc.functional.quant import SMALLEST_STEP, check_window, require_broadcast, soft_quantize
from jsc.functional.rate import jpeg_rate
from jsc.jpeg.decoded import decoded
from jsc.jpeg.tables import from_zigzag, quality_tables

# The whole operator of the authors' code (github.com/JpegInspiredDl/JPEG-Inspired-DL, 071650f):
# images in [0, 255], levels -127..127 of which the five nearest count, Cb and Cr moved by 0.5,
# mid-grey padding.
PRESETS: dict[str, dict[str, Any]] = {
    "jpeg-dl": {
        "alpha": 5.0, "window": 5, "levels": 127,
        "chroma_offset": 0.5, "padding": "zero", "peak": 255.0,
    },
}  # fmt: skip


class _Hardness(nn.Module):
    """Holds alpha or kappa: a buffer of that name, or the Parameter log_<name> if trained."""

    def _register_hardness(
        self, alpha: Tensor | float, kappa: Tensor | float | None, train: bool, dtype: torch.dtype
    ) -> None:
        self.hardness_name = "alpha" if kappa is None else "kappa"
        value = _as_tensor(alpha if kappa is None else kappa, self.hardness_name, dtype)
        if not bool((value >= 0).all()) or (train and not bool((value > 0).all())):
            raise ValueError(
                f"{self.hardness_name} must not be negative, positive if it is trained; "
                f"got {_checks.shown(value)}"
            )
        if train:
            setattr(self, f"log_{self.hardness_name}", nn.Parameter(value.log()))
        else:
            self.register_buffer(self.hardness_name, value)

    def _hardness(self) -> dict[str, Any]:
        log = self._parameters.get(f"log_{self.hardness_name}")
        return {self.hardness_name: getattr(self, self.hardness_name) if log is None else log.exp()}


class JPEG(_Hardness):
    """A trainable JPEG encoder and decoder in front of a network (see :func:`jsc.functional.jpeg`).

    (N, 3, H, W) or (N, 1, H, W) -> same shape, any H and W, float32 or float64.

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
    The others are those of :func:`jsc.functional.jpeg`.

    Attributes
    ----------
    tables : Parameter, (2, 8, 8), or (K, 2, 8, 8)
        Trained as they are, as in the paper, so that learning rates carry over. They cannot become
        unusable: the operator reads max(tables, 1e-5), and passes to an entry below that floor only
        gradients that lift it, so none gets stuck or runs away. Nothing is changed in place.

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
        quantizer: str = "soft",
        window: int | None = None,
        levels: int | None = None,
        subsampling: str = "4:4:4",
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        peak: float = 1.0,
        chroma_offset: float = 0.0,
        padding: str = "replicate",
        train_alpha: bool = False,
    ) -> None:
        super().__init__()
        require_options(quantizer, subsampling, padding, peak, chroma_offset)
        window, levels = check_window(window, levels)
        mean, std = _normalisation(mean, std)
        tables = quality_tables(50, torch.get_default_dtype()) if tables is None else tables
        _checks.require_tensor(tables, "tables")
        tables = _repeated(tables, rounds)
        if not bool(((tables > 0) & tables.isfinite()).all()):
            raise ValueError("tables must be positive and finite")
        dtype = tables.dtype if tables.is_floating_point() else torch.get_default_dtype()
        self.tables = nn.Parameter(
            tables.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)
        )
        self._register_hardness(alpha, kappa, train_alpha, dtype)
        for name, value in self._hardness().items():
            require_broadcast(value, name, tables.shape, "tables")
        self.options: dict[str, Any] = {
            "quantizer": quantizer, "window": window, "levels": levels, "subsampling": subsampling,
            "mean": mean, "std": std, "peak": float(peak), "chroma_offset": float(chroma_offset),
            "padding": padding,
        }  # fmt: skip

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
        if not bool((s > 0).all()) or not bool(s.isfinite().all()):
            raise ValueError("s must be positive and finite; measure it on more images")
        inverse = torch.stack([1 / s[0], 2 / (s[1] + s[2])])
        return cls((q_max / inverse[0].max() * inverse).to(torch.get_default_dtype()), **options)

    @classmethod
    def from_mean_absolute(
        cls, m: Tensor, bits: int = 8, *, dc_as_first_ac: bool = False, **options: Any
    ) -> JPEG:
        """q = 2 m / sqrt(2^(bits - 1)) with the mean absolute coefficients m of
        :func:`jsc.jpeg.mean_absolute`, Cb and Cr pooled (LSQ, Esser et al., ICLR 2020).

        `dc_as_first_ac` gives DC the step of the AC coefficient beside it, as the authors' code
        does unless it sets a smallest step."""
        if not _checks.is_whole(bits) or not 1 <= bits <= 32:
            raise ValueError(f"bits must be an int from 1 to 32, got {_checks.shown(bits)}")
        m = _three_planes(m, "m")
        pooled = torch.stack([m[0], (m[1] + m[2]) / 2])
        steps = (2 * pooled / 2 ** ((bits - 1) / 2)).clamp(min=SMALLEST_STEP)
        if dc_as_first_ac:
            steps[:, 0, 0] = steps[:, 0, 1]
        return cls(steps.to(torch.get_default_dtype()), **options)

    @classmethod
    def preset(cls, name: str, tables: Tensor | None = None, **options: Any) -> JPEG:
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
        return jpeg(x, self.tables, **self._hardness(), generator=generator, **self.options)

    def rate(self, x: Tensor) -> Tensor:
        """Bits per pixel of a batch, differentiable: train with `loss + lam * layer.rate(x)`. See
        :func:`jsc.functional.jpeg_rate`; `x` is what the layer takes."""
        return jpeg_rate(x, self.tables, **self._hardness(), **self.options)

    def decoded(self, x: Tensor) -> Tensor:
        """What the network sees if its images come from real JPEG files with `quant_tables()`: this
        layer with hard rounding and 8-bit pixels, bit for bit as libjpeg. No gradient. See
        :func:`jsc.jpeg.decoded`."""
        options = {k: self.options[k] for k in ("subsampling", "mean", "std", "peak")}
        return decoded(x, self.quant_tables(), **options)

    def quant_tables(self) -> Tensor:
        """(2, 8, 8) int64: the tables rounded to what a baseline JPEG file can hold, 1 to 255. Of
        several rounds those of the last, whose multiples the coefficients end on."""
        last = self.tables.detach().view(-1, 2, 8, 8)[-1]
        return last.round().clamp(1, 255).to(torch.int64)

    def extra_repr(self) -> str:
        shown = {k: v for k, v in self.options.items() if v is not None}
        trained = f"log_{self.hardness_name}" in self._parameters
        rounds = [f"rounds={len(self.tables)}"] if self.tables.ndim == 4 else []
        return ", ".join(
            [
                *rounds,
                f"{'trained' if trained else 'fixed'} {self.hardness_name}",
                *(f"{k}={v!r}" for k, v in shown.items()),
            ]
        )


class SoftQuantizer(_Hardness):
    """:func:`jsc.functional.soft_quantize` with trainable steps.

    Parameters
    ----------
    q : float or Tensor
        Initial steps, broadcastable to the input; kept as the Parameter `q` and used as max(q,
        1e-5).
    alpha, kappa, train_alpha : as in :class:`JPEG`
    window, levels : as in :func:`jsc.functional.soft_quantize`
    """

    def __init__(
        self,
        q: Tensor | float = 1.0,
        *,
        alpha: Tensor | float = 5.0,
        kappa: Tensor | float | None = None,
        window: int | None = None,
        levels: int | None = None,
        train_alpha: bool = False,
    ) -> None:
        super().__init__()
        window, levels = check_window(window, levels)
        floating = isinstance(q, Tensor) and q.is_floating_point()
        dtype = q.dtype if floating else torch.get_default_dtype()  # type: ignore[union-attr]
        self.q = nn.Parameter(_as_tensor(q, "q", dtype))
        if not bool(((self.q > 0) & self.q.isfinite()).all()):
            raise ValueError("q must be positive and finite")
        self._register_hardness(alpha, kappa, train_alpha, dtype)
        self.window, self.levels = window, levels

    def forward(self, z: Tensor) -> Tensor:
        return soft_quantize(z, self.q, **self._hardness(), window=self.window, levels=self.levels)

    def extra_repr(self) -> str:
        size = tuple(self.q.shape)
        return f"q={size}, {self.hardness_name}, window={self.window}, levels={self.levels}"


class BlockDCT(nn.Module):
    """:func:`jsc.functional.block_dct`: (N, C, H, W) -> (N, C, H / 8, W / 8, 8, 8)."""

    def forward(self, x: Tensor) -> Tensor:
        return block_dct(x)


class InverseBlockDCT(nn.Module):
    """:func:`jsc.functional.block_idct`: (N, C, H / 8, W / 8, 8, 8) -> (N, C, H, W)."""

    def forward(self, z: Tensor) -> Tensor:
        return block_idct(z)


def _as_tensor(value: Tensor | float, name: str, dtype: torch.dtype) -> Tensor:
    """A copy of a tensor, or of a number."""
    if not isinstance(value, Tensor):
        return torch.tensor(_checks.number(value, name, "a number or a tensor"), dtype=dtype)
    return value.detach().to(dtype, copy=True)


def _normalisation(mean: Any, std: Any) -> tuple[Any, Any]:
    """What `normalisation` takes, in numbers of Python's: each None, a number or a tuple."""
    count = {len(v) for v in (mean, std) if isinstance(v, (tuple, list))} or {1}
    means, stds = normalisation(mean, std, max(count) or 1)  # () is refused in words
    return tuple(
        given if given is None else tuple(v) if isinstance(given, (tuple, list)) else v[0]
        for given, v in ((mean, means), (std, stds))
    )  # type: ignore[return-value]


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
