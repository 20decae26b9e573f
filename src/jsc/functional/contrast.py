"""Local contrast: pixels less their surroundings, over the deviation there."""

from __future__ import annotations

import torch
from torch import Tensor

from jsc import _checks
from jsc.functional.dct import kernel_runs
from jsc.functional.jpeg import as_batch, laid_out_as
from jsc.functional.options import JpegOptions, Scale
from jsc.ops.contrast import MOST_DEVIATION, LocalContrast, Settings, plain


def local_contrast(
    x: Tensor,
    deviation: float = 4.0,
    *,
    gain: float = 0.2,
    epsilon: float = 0.05,
    mean: Scale = None,
    std: Scale = None,
    peak: float = 1.0,
) -> Tensor:
    """Local contrast normalisation of images [1, 2], channel by channel.

        v = p - G p,    out = peak / 2 + gain peak v / (sqrt(G v^2) + epsilon peak)

    with p the pixels in [0, peak] and G a Gaussian blur, cut off at two deviations, that repeats
    the image's edge. Brightness and slow changes of it are taken away, and detail is as strong in
    dark places as in bright ones; what is weaker than `epsilon` stays weak.

    Parameters
    ----------
    x : Tensor, (N, 3, H, W) or (N, 1, H, W), or one image without N; any H, W and strides
        In [0, peak], then normalised with `mean` and `std` if those are given. float32 or float64;
        float16 and bfloat16 are computed in float32, and rounded at the end.
    deviation : float, from 0.5 to 64
        Of the Gaussian, in pixels.
    gain : float
        How far the result spreads around the middle, over the peak: about one standard deviation.
    epsilon : float, > 0
        Contrast, over the peak, that counts as half of a strong one.
    mean, std : float or one per channel, optional
        Of the normalisation of `x` and of the result: x = (pixel - mean) / std.
    peak : float
        Value of white: 1, or 255.

    Returns
    -------
    Tensor, shape, dtype and memory format of `x`. Not clipped to [0, peak]. Inside autocast, half
    precision gives float32.

    Raises
    ------
    TypeError   if an argument is of the wrong type or dtype.
    ValueError  if a shape does not fit or a number is out of range.

    Notes
    -----
    Gradient: x, in one pass over memory that keeps only x. Second derivatives are computed in plain
    torch, slowly; forward mode is refused. `torch.compile`, `torch.export`, `torch.fx` and
    `torch.func` take it as it is; `torch.jit.trace` and `torch.onnx.export` write down torch's own
    operators. On devices other than the CPU it is plain torch.
    Cost: some 17 multiply-adds a pixel for each deviation of 4, forward four times and backward
    eight. The same bits for any number of threads and any split of the batch. A NaN reaches the
    pixels within four deviations.

    References
    ----------
    [1] N. Pinto, D. D. Cox, J. J. DiCarlo, "Why is Real-World Visual Object Recognition Hard?",
        PLoS Computational Biology, 2008.
    [2] K. Jarrett, K. Kavukcuoglu, M. Ranzato, Y. LeCun, "What is the Best Multi-Stage Architecture
        for Object Recognition?", ICCV 2009 (there over all channels together).

    Examples
    --------
    >>> x = torch.rand(8, 3, 224, 224)
    >>> jsc.functional.local_contrast(x).shape
    torch.Size([8, 3, 224, 224])
    """
    _checks.require_tensor(x, "x")
    images = as_batch(_checks.as_computed(x, "x"))
    settings = settings_of(images.shape[1], deviation, gain, epsilon, mean, std, peak)
    if kernel_runs(images):
        y = LocalContrast.call(images, settings)
    else:
        with torch.autocast(images.device.type, enabled=False):
            y = plain(images, settings)
    y = laid_out_as(images, y.to(_checks.result_dtype(x)))
    return y if x.ndim == 4 else y.squeeze(0)


def settings_of(
    channels: int,
    deviation: float,
    gain: float,
    epsilon: float,
    mean: Scale,
    std: Scale,
    peak: float,
) -> Settings:
    """The options as operators take them, checked: y = offset + scale v / (s + epsilon), of x."""
    deviation = _checks.number(deviation, "deviation")
    if not 0.5 <= deviation <= MOST_DEVIATION:
        raise ValueError(
            f"deviation must be from 0.5 to {MOST_DEVIATION} pixels, got {deviation}; "
            "for a wider one, take smaller images"
        )
    gain, epsilon = _checks.number(gain, "gain"), _checks.number(epsilon, "epsilon")
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}: flat images would divide by 0")
    options = JpegOptions(mean=mean, std=std, peak=peak)
    means, deviations = options.normalisation(channels)
    peak = options.peak
    return Settings(
        deviation,
        [(peak / 2 - m) / d for m, d in zip(means, deviations, strict=True)],
        [gain * peak / d for d in deviations],
        [epsilon * peak / d for d in deviations],
    )
