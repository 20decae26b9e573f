"""Tables as pictures: a writer that remembers, and stand-ins for Lightning and transformers."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

import jsc

pytest.importorskip("matplotlib")


class Writer:
    def __init__(self):
        self.images = {}

    def add_image(self, tag, picture, global_step=None, dataformats="CHW"):
        assert dataformats == "HWC"
        assert picture.dtype == "uint8"
        assert picture.shape[2] == 3
        self.images[tag] = global_step, picture


def model():
    layers = [jsc.nn.RandomJPEG(), jsc.nn.JPEG(), jsc.nn.JPEG(rounds=2), nn.Conv2d(3, 3, 1)]
    return nn.Sequential(*layers)


def test_each_table_is_a_picture():
    writer, net = Writer(), model().bfloat16()
    jsc.jpeg.log_tables(writer, net, 7)
    assert set(writer.images) == {"1.tables", "2.tables/0", "2.tables/1"}
    step, picture = writer.images["1.tables"]
    assert step == 7
    assert picture.std() > 10
    with torch.no_grad():
        net[1].tables.mul_(0.5)[0, 0, 0] = -1.0  # used as 1e-5
    jsc.jpeg.log_tables(writer, net, 7)
    assert (writer.images["1.tables"][1] != picture).any()
    jsc.jpeg.log_tables(writer, net[1], 0)
    assert "tables" in writer.images


def test_lightning(monkeypatch):
    for name in ("lightning", "lightning.pytorch"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["lightning.pytorch"].Callback = type("Callback", (), {})
    callback, writer = jsc.jpeg.lightning_callback(), Writer()
    assert isinstance(callback, sys.modules["lightning.pytorch"].Callback)
    loggers = [SimpleNamespace(experiment=e) for e in (writer, object())]
    trainer = SimpleNamespace(loggers=loggers, global_step=3, is_global_zero=False)
    callback.on_train_epoch_end(trainer, model())
    assert not writer.images
    trainer.is_global_zero = True
    callback.on_train_epoch_end(trainer, model())
    assert writer.images["1.tables"][0] == 3


def test_trainer_of_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", ModuleType("transformers"))
    sys.modules["transformers"].TrainerCallback = type("TrainerCallback", (), {})
    writer = Writer()
    callback = jsc.jpeg.trainer_callback(writer)
    state = SimpleNamespace(is_world_process_zero=True, global_step=5)
    callback.on_epoch_end(None, state, None, model=model(), optimizer=None)
    assert writer.images["1.tables"][0] == 5


def test_errors():
    with pytest.raises(TypeError, match="add_image"):
        jsc.jpeg.log_tables(None, model(), 0)
    with pytest.raises(TypeError, match=r"nn\.Module"):
        jsc.jpeg.log_tables(Writer(), None, 0)
