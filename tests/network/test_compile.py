"""What `jsc.compile` makes of a network: what it fuses, sizes, layouts, structures, torch parts."""

import pytest
import torch
import torch.nn.functional as F
from compiled_networks import X, close, compiled, operations, small
from random_networks import randomise
from torch import nn

import jsc
from jsc.network import captured
from jsc.network.graph import Convolution, TorchCall


def test_fuses_and_says_what_it_does():
    net = compiled(small(), torch.randn(X))
    convs = [o for o in operations(net) if isinstance(o, Convolution)]
    assert [(c.scale is not None, str(c.act)) for c in convs] == [(True, "relu"), (False, "relu")]
    assert not [o for o in operations(net) if isinstance(o, TorchCall)]
    text = repr(net)
    assert "conv 3x3 16->24 + relu" in text
    assert "memory of a call" in text
    assert "in all" in str(net.profile(torch.randn(X), repeats=2))


class Named(nn.Module):
    """A class and a layer with names that HTML would take for its own, and an operator of torch."""

    def __init__(self):
        super().__init__()
        self.add_module("<b>&" + 90 * "x", nn.Conv2d(3, 64, 3, groups=1))

    def forward(self, x):
        (layer,) = self.children()
        return nn.functional.hardswish(layer(x)).cumsum(1)


def test_the_summary_fits_120_columns_and_has_a_form_for_notebooks():
    Named.__name__ = "<i>Named"
    x = torch.randn(X)
    net = jsc.compile(Named().eval(), x, budget=0.1, progress=False)
    for text in (repr(net), str(net.profile(x, repeats=2))):
        assert max(map(len, text.splitlines())) <= 120
    shown = net._repr_html_()
    assert "<b>" not in shown
    assert "<i>" not in shown
    assert "CompiledNetwork(&lt;i&gt;Named)" in shown
    assert f"&lt;b&gt;&amp;{90 * 'x'}</td>" in shown
    assert "in torch: " in shown
    assert shown.count("<tr>") == 1 + len(operations(net))


def test_concatenation_padding_and_dropout_cost_nothing():
    class Fire(nn.Module):
        def __init__(self):
            super().__init__()
            self.squeeze, self.a = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
            self.pad, self.b = nn.ZeroPad2d(1), nn.Conv2d(4, 8, 3)

        def forward(self, x):
            x = self.squeeze(x).relu()
            x = torch.cat([self.a(x).relu(), self.b(self.pad(x)).relu()], 1)
            return F.dropout(x, 0.5, self.training)

    model = randomise(nn.Sequential(Fire(), nn.Conv2d(16, 4, 1)))
    x = torch.randn(2, 8, 6, 6)
    net = compiled(model, x)
    kinds = [o.kind for o in operations(net)]
    assert kinds.count("copy") == 2  # the caller's planar input and output
    assert set(kinds) == {"copy", "convolution"}
    close(net(x), model(x))


def test_sizes_are_free_and_programs_are_few():
    model = small()[:6]
    net = compiled(model, torch.randn(X))
    for size in ((1, 3, 16, 16), (5, 3, 20, 9), (2, 3, 33, 31), X):
        x = torch.randn(size)
        close(net(x), model(x))
    for width in range(8, 30):
        net(torch.randn(1, 3, 8, width))
    assert len(net._programs) == 16


