"""Tables as pictures in TensorBoard, also from Lightning and from the Trainer of transformers.

Neither of those is imported before a callback for it is made.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import nn

from jsc import _checks
from jsc.functional.options import JpegOptions
from jsc.jpeg.plots import pixels_of_tables


def log_tables(writer: Any, model: nn.Module, step: int) -> None:
    """Draw the tables of every :class:`jsc.nn.JPEG` in `model`, as :func:`plot_tables` does.

    Parameters
    ----------
    writer : torch.utils.tensorboard.SummaryWriter, or what else has its `add_image`
    model : nn.Module
    step : int
        The picture's `global_step`. Its tag is the name of the Parameter, of several rounds with
        the round's number behind it.

    Raises
    ------
    TypeError  if an argument is of the wrong type; MissingExtraError  without matplotlib.
    """
    if not callable(getattr(writer, "add_image", None)):
        raise TypeError(f"writer must have add_image, got {_checks.shown(writer)}")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {_checks.shown(model)}")
    for name, module in model.named_modules():
        if not isinstance(getattr(module, "options", None), JpegOptions):
            continue
        tables = getattr(module, "tables", None)
        if tables is None:  # RandomJPEG has options only
            continue
        tag = f"{name}.tables" if name else "tables"
        steps = tables.detach().float().clamp(min=0)
        for i, one in enumerate(steps.view(-1, *steps.shape[-3:])):
            one_tag = tag if steps.ndim == 3 else f"{tag}/{i}"
            picture = pixels_of_tables(one, f"step {step}")
            writer.add_image(one_tag, picture, global_step=step, dataformats="HWC")


def lightning_callback() -> Any:
    """A callback for `lightning.Trainer(callbacks=[...])`: :func:`log_tables` after each epoch of
    training, to those of the trainer's loggers that write to TensorBoard. Raises ImportError
    without lightning."""
    callback: Any = import_module("lightning.pytorch").Callback

    class LogTables(callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: nn.Module) -> None:
            if not trainer.is_global_zero:
                return
            for logger in trainer.loggers:
                if hasattr(logger.experiment, "add_image"):
                    log_tables(logger.experiment, pl_module, trainer.global_step)

    return LogTables()


def trainer_callback(writer: Any) -> Any:
    """A callback for `transformers.Trainer(callbacks=[...])`: :func:`log_tables` to `writer` after
    each epoch. Raises ImportError without transformers."""
    callback: Any = import_module("transformers").TrainerCallback

    class LogTables(callback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                log_tables(writer, kwargs["model"], state.global_step)

    return LogTables()
