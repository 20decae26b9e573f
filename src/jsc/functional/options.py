"""The options of the JPEG layer as one value: this module alone checks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Real

from jsc import _checks
from jsc.ops._torch_jpeg import Settings
from jsc.ops.quant import MODES, WINDOWS
from jsc.typing import ImagePadding, Quantizer, Subsampling

SUBSAMPLINGS = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}  # vertical, horizontal
PADDINGS = ("replicate", "zero")
# Of std * 255 / peak, its inverse, and means in these units: float32 holds grey levels times these.
LEAST, MOST = 1e-35, 1e35

Scale = float | Sequence[float] | None  # of `mean` and `std`, as a caller may give them


@dataclass(frozen=True, kw_only=True, repr=False)
class JpegOptions:
    """Everything that says what the JPEG layer computes, besides its tables and their sharpness.

    :func:`jsc.functional.jpeg` says what each option means. The value cannot be changed; it can be
    compared, hashed, pickled, and copied with other options by `dataclasses.replace`, which checks
    again. Its fields are what was given, in Python's own numbers: `mean` and `std` are None, a
    float, or a tuple of one or three floats.

    The number of rounds is no option: it is the length of the tables.

    Raises
    ------
    TypeError   if an option is of the wrong type.
    ValueError  if an option does not exist or a number is out of range.

    Examples
    --------
    >>> options = JpegOptions(subsampling="4:2:0", mean=0.5)
    >>> dataclasses.replace(options, quantizer="hard")
    JpegOptions(quantizer='hard', subsampling='4:2:0', mean=0.5, peak=1.0, chroma_offset=0.0, ...
    """

    quantizer: Quantizer = "soft"
    window: int | None = None
    levels: int | None = None
    subsampling: Subsampling = "4:4:4"
    mean: Scale = None
    std: Scale = None
    peak: float = 1.0
    chroma_offset: float = 0.0
    padding: ImagePadding = "replicate"

    def __post_init__(self) -> None:
        for value, name, known in (
            (self.quantizer, "quantizer", MODES),
            (self.subsampling, "subsampling", SUBSAMPLINGS),
            (self.padding, "padding", PADDINGS),
        ):
            if not isinstance(value, str) or value not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}; got {_checks.shown(value)}"
                )
        window, levels = check_window(self.window, self.levels)
        peak = _checks.number(self.peak, "peak")
        if not peak > 0:
            raise ValueError(
                "peak must be positive: 1 for images in [0, 1], 255 for [0, 255]; "
                f"got {_checks.shown(self.peak)}"
            )
        put = object.__setattr__  # the class is frozen
        put(self, "window", window)
        put(self, "levels", levels)
        put(self, "peak", peak)
        put(self, "chroma_offset", _checks.number(self.chroma_offset, "chroma_offset"))
        if self.mean is not None or self.std is not None:
            mean, std = _checked_scales(self.mean, self.std)
            put(self, "mean", mean)
            put(self, "std", std)
        _require_scales_of_float32(self.mean, self.std, peak)

    def normalisation(self, channels: int) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each of `channels` channels."""
        return (
            _each_channel(self.mean, "mean", channels, 0.0),
            _each_channel(self.std, "std", channels, 1.0),
        )

    def settings(self, channels: int) -> Settings:
        """The options as operators take them, for images of `channels` channels."""
        mean, std = self.normalisation(channels)
        v, u = SUBSAMPLINGS[self.subsampling] if channels == 3 else (1, 1)
        return Settings(
            MODES[self.quantizer], self.window or 0, self.levels or 0, v, u,
            self.padding == "zero", mean, std, self.peak, self.chroma_offset,
        )  # fmt: skip

    def shown(self) -> str:
        """The options as arguments of a call, without those that are None."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ", ".join(f"{name}={value!r}" for name, value in values if value is not None)

    def __repr__(self) -> str:
        return f"JpegOptions({self.shown()})"


def check_window(window: int | None, levels: int | None) -> tuple[int | None, int | None]:
    """The window and the last level of a quantiser as Python's integers, or an error in words."""
    if levels is not None and (not _checks.is_whole(levels) or not 1 <= levels < 2**31):
        raise ValueError(
            f"levels must be None or an int from 1 to 2^31 - 1, got {_checks.shown(levels)}"
        )
    levels = None if levels is None else int(levels)
    if window is None:
        return None, levels
    if not _checks.is_whole(window) or window not in WINDOWS:
        raise ValueError(
            f"window must be None or an odd int from {WINDOWS[0]} to {WINDOWS[-1]}, "
            f"got {_checks.shown(window)}"
        )
    if levels is not None and 2 * levels + 1 < window:
        raise ValueError(
            f"a window of {window} levels does not fit into -{levels}..{levels}; use fewer"
        )
    return int(window), levels


def _checked_scales(mean: Scale, std: Scale) -> tuple[Scale, Scale]:
    """Each None, a float or a tuple of floats; tuples are as long as there are channels."""
    sizes = {len(v) for v in (mean, std) if isinstance(v, Sequence)}
    channels = 1 if sizes == {1} else 3
    mean, std = _checked_scale(mean, "mean", channels), _checked_scale(std, "std", channels)
    if std is not None and not all(s > 0 for s in (std if isinstance(std, tuple) else (std,))):
        raise ValueError(f"std must be positive, got {_checks.shown(std)}")
    return mean, std


def _require_scales_of_float32(mean: Scale, std: Scale, peak: float) -> None:
    """What float32 cannot hold would silently make every pixel NaN or infinite."""
    means, stds = (v if isinstance(v, tuple) else (v,) for v in (mean, std))
    scales = [255 / peak, *(s * 255 / peak for s in stds if s is not None)]
    if not all(LEAST <= scale <= MOST for scale in scales):
        raise ValueError(
            f"peak and std must be such that 255 / peak and std * 255 / peak are from {LEAST} to "
            f"{MOST}, which float32 can hold; got peak={peak} and std={_checks.shown(std)}"
        )
    smallest = min(1.0 if s is None else s for s in stds)
    if not all(abs(m) <= MOST * min(smallest, peak / 255) for m in means if m is not None):
        raise ValueError(
            f"mean must be such that mean / std and mean * 255 / peak are at most {MOST}, which "
            f"float32 can hold; got {_checks.shown(mean)}"
        )


def _checked_scale(value: Scale, name: str, channels: int) -> float | tuple[float, ...] | None:
    if value is None:
        return None
    if isinstance(value, (int, float, Real)):
        return _checks.number(value, name)
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or len(value) != channels:
        raise (ValueError if isinstance(value, (tuple, list)) else TypeError)(
            _per_channel(name, channels, value)
        )
    return tuple(_checks.number(v, name) for v in value)


def _each_channel(value: Scale, name: str, channels: int, default: float) -> list[float]:
    """A checked `value` as one number for each channel of an image."""
    if not isinstance(value, tuple):
        return [default if value is None else value] * channels  # type: ignore[list-item]
    if len(value) != channels:
        raise ValueError(_per_channel(name, channels, value))
    return list(value)


def _per_channel(name: str, channels: int, value: object) -> str:
    return (
        f"{name} must be a number or {channels} numbers, one per channel, "
        f"got {_checks.shown(value)}"
    )
