"""
Write real JPEG files with trained tables
=========================================

Tables are trained for little change and few bits, and written into JPEG files that every program
reads. Here the change is the mean square error of the pixels; for a network it is its loss.
"""

# %%
# Two photographs of scikit-learn, cut into patches to train on.

import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_sample_images
from torch.nn import functional as F

import jsc

photos = [torch.from_numpy(p.copy()).permute(2, 0, 1) for p in load_sample_images().images]
columns = [F.unfold(photo[None].float() / 255, 64, stride=64) for photo in photos]
patches = torch.cat(columns, 2)[0].T.reshape(-1, 3, 64, 64)
print(f"{len(patches)} patches of {tuple(patches.shape[1:])}")

# %%
# Start from libjpeg's tables and train ``loss + lam * rate``. A hardness kappa of 2 keeps the
# gradient informative; the file rounds.

torch.manual_seed(0)
layer = jsc.nn.JPEG.from_quality(50, kappa=2.0)
optimizer = torch.optim.Adam([layer.tables], lr=0.5)
lam = 1e-3
for _ in range(40):
    batch = patches[torch.randperm(len(patches))[:8]]
    loss = F.mse_loss(layer(batch), batch) + lam * layer.rate(batch)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %%
# Whole numbers from 1 to 255 are what a baseline file can hold.

tables = layer.quant_tables()
print(tables[0])


# %%
# Write files with libjpeg's tables of several qualities, and one with the trained ones.


def psnr(a, b):
    return -10 * torch.log10(F.mse_loss(a / 255.0, b / 255.0)).item()


folder = Path(tempfile.mkdtemp())
photo = photos[0]
for name, steps in {
    **{f"quality {q}": jsc.jpeg.quality_tables(q).long() for q in (10, 20, 30, 40, 50)},
    "trained": tables,
}.items():
    path = folder / f"{name}.jpg"
    jsc.jpeg.save(path, photo, steps)
    back = jsc.jpeg.load(path)
    print(f"{name:11} {path.stat().st_size:6} bytes, {psnr(back, photo):.2f} dB")

# %%
# What the file holds is what was given, and its pixels are those that ``decoded`` computes without
# a file, bit for bit: a network can be evaluated on what it will really see.

assert torch.equal(jsc.jpeg.read_tables(path), tables)
assert torch.equal(jsc.jpeg.decoded(photo[None], tables)[0], back)
print("the file's tables and pixels are the layer's")
