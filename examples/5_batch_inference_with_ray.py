"""
Batch inference on many machines with Ray Data
==============================================

A network is compiled once and saved; every actor of Ray Data loads that one file. Here Ray runs on
this machine alone; on a cluster only ``ray.init`` differs. It needs ``pip install "ray[data]"``.
"""

# %%
# The network, compiled where the model's code is. The sample is a batch of two or more, so that the
# file serves every batch but a single image: whoever may have one left over calls the network once
# with one image before it is saved.

import tempfile
from pathlib import Path

import numpy as np
import ray
import torch
from torch import nn

import jsc

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    nn.Linear(32, 10),
).eval()  # fmt: skip
images = torch.rand(70, 3, 32, 32)
net = jsc.compile(model, images[:16], budget=2, progress=False)
file = Path(tempfile.mkdtemp()) / "net.jsc"
net.save(file)

# %%
# An actor holds one loaded network. It knows nothing of the model's code, and its processor may be
# another one: kernels are those of the machine where it is loaded. On a cluster the file lies where
# all machines read it.


class Classify:
    def __init__(self, file):
        import torch

        import jsc

        torch.set_num_threads(1)  # as many as the CPUs that Ray gives to an actor
        self.net = jsc.load(file)

    def __call__(self, batch):
        import torch

        images = torch.from_numpy(np.ascontiguousarray(batch["image"]))
        with torch.inference_mode():
            scores = self.net(images)
        return {"id": batch["id"], "scores": scores.numpy()}


# %%
# Ray Data cuts the images into batches and hands them to two actors.

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
ray.data.DataContext.get_current().enable_progress_bars = False
data = ray.data.from_items([{"id": i, "image": x} for i, x in enumerate(images.numpy())])
rows = data.map_batches(
    Classify,
    fn_constructor_args=(str(file),),
    batch_size=16,
    num_cpus=1,
    compute=ray.data.ActorPoolStrategy(size=2),
).take_all()
ray.shutdown()

# %%
# The scores are those of the network here, to the bit: neither the batches nor the threads count.

rows.sort(key=lambda row: row["id"])
found = torch.from_numpy(np.stack([row["scores"] for row in rows]))
with torch.inference_mode():
    expected = net(images)
print(f"{len(rows)} images; the bits of one process: {torch.equal(found, expected)}")
