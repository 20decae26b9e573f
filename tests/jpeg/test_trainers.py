"""The layer in the training loops of other libraries, really run; skipped where one is missing."""

import pytest
import torch
from torch import nn

import jsc

# Their own deprecations, and what they say about this machine.
pytestmark = pytest.mark.filterwarnings("ignore")


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        jsc.nn.JPEG.from_quality(50, kappa=2.0), nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


def groups(model):
    return jsc.jpeg.param_groups(model, lr=1e-3, table_lr=0.1, weight_decay=0.05)


def data():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(12, 3, 16, 16, generator=generator), torch.arange(12) % 3


def pictures(folder):
    """What TensorBoard reads there: the steps of each tag."""
    kind = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = kind.EventAccumulator(str(folder))
    found.Reload()
    return {tag: [image.step for image in found.Images(tag)] for tag in found.Tags()["images"]}


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    pytest.importorskip("matplotlib")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        jsc.jpeg.log_tables(writer, network(), 5)
    assert pictures(tmp_path) == {"0.tables": [5]}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lightning(tmp_path, precision):
    lightning = pytest.importorskip("lightning.pytorch")
    pytest.importorskip("tensorboard")
    pytest.importorskip("matplotlib")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.AdamW(groups(self))

    module, loggers = Module(), lightning.loggers
    before = module.net[0].tables.detach().clone()
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", devices=1, precision=precision,
        logger=[
            loggers.TensorBoardLogger(tmp_path / "board", name="", version=""),
            loggers.CSVLogger(tmp_path / "csv"),
        ],
        callbacks=[jsc.jpeg.lightning_callback()], default_root_dir=tmp_path,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), 4))
    assert (module.net[0].tables != before).any()
    assert pictures(tmp_path / "board") == {"net.0.tables": [3, 6]}


class Classifier(nn.Module):
    """As the Trainer of transformers calls a model."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x, labels):
        scores = self.net(x)
        return {"loss": nn.functional.cross_entropy(scores, labels), "logits": scores}


def test_trainer_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    pytest.importorskip("tensorboard")
    pytest.importorskip("matplotlib")
    from torch.utils.tensorboard import SummaryWriter

    model = Classifier()
    before = model.net[0].tables.detach().clone()
    arguments = transformers.TrainingArguments(
        str(tmp_path / "out"), num_train_epochs=2, per_device_train_batch_size=4, report_to=[],
        save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    with SummaryWriter(tmp_path / "board") as writer:
        transformers.Trainer(
            model, arguments,
            train_dataset=[{"x": x, "labels": y} for x, y in zip(*data(), strict=True)],
            callbacks=[jsc.jpeg.trainer_callback(writer)],
            optimizers=(torch.optim.AdamW(groups(model)), None),
        ).train()  # fmt: skip
    assert (model.net[0].tables != before).any()
    assert pictures(tmp_path / "board") == {"net.0.tables": [3, 6]}


def test_accelerate():
    accelerate = pytest.importorskip("accelerate")
    model = network()
    before = model[0].tables.detach().clone()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), 4)
    parts = accelerate.Accelerator(cpu=True)
    model, optimizer, loader = parts.prepare(model, torch.optim.AdamW(groups(model)), loader)
    for x, y in loader:
        optimizer.zero_grad()
        parts.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()
    assert (parts.unwrap_model(model)[0].tables != before).any()


def test_optimizers_of_timm_take_the_groups():
    optim = pytest.importorskip("timm.optim")
    made = optim.create_optimizer_v2(groups(network()), opt="adamw", lr=1e-3, weight_decay=0.05)
    rates = {group["name"]: (group["lr"], group["weight_decay"]) for group in made.param_groups}
    assert rates == {"model": (1e-3, 0.05), "tables": (0.1, 0.0)}
