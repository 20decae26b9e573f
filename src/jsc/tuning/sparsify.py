"""More zeros on purpose: thresholds from calibration images, and a penalty for fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from jsc import _checks
from jsc._share import share
from jsc.nn import FATReLU
from jsc.tuning.capture import Sample, evaluating, run

M = TypeVar("M", bound=nn.Module)
Penalised = (nn.ReLU, nn.ReLU6, FATReLU)


def sparsify(
    model: M,
    sample: Any,
    density: float | Mapping[str, float] = 0.3,
    *,
    inplace: bool = False,
) -> M:
    """The model with a `jsc.nn.FATReLU` in place of each ReLU, which leaves at most the given
    share of its outputs on the sample other than zero.

        T = max(0, the (1 - density) quantile of what the ReLU gets)

    The model runs once on the sample, in evaluation mode; each threshold is set before what follows
    it runs, so that later layers see what the earlier ones leave. A ReLU whose outputs have more
    zeros anyway gets T = 0 and stays what it was. One that is called several times has one
    threshold, that of all it has seen. Accuracy falls with the density, and some of it comes back
    by training the result for a few epochs, best with :class:`jsc.HoyerSquare`.

    Parameters
    ----------
    model : nn.Module
        With `nn.ReLU` or `FATReLU` modules; `torch.relu` and `F.relu` in a forward cannot be found.
        The parameters of the result are the model's own.
    sample : Tensor, tuple (positional arguments) or dict (keyword arguments)
        Calibration images: real ones, some dozens, not those of the test.
    density : float in (0, 1], or dict of name: density
        Of each ReLU, or of those named; others stay as they are.
    inplace : bool
        Change the given model instead of a new module tree.

    Raises
    ------
    TypeError, ValueError  for arguments other than these, a name that is no ReLU, a model without
    ReLU modules, or inputs of a ReLU that are not finite.
    RuntimeError  if a ReLU is not called on the sample.

    Source: M. Kurtz et al., ICML 2020, section 3; the thresholds there are searched by accuracy.

    Examples
    --------
    >>> sparse = jsc.sparsify(network, torch.rand(8, 3, 32, 32), density=0.25)
    >>> y = sparse[:2](torch.rand(8, 3, 32, 32))
    >>> bool((y != 0).float().mean() < 0.3)
    True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    relus = [n for n, m in model.named_modules() if n and type(m) in (nn.ReLU, FATReLU)]
    if not relus:
        raise ValueError(
            "model must have nn.ReLU modules, and has none; torch.relu and F.relu in a forward "
            "cannot be replaced: write nn.ReLU() modules there"
        )
    thresholds = _calibrated(
        share(model, buffers=False), Sample.of(sample), _wanted(density, relus)
    )
    result = model if inplace else share(model)
    for name, threshold in thresholds.items():
        _convert(result.get_submodule(name), threshold)
    return result


def _convert(relu: nn.Module, threshold: float) -> FATReLU:
    """The same object, with its hooks and wherever it is held, is a `FATReLU` from now on."""
    relu.__class__ = FATReLU
    relu.threshold = threshold  # type: ignore[assignment]
    assert isinstance(relu, FATReLU)
    return relu


