"""
Compile a network for inference
===============================

``jsc.compile`` makes a whole network one native program. Compared here: the answers in float64,
and the times of torch and, where it is installed, ONNX Runtime.
"""

# %%
# A residual network with random weights, whose batch-norms have seen a batch.

import copy
import importlib.util
import io
import time

import torch
from torch import nn

import jsc


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x):
        return torch.relu(x + self.body(x))


torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), Block(32), nn.MaxPool2d(2), Block(32),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
)  # fmt: skip
batch = torch.rand(4, 3, 64, 64)
with torch.no_grad():
    model.train()(batch)
model.eval()

# %%
# Compile it. The sample's size is not fixed: others are planned when they first come. ``budget`` is
# for how many seconds the methods of the convolutions may be timed.

net = jsc.compile(model, batch, budget=3)
print(net)

# %%
# The answers, against the same model in float64.

with torch.inference_mode():
    expected = model.double()(batch.double())
    model.float()
    scale = expected.abs().max()
    print(f"torch: largest error {(model(batch) - expected).abs().max() / scale:.1e}")
    print(f"jsc:   largest error {(net(batch) - expected).abs().max() / scale:.1e}")

# %%
# The times: all in turn, the median of the rounds. A fair comparison takes a quiet machine and more
# rounds; ``python -m benchmarks networks`` makes one.

last = copy.deepcopy(model).to(memory_format=torch.channels_last)
channels_last = batch.to(memory_format=torch.channels_last)
calls = {
    "torch": lambda: model(batch),
    "torch, channels-last": lambda: last(channels_last),
    "jsc": lambda: net(batch),
}
if all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript")):
    import onnxruntime

    file = io.BytesIO()
    torch.onnx.export(model, (batch,), dynamo=True, verbose=False).save(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file.getvalue(), options)
    inputs = {session.get_inputs()[0].name: batch.numpy()}
    calls["ONNX Runtime"] = lambda: session.run(None, inputs)

times = {name: [] for name in calls}
with torch.inference_mode():
    for _ in range(10):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
for name, seconds in times.items():
    print(f"{name:22} {1000 * sorted(seconds)[len(seconds) // 2]:.2f} ms")

# %%
# New weights, same program: ``refresh`` packs them in place.

with torch.no_grad():
    model[0].weight *= 0.5
net.refresh(model)
with torch.inference_mode():
    print("after refresh:", torch.allclose(net(batch), model(batch), atol=1e-4))