class WithOnes(nn.Module):
    """Makes a tensor on the CPU whose size is that of the batch."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return (self.conv(x) + torch.ones(x.shape[0], 8, 1, 1)).relu()


@pytest.mark.parametrize(("make", "mixes"), [(lambda: small()[:6], False), (WithOnes, True)])
def test_another_batch_is_planned_also_where_devices_mix(make, mixes, monkeypatch):
    """By meta tensors, or where these fail by fake ones: with the same results."""
    used = []
    real = captured.FakeTensorMode
    monkeypatch.setattr(captured, "FakeTensorMode", lambda **given: used.append(1) or real(**given))
    model = randomise(make())
    net = compiled(model, torch.randn(X))
    assert net._captured[0].free
    before = len(used)
    x = torch.randn(5, *X[1:])
    close(net(x), model(x))
    assert (len(used) > before) == mixes


def test_layouts_of_inputs():
    model = small()[:6]
    x = torch.randn(X)
    net = compiled(model, x)
    inputs = [
        x.contiguous(memory_format=torch.channels_last),
        x[:, :, ::2],
        torch.randn(2, 16, 16, 3).permute(0, 3, 1, 2)[:, :, 1:],
        torch.randn(1, 3, 16, 16).expand(2, -1, -1, -1),
        torch._neg_view(x),
        x,
    ]
    for given in inputs:
        close(net(given), model(given))


def test_structure_of_arguments_and_results():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, image, *, scale=1.0, other=None):
            y = self.conv(image) * scale
            y = y if other is None else y + other
            return {"maps": [y, y.relu()], "mean": y.mean((2, 3)), "size": 3, "none": None}

    model = randomise(Heads())
    x, other = torch.randn(X), torch.randn(2, 8, 14, 14)
    net = compiled(model, {"image": x, "scale": 2.0, "other": other})
    close(net(image=x, scale=2.0, other=other), model(image=x, scale=2.0, other=other))
    with pytest.raises(TypeError, match="was compiled for"):
        net(x)
    with pytest.raises(TypeError, match="was compiled for"):
        net(image=x, scale=3.0, other=other)


def test_torch_runs_what_has_no_native_form():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 8, 2, 2)
            self.c = nn.Conv2d(8, 4, 1)

        def forward(self, x):
            y = self.b(self.a(x).relu()).cumsum(2)
            return self.c(y).relu(), y.sort(3).indices

    model = randomise(Odd())
    x = torch.randn(X)
    net = compiled(model, x)
    close(net(x), model(x))
    assert {str(o.target) for o in operations(net) if isinstance(o, TorchCall)} >= {
        "aten.cumsum.default"
    }
    assert "in torch: " in repr(net)


def test_a_linear_layer_of_a_map_that_is_a_part_of_a_wider_one():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
            self.fc = nn.Linear(8 * 36, 5)

        def forward(self, x):
            a, b = self.a(x).relu(), self.b(x).relu()
            return torch.cat([a, b], 1), self.fc(b.flatten(1)), self.fc(a.flatten(1))

    model = randomise(Both())
    x = torch.randn(2, 3, 8, 8)
    close(compiled(model, x)(x), model(x))


@pytest.mark.parametrize(
    "part",
    [lambda x: x[:, :, ::2, ::2], lambda x: x[:, 1:], lambda x: x[:, :, 2:, 3:]],
    ids=["every second pixel", "some channels", "a corner cut off"],
)
def test_a_first_convolution_of_a_part_of_the_image(part):
    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(part(torch.zeros(X)).shape[1], 8, 3, padding=1)

        def forward(self, x):
            return self.conv(part(x))

    model = randomise(Part())
    x = torch.randn(X)
    close(compiled(model, x)(x), model(x))


def test_what_torch_makes_of_a_map_is_no_view_of_it():
    """Its memory is another map's by the time that it is read."""

    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))

        def forward(self, x):
            early = self.convs[0](x).unfold(2, 4, 4)  # a view, of five dimensions
            for conv in self.convs[1:]:
                x = conv(x).relu()
            return x, early.sum()

    model = randomise(Late())
    x = torch.randn(2, 8, 8, 8)
    net = compiled(model, x)
    close(net(x), model(x))
    jpeg = randomise(nn.Sequential(jsc.nn.JPEG.from_quality(75), nn.Conv2d(3, 8, 3), nn.ReLU()))
    x = torch.rand(2, 3, 16, 16)
    close(compiled(jpeg, x)(x), jpeg(x))


def test_shared_weights():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = (
                nn.Conv2d(4, 4, 3, padding=1),
                nn.Conv2d(4, 4, 3, padding=2, dilation=2),
            )
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x).relu())

    model = randomise(Tied())
    x = torch.randn(1, 4, 9, 9)
    close(compiled(model, x)(x), model(x))