def _calibrated(model: nn.Module, sample: Sample, wanted: Mapping[str, float]) -> dict[str, float]:
    """The threshold of each ReLU by name; `model` is changed and belongs to this function."""
    found: dict[str, float] = {}

    def choose(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        seen: list[Tensor] = []

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = (args[0] if args else kwargs["input"]).detach().flatten()
            # A float64 threshold has to be one of the numbers themselves.
            seen.append(x.clone() if x.dtype == torch.float64 else x.float().clone())
            numbers = torch.cat(seen)
            if not bool(numbers.isfinite().all()):
                raise ValueError(f"the inputs of {name} must be finite, got NaN or infinity")
            zeros = numbers.numel() - int(wanted[name] * numbers.numel())
            least = float(numbers.kthvalue(zeros).values) if zeros else 0.0
            found[name] = module.threshold = max(0.0, least)  # type: ignore[assignment]

        return before

    for name in wanted:
        relu = _convert(model.get_submodule(name), 0.0)
        relu.register_forward_pre_hook(choose(name), with_kwargs=True)
    with evaluating(model), torch.no_grad():
        run(model, sample)
    if silent := [name for name in wanted if name not in found]:
        raise RuntimeError(
            f"the sample does not reach {', '.join(silent[:3])}: name the others in density"
        )
    return found


def _wanted(density: Any, relus: Sequence[str]) -> dict[str, float]:
    given = density if isinstance(density, Mapping) else dict.fromkeys(relus, density)
    found = {}
    for name, value in given.items():
        if name not in relus:
            raise ValueError(
                f"density names {_checks.shown(name)}, which is no nn.ReLU of the model; there "
                f"are {', '.join(relus[:4])}{' ...' if len(relus) > 4 else ''}"
            )
        found[name] = _checks.number(value, "density")
        if not 0 < found[name] <= 1:
            raise ValueError(f"density must be above 0 and at most 1, got {found[name]}")
    return found


class HoyerSquare:
    """A penalty on activations that are not zero, for training: add it to the loss.

        H(a) = (sum |a|)^2 / (n sum a^2)        in (0, 1]

    of the n outputs of each ReLU (`nn.ReLU`, `nn.ReLU6`, `FATReLU`), and the mean over the ReLUs.
    H is the share of activations other than zero where these are equal, and less where they
    differ; it does not change when all are scaled. Its gradient pushes small activations to zero
    and lets large ones grow. Outputs that are all zero have H = 0.

    Used as a context; each call takes what the forward passes since the last call have left.
    Forward passes without gradients (evaluation) count for nothing, nor does what
    `torch.utils.checkpoint` computes again in the backward pass. ReLUs inside a checkpoint count
    with `use_reentrant=False` only: the first pass of the other kind has no gradients.

    Parameters
    ----------
    model : nn.Module with ReLU modules, which gets hooks until the context ends.

    Raises
    ------
    TypeError, ValueError  if it is no such module.
    RuntimeError  if it is called outside the context, or before a forward pass.

    Source: H. Yang, W. Wen and H. Li, DeepHoyer, ICLR 2020 (there without n), on activations as
    in M. Kurtz et al., ICML 2020.

    Examples
    --------
    >>> with jsc.HoyerSquare(network) as penalty:
    ...     loss = network(torch.rand(2, 3, 32, 32)).square().mean() + 0.1 * penalty()
    ...     loss.backward()
    """

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
        self.modules = [m for m in model.modules() if isinstance(m, Penalised)]
        if not self.modules:
            raise ValueError("model must have nn.ReLU, nn.ReLU6 or jsc.nn.FATReLU modules")
        self._handles: list[Any] = []
        self._seen: list[Tensor] = []

    def __enter__(self) -> HoyerSquare:
        if self._handles:
            raise RuntimeError("this HoyerSquare is in use: make another one")
        self._handles = [m.register_forward_hook(self._keep()) for m in self.modules]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._seen = [], []

    def _keep(self) -> Callable[[nn.Module, Any, Tensor], None]:
        def keep(module: nn.Module, args: Any, output: Tensor) -> None:
            if not torch.is_grad_enabled() or not output.numel():
                return
            value = hoyer_square(output)  # also for a checkpoint, which saves what it saved before
            if torch.compiler.is_compiling() or torch._C._current_graph_task_id() == -1:
                self._seen.append(value)  # what a checkpoint computes again has been counted

        return keep

    def __call__(self) -> Tensor:
        if not self._handles:
            raise RuntimeError("call it inside its context: with jsc.HoyerSquare(model) as penalty")
        if not self._seen:
            raise RuntimeError("no forward pass with gradients since the last call")
        found, self._seen = torch.stack(self._seen).mean(), []
        return found


def hoyer_square(a: Tensor) -> Tensor:
    """(sum |a|)^2 / (n sum a^2) in float32 or more; 0 where all are zero."""
    a = a if a.dtype == torch.float64 else a.float()
    squares = a.square().sum()
    tiny = torch.finfo(a.dtype).tiny
    return a.abs().sum().square() / (a.numel() * squares.clamp_min(tiny))
