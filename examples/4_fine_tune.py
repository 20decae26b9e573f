"""
Fine-tune a trained network behind the layer
============================================

A network that was trained on clean images meets coarse JPEG tables: how many bits can it do
without? Tables and network are tuned together for accuracy and rate, with few steps.
"""

# %%
# The network that is there already: some epochs on enlarged digits stand for pretrained weights.

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import jsc

digits = load_digits()
x = torch.from_numpy(digits.images).float()[:, None] / 16
x = F.interpolate(x, size=16, mode="bilinear").expand(-1, 3, -1, -1).contiguous()
y = torch.from_numpy(digits.target)
torch.manual_seed(0)
order = torch.randperm(len(y))
train, test = order[:600], order[-400:]

network = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
    nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
)  # fmt: skip


def fit(model, optimizer, epochs, extra=lambda images: 0):
    model.train()
    for _ in range(epochs):
        for index in train[torch.randperm(len(train))].split(50):
            loss = F.cross_entropy(model(x[index]), y[index]) + extra(x[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model):
    model.eval()
    return 100 * (model(x[test]).argmax(1) == y[test]).float().mean().item()


fit(network, torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9), epochs=12)
print(f"clean images: {accuracy(network):.1f} %")

# %%
# A layer with the tables of quality 10 in front, at a hardness at which it nearly rounds. The
# network's ``state_dict`` is untouched: a checkpoint is loaded as before.

layer = jsc.nn.JPEG.from_quality(10, kappa=8.0)
model = nn.Sequential(layer, network)
with torch.no_grad():
    print(f"quality 10: {accuracy(model):.1f} %, {layer.rate(x[test]):.3f} bits per pixel")

# %%
# Tune both: small steps for weights that are good already, larger ones for the tables, and a
# price ``lam`` on every bit per pixel. The rate of a part of the batch is enough.

lam = 0.5
optimizer = torch.optim.Adam(
    [{"params": network.parameters(), "lr": 1e-3}, {"params": [layer.tables], "lr": 1.0}]
)
fit(model, optimizer, epochs=3, extra=lambda images: lam * layer.rate(images[:16]))
with torch.no_grad():
    print(f"tuned: {accuracy(model):.1f} %, {layer.rate(x[test]):.3f} bits per pixel")

# %%
# In use the images come from files. ``decoded`` gives the pixels that libjpeg would decode from a
# file with these tables, so this is the accuracy on real JPEG files.

on_files = (network(layer.decoded(x[test])).argmax(1) == y[test]).float().mean()
print(f"on real files with the tuned tables: {100 * on_files:.1f} %")
