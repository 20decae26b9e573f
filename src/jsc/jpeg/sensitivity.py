"""Where tables can start from: how a trained network, or the images themselves, depend on each
coefficient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jsc import _checks
from jsc.functional import planes
from jsc.functional.dct import block_idct
from jsc.functional.options import JpegOptions, Scale
from jsc.jpeg.processes import Part, summed
from jsc.typing import Processes


@torch.inference_mode(False)
def sensitivity(
    model: nn.Module,
    loader: Iterable[Any],
    loss: Callable[[Tensor, Any], Tensor],
    *,
    mean: Scale = None,
    std: Scale = None,
    peak: float = 1.0,
    max_images: int | None = None,
    processes: Processes = "share",
    progress: bool = True,
) -> Tensor:
    """How strongly a loss depends on each DCT coefficient of the input, over a data set.

        S[c, m] = 1 / N sum_images sum_blocks (d loss / d Z[c, block, m])^2

    Parameters
    ----------
    model : Module
        Run in eval mode, put back into the mode of each of its parts afterwards. No gradient is
        left behind, and none is needed of its parameters. Under `torch.no_grad` or
        `inference_mode` too.
    loader : iterable of (images, targets, ...)
        Images (N, 3, H, W) as `model` takes them, any H and W.
    loss : callable, (output, targets) -> scalar, the mean over the batch
    mean, std, peak
        Normalisation of the images, as in :func:`jsc.functional.jpeg`.
    max_images : int, optional
        Stop after the batch that reaches this number.
    processes : str
        Where `torch.distributed` is initialised (`torchrun`), who computes what. Unless it is
        "alone", every process has to call this, and every process gets the result.
        "share"  each has the same loader; they take its batches in turn
        "parts"  each has a loader with images of its own, as a DistributedSampler makes it
        "alone"  this process computes everything by itself
    progress : bool
        Show a bar.

    Returns
    -------
    Tensor, (3, 8, 8), float64, in squared units of the loss per squared grey level; natural order;
    Y, Cb, Cr. One running sum: memory does not grow with N. With "share", the bits do not depend on
    the number of processes, provided that each of them has the same number of threads.

    Raises
    ------
    TypeError   if an argument is of the wrong type.
    ValueError  if there are no images, their shape does not fit, or an option does not exist.

    References
    ----------
    A. H. Salamah, K. Zheng, Y. Liu, E.-H. Yang, "JPEG Inspired Deep Learning", ICLR 2025,
    arXiv:2410.07081.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {_checks.shown(model)}")
    if not callable(loss):
        raise TypeError(
            f"loss must be a function (output, targets) -> scalar, got {_checks.shown(loss)}"
        )
    options = JpegOptions(mean=mean, std=std, peak=peak)
    if isinstance(model, nn.parallel.DistributedDataParallel):
        model = model.module  # its own exchange would wait for processes without a batch

    def squares(batch: Any) -> Part:
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise TypeError(f"loader must give (images, targets, ...), got {_checks.shown(batch)}")
        x, target = batch[0], batch[1]
        with torch.enable_grad():
            z = coefficients(x, options).detach().requires_grad_()
            value = loss(model(_pixels(z, x.shape[2:], options).to(x.dtype)), target)
            (gradient,) = torch.autograd.grad(value, z)
        # of the loss of one image, not of the mean over its batch (the last may be smaller)
        gradient = gradient.double() * x.shape[0]
        return Part(gradient.square().sum((0, 2, 3)).cpu(), x.shape[0], 0)

    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        found = summed("sensitivity", loader, squares, max_images, processes, progress)
    finally:
        for module, training in modes.items():
            module.training = training
    return found.total / found.images


def mean_absolute(
    loader: Iterable[Any],
    *,
    mean: Scale = None,
    std: Scale = None,
    peak: float = 1.0,
    max_images: int | None = None,
    processes: Processes = "share",
    progress: bool = True,
) -> Tensor:
    """Mean `|Z[c, m]|` over images and blocks, in grey levels of an 8-bit image: (3, 8, 8),
    float64, natural order; Y, Cb, Cr.

    `loader` yields image batches, or tuples that start with one; the rest as in
    :func:`sensitivity`, as are the errors.
    """
    options = JpegOptions(mean=mean, std=std, peak=peak)

    def sizes(batch: Any) -> Part:
        x = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
        with torch.no_grad():
            z = coefficients(x, options)
        blocks = z.shape[0] * z.shape[2] * z.shape[3]
        return Part(z.double().abs().sum((0, 2, 3)).cpu(), x.shape[0], blocks)

    found = summed("mean_absolute", loader, sizes, max_images, processes, progress)
    return found.total / found.blocks


PLAIN = JpegOptions()  # 4:4:4, pixels in [0, 1]


def coefficients(x: Tensor, options: JpegOptions = PLAIN) -> Tensor:
    """Unquantised coefficients (N, 3, rows, columns, 8, 8) of images, in grey levels; edges
    replicated."""
    _checks.require_tensor(x, "images")
    x = _checks.as_computed(x, "images")
    if x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(f"images must be (N, 3, H, W), got {tuple(x.shape)}")
    return torch.cat(planes.coefficients(x, options), 1)


def _pixels(z: Tensor, size: Sequence[int], options: JpegOptions) -> Tensor:
    """The images of `size` (H, W) that have these coefficients."""
    return planes.join(block_idct(z).split([1, 2], 1), size, options)
