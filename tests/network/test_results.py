"""The rules for shapes say what torch says, or leave it to torch."""

import random
import subprocess
import sys

import pytest
import torch
from random_networks import RandomNetwork, randomise
from torch import nn

import jsc
from jsc.network import captured, results

aten = torch.ops.aten
bn, layer, conv = (
    aten._native_batch_norm_legit_no_training.default,
    aten.native_layer_norm.default,
    aten.convolution.default,
)


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, device="meta", dtype=dtype)


X = meta(2, 6, 9, 7)
KNOWN = [
    (aten.relu.default, (X,)),
    (aten.hardtanh.default, (X, 0.0, 6.0)),
    (aten.clamp.default, (X, None, 1.0)),
    (aten.pow.Tensor_Scalar, (X, 2.5)),
    (aten.add.Tensor, (X, 1.5)),
    (aten.add.Tensor, (X, X)),
    (aten.mul.Tensor, (X, meta(2, 6, 1, 1))),
    (aten.mul.Tensor, (meta(6, 1, 1), X)),
    (aten.div.Tensor, (X, meta())),
    (aten.sub.Tensor, (meta(2, 1, 9, 1), meta(1, 6, 1, 7))),
    (aten.maximum.default, (meta(0, 3), meta(1, 3))),
    (aten.prelu.default, (X, meta(6))),
    (bn, (X, meta(6), meta(6), meta(6), meta(6), 0.1, 1e-5)),
    (bn, (meta(2, 6), None, None, meta(6), meta(6), 0.1, 1e-5)),
    (layer, (X, [9, 7], meta(9, 7), meta(9, 7), 1e-5)),
    (layer, (X, [7], None, None, 1e-5)),
    (aten.mean.dim, (X, [2, 3])),
    (aten.mean.dim, (X, [-1, -2], True)),
    (aten.cat.default, ([X, meta(2, 1, 9, 7), X], 1)),
    (aten.cat.default, ([X, X], -1)),
    (aten.linear.default, (meta(2, 3, 5), meta(4, 5), meta(4))),
    (aten.linear.default, (meta(5), meta(4, 5))),
    (aten.addmm.default, (meta(4), meta(3, 5), meta(5, 4))),
    (aten.adaptive_avg_pool2d.default, (X, [1, 3])),
    (aten.upsample_nearest2d.default, (X, [18, 5])),
    (aten.upsample_nearest2d.vec, (X, None, [1.3, 2.0])),
    (aten.upsample_nearest2d.vec, (X, [18, 14], None)),
    (aten.upsample_bilinear2d.default, (X, [3, 14], True, None, 2.0)),
    (aten.upsample_bilinear2d.vec, (X, None, False, [0.5, 1.9])),
    (aten.upsample_bilinear2d.vec, (X, [1, 1], True, None)),
    (conv, (X, meta(4, 3, 3, 2), meta(4), [2, 1], [1, 0], [1, 2], False, [0, 0], 2)),
    (aten.conv2d.default, (X, meta(4, 6, 1, 1))),
    (aten.conv1d.default, (meta(2, 6, 9), meta(4, 6, 3), None, [2], [1])),
]
# Not for a rule: another dtype or device, arguments that do not fit, forms that are rare.
LEFT = [
    (aten.relu.default, (meta(2, dtype=torch.float64),)),
    (aten.relu.default, (torch.zeros(2),)),
    (aten.add.Tensor, (X, meta(1, dtype=torch.int64))),
    (aten.add.Tensor, (X, meta(5))),
    (aten.mul.Tensor, (X, 1j)),
    (aten.relu.default, (X, X)),
    (aten.hardtanh.default, (meta(1), X)),
    (aten.mean.dim, (X, [2, -2])),
    (aten.cat.default, ([], 1)),
    (aten.max_pool2d.default, (X, [2, 2], [1, 1], [])),
    (aten.upsample_nearest2d.vec, (X, [18, 14], [2.0, 2.0])),
    (aten.upsample_nearest2d.vec, (X, None, None)),
    (aten.upsample_bilinear2d.vec, (X, None, False, [0.1, 0.1])),
    (aten.upsample_bilinear2d.default, (X, [3], False)),
    (aten.avg_pool2d.default, (X, [2, 2], [1, 1], [0, 0], False, True, 0)),
    (aten.conv2d.default, (X, meta(4, 6, 0, 3))),
    (aten.prelu.default, (X, meta(4))),
    (bn, (X, meta(5), meta(6), meta(6), meta(6), 0.1, 1e-5)),
    (layer, (X, [6], None, None, 1e-5)),
    (layer, (X, [7], meta(6), None, 1e-5)),
    (aten.mean.dim, (X, None)),
    (aten.mean.dim, (X, [4])),
    (aten.cat.default, ([X, meta(2, 6, 9)], 1)),
    (aten.cat.default, ([X, meta(2, 6, 9, 6)], 1)),
    (aten.cat.default, ([X, X], 4)),
    (aten.linear.default, (X, meta(4, 6))),
    (aten.linear.default, (meta(2, 5), meta(4, 5), meta(3))),
    (aten.addmm.default, (meta(4), meta(3, 5), meta(6, 4))),
    (aten.max_pool2d.default, (meta(6, 9, 7), [2, 2])),
    (aten.max_pool2d.default, (X, [2, 2], [1, 1], [2, 2])),
    (aten.max_pool2d.default, (X, [20, 20])),
    (aten.adaptive_avg_pool2d.default, (meta(6, 9, 7), [1, 1])),
    (conv, (X, meta(4, 5, 3, 3), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)),
    (conv, (X, meta(4, 6, 3, 3), meta(3), [1, 1], [0, 0], [1, 1], False, [0, 0], 1)),
    (conv, (X, meta(4, 6, 30, 3), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)),
    (conv, (X, meta(6, 4, 3, 3), None, [1, 1], [0, 0], [1, 1], True, [0, 0], 1)),
    (conv, (X, meta(4, 6, 3, 3), None, [0, 1], [0, 0], [1, 1], False, [0, 0], 1)),
    (conv, (X, meta(4, 6, 3, 3), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 0)),
    (aten.conv2d.default, (X, meta(4, 6, 3, 3), None, [1, 1, 1])),
    (aten.conv2d.default, (meta(6, 9, 7), meta(4, 6, 3, 3))),
]


