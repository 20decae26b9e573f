"""
Train a network with the JPEG layer in front
============================================

The recipe of JPEG-DL: train a network, measure how its loss depends on each DCT coefficient, start
the tables of a JPEG layer from that, and train the same network again together with the tables.
"""

# %%
# The data: scikit-learn's handwritten digits, enlarged to 16 x 16 and three channels.

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import jsc

digits = load_digits()
x = torch.from_numpy(digits.images).float()[:, None] / 16
x = F.interpolate(x, size=16, mode="bilinear").expand(-1, 3, -1, -1).contiguous()
y = torch.from_numpy(digits.target)
order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
train, test = order[:600], order[-400:]


# %%
# A small network, and a loop that trains it. Tables have an optimiser of their own: their gradients
# differ from those of weights by orders of magnitude, and Adam does not mind.


def make_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def fit(model, optimizers, epochs=6):
    torch.manual_seed(0)  # the same order of images for every model
    model.train()
    for _ in range(epochs):
        for index in train[torch.randperm(len(train))].split(50):
            loss = F.cross_entropy(model(x[index]), y[index])
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()


@torch.no_grad()
def accuracy(model):
    model.eval()
    return (model(x[test]).argmax(1) == y[test]).float().mean().item()


# %%
# First the network alone.

network = make_network()
fit(network, [torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)])
print(f"without the layer: {100 * accuracy(network):.1f} %")

# %%
# Its sensitivity gives the tables to start from: fine steps where the loss depends on a
# coefficient, coarse ones where it does not.

batches = [(x[index], y[index]) for index in train.split(100)]
s = jsc.jpeg.sensitivity(network, batches, F.cross_entropy)
layer = jsc.nn.JPEG.from_sensitivity(s, q_max=5.0, alpha=5.0)
before = layer.tables.detach().clone()

# %%
# The same network again, with the layer in front; weights and tables are trained together.

network = make_network()
model = nn.Sequential(layer, network)
fit(
    model,
    [
        torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9),
        torch.optim.Adam([layer.tables], lr=0.05),
    ],
)
print(f"with the trained layer: {100 * accuracy(model):.1f} %")
change = (layer.tables.detach() - before).abs()
print(f"steps changed by {change.mean():.3f} on average, at most by {change.max():.3f}")

# %%
# The trained steps of brightness and colour. Digits are a toy: the benchmark ``accuracy`` has the
# gains on photographs, with controls, and the sets on which there are none.

figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.5), layout="constrained")
jsc.jpeg.plot_tables(layer.tables, list(axes))
_ = figure.suptitle("Trained quantisation steps")
