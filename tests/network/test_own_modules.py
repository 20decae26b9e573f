"""Modules of jsc's own within a compiled network: their operators, native forms and files."""

import pytest
import torch
from compiled_networks import close, compiled
from network_files import altered
from torch import nn

import jsc
from jsc.network.saving import FileError


def sparse(groups=1):
    torch.manual_seed(groups)
    return nn.Sequential(
        jsc.nn.SparseConv2d(4, 16, 3, padding=1, groups=groups), nn.BatchNorm2d(16), nn.ReLU(),
        jsc.nn.SparseConv2d(16, 8, 3, padding="same", bias=False, method="winograd"),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
    ).eval()  # fmt: skip


X = (2, 4, 16, 12)


@pytest.mark.parametrize("groups", [1, 2])
def test_sparse_convolutions_are_native(groups, tmp_path):
    model, x = sparse(groups), torch.randn(X)
    with torch.no_grad():
        net = jsc.compile(model, x, plan={"3.weight": "winograd2x2"})
        assert sum(net.methods().values()) == 3
        assert net.methods()["winograd2x2"] == 1
        assert type(model[0]) is jsc.nn.SparseConv2d
        close(net(x), model(x))
        other = sparse(groups)
        for p in other.parameters():
            p.mul_(0.5)
        net.refresh(other)
        close(net(x), other(x))
        net.save(tmp_path / "net.jsc")
        assert torch.equal(jsc.load(tmp_path / "net.jsc")(x), net(x))


@pytest.mark.filterwarnings("error")
def test_sparse_convolutions_under_torch_compile(monkeypatch):
    import jsc.network.backend as module

    made, real = [], module.one_graph
    monkeypatch.setattr(module, "one_graph", lambda *a, **k: made.append(real(*a, **k)) or made[-1])
    model, x = sparse(), torch.randn(X)
    with torch.no_grad():
        close(torch.compile(model, backend="jsc")(x), model(x))
    torch._dynamo.reset()
    assert [sum(net.methods().values()) for net in made] == [3]


def test_an_accuracy_at_a_lower_precision():
    net = jsc.compile(sparse(), torch.randn(X), budget=0, precision="bf16")
    assert net.accuracy.torch_error > 1e-4


FRONTS = {"jpeg": lambda: jsc.nn.JPEG.from_quality(50), "contrast": jsc.nn.LocalContrast}


@pytest.mark.parametrize("name", FRONTS)
def test_a_file_has_operators_of_our_own(tmp_path, name):
    model = nn.Sequential(FRONTS[name](), nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    x = torch.rand(2, 3, 24, 16)
    net = compiled(model, x)
    net.save(tmp_path / "net.jsc")
    with torch.no_grad():
        close(net(x), model(x))
        assert torch.equal(jsc.load(tmp_path / "net.jsc")(x), net(x))


def test_a_file_has_the_parts_of_the_jpeg_layer(tmp_path):
    quantizer = jsc.nn.SoftQuantizer(torch.full((8, 8), 0.1))
    parts = jsc.nn.BlockDCT(), quantizer, jsc.nn.InverseBlockDCT()
    model, x = nn.Sequential(*parts).eval(), torch.randn(2, 1, 16, 24)
    net = compiled(model, x)
    net.save(tmp_path / "net.jsc")
    with torch.no_grad():
        close(net(x), model(x))
        assert torch.equal(jsc.load(tmp_path / "net.jsc")(x), net(x))


@pytest.mark.parametrize("name", ["jsc.jpeg_backward.default", "jsc.conv2d.default"])
def test_a_file_has_no_other_operators_of_our_own(tmp_path, name):
    net = compiled(nn.Sequential(nn.ReLU()), torch.randn(2, 3))
    path = tmp_path / "net.jsc"
    net.save(path)

    def change(about):
        (relu,) = [node for node in about["graphs"][0]["nodes"] if "relu" in node[2]]
        relu[2] = name

    altered(path, change)
    with pytest.raises(FileError, match="damaged"):
        jsc.load(path)
