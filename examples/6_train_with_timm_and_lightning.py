"""
Train a timm network behind the layer, with Lightning
=====================================================

The layer in front of a network of timm, trained by Lightning; TensorBoard gets the tables as
pictures. It needs ``pip install timm lightning tensorboard``.
"""

# %%
# Digits, enlarged to colour images, and a small network of timm with random weights.

import tempfile

import lightning
import timm
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import jsc

digits = load_digits()
x = torch.from_numpy(digits.images).float()[:, None] / 16
x = F.interpolate(x, size=32, mode="bilinear").expand(-1, 3, -1, -1).contiguous()
y = torch.from_numpy(digits.target)
lightning.seed_everything(0)
order = torch.randperm(len(y))
train, test = order[:1000], order[-400:]

# %%
# ``param_groups`` gives tables a rate of their own and no weight decay, which would pull their
# steps towards 0.


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        layer = jsc.nn.JPEG.from_quality(50, kappa=4.0)
        network = timm.create_model("resnet10t", pretrained=False, num_classes=10)
        self.model = nn.Sequential(layer, network)

    def training_step(self, batch, _):
        images, labels = batch
        return F.cross_entropy(self.model(images), labels)

    def configure_optimizers(self):
        groups = jsc.jpeg.param_groups(self.model, lr=1e-3, table_lr=0.1, weight_decay=0.05)
        return torch.optim.AdamW(groups)


# %%
# The callback draws the tables after each epoch, to those loggers that write to TensorBoard.

classifier = Classifier()
layer = classifier.model[0]
before = layer.tables.detach().clone()
folder = tempfile.mkdtemp()
trainer = lightning.Trainer(
    max_epochs=3,
    accelerator="cpu",
    logger=TensorBoardLogger(folder),
    callbacks=[jsc.jpeg.lightning_callback()],
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(classifier, DataLoader(TensorDataset(x[train], y[train]), batch_size=50, shuffle=True))

# %%
# What was learned: steps that moved, and the accuracy on images that were not seen.

classifier.eval()
with torch.no_grad():
    right = (classifier.model(x[test]).argmax(1) == y[test]).float().mean()
moved = (layer.tables - before).abs().mean().item()
print(f"steps moved by {moved:.2f} on average; {100 * right:.1f} % of the test images are right")