def shapes(value):
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.dtype
    return [shapes(v) for v in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize(("target", "args"), KNOWN, ids=lambda a: str(a)[:60])
def test_what_is_known_is_as_torch_says(target, args):
    found = results.result(target, args, {})
    assert found is not None
    assert shapes(found) == shapes(target(*args))


@pytest.mark.parametrize(("target", "args"), LEFT, ids=lambda a: str(a)[:60])
def test_what_is_not_sure_is_left_to_torch(target, args):
    assert results.result(target, args, {}) is None


@pytest.mark.parametrize("seed", range(200))
def test_pools_of_every_size(seed):
    draw = random.Random(seed)
    kernel, stride = [draw.randint(1, 5) for _ in "hw"], [draw.randint(1, 4) for _ in "hw"]
    padding, dilation = (
        [draw.randint(0, k // 2) for k in kernel],
        [draw.randint(1, 2) for _ in "hw"],
    )
    x, ceil = meta(1, 3, draw.randint(1, 12), draw.randint(1, 12)), draw.random() < 0.5
    for target, args in (
        (aten.max_pool2d.default, (x, kernel, stride, padding, dilation, ceil)),
        (aten.avg_pool2d.default, (x, kernel, stride, padding, ceil)),
    ):
        found = results.result(target, args, {})
        try:
            expected = target(*args)
        except RuntimeError:
            assert found is None
        else:
            assert shapes(found) == shapes(expected)


@pytest.mark.parametrize("seed", range(20))
def test_networks_have_the_shapes_that_torch_gives(seed, monkeypatch):
    net = jsc.compile(
        randomise(RandomNetwork(seed)), torch.randn(2, 3, 13, 11), budget=0.0, check=False
    )
    x = torch.randn(3, 3, 17, 9)
    net(x)
    (graph,) = [g for g in net._captured if g.fits([x])]

    def sizes():
        at = graph.at([x])
        return [shapes(n.meta["val"]) for n in at.graph.nodes if n.op == "call_function"]

    ours = sizes()
    monkeypatch.setattr(results, "RULES", {})
    assert ours == sizes()


class Strided(nn.Module):
    def forward(self, x):
        return torch.relu(x).as_strided((2, 5), (1, 2), 3)


def test_as_strided_is_left_to_torch():
    x = torch.randn(2, 3, 8, 8)
    net = jsc.compile(Strided().eval(), x, budget=0.0, check=False)
    assert torch.equal(net(x), Strided()(x))
    walk = captured._Sizes(torch.fx.GraphModule({}, net._captured[0].graph))
    assert not walk.by_rule


def test_loading_does_without_torchs_compiler(tmp_path):
    """Which takes a second to import."""
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(8 * 3 * 3, 4)).eval()
    x = torch.randn(1, 3, 8, 8)
    file, given = tmp_path / "net.jsc", tmp_path / "x.pt"
    jsc.compile(model, x, budget=0.0, check=False).save(file)
    torch.save(x, given)
    code = (
        "import sys, torch, jsc\n"
        f"jsc.load({str(file)!r})(torch.load({str(given)!r}))\n"
        "print([name for name in ('torch._dynamo', 'sympy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
