"""net.save and jsc.load: the same bits, and other batches. Foreign files: test_hostile_files.py."""

import logging
import os
import subprocess
import sys
from collections import OrderedDict

import pytest
import torch
from network_files import altered, saved, small
from random_networks import RandomNetwork, randomise
from torch import nn

import jsc
from jsc import _config

X = (1, 3, 13, 11)


@pytest.mark.parametrize("seed", range(12))
def test_a_loaded_network_gives_the_same_bits(isa, tmp_path, seed):
    torch.manual_seed(seed)
    model = randomise(RandomNetwork(seed))
    one, two = torch.randn(X), torch.randn(2, *X[1:])
    net, path = saved(tmp_path, model, one, two)
    loaded = jsc.load(path)
    for x in (one, two, torch.randn(5, *X[1:])):
        for ours, theirs in zip(loaded(x), net(x), strict=True):
            assert torch.equal(ours, theirs)


def test_large_weights_are_read_whole_and_do_not_change_with_the_file(tmp_path):
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(1024, 700)), torch.randn(2, 16, 8, 8)
    net, path = saved(tmp_path, model, x)  # 2.9 MB
    loaded = jsc.load(path)
    assert torch.equal(loaded(x), net(x))
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(size // 2)
        file.write(bytes(size // 4))
    assert torch.equal(loaded(x), net(x))
    with open(path, "r+b") as file:
        file.truncate(size // 2)
    assert torch.equal(loaded(x), net(x))
    with pytest.raises(ValueError, match="damaged"):
        jsc.load(path)


def test_a_batch_is_captured_once(monkeypatch):
    import jsc.network.compiled as compiled

    calls = []
    real = compiled.capture
    monkeypatch.setattr(compiled, "capture", lambda *a: calls.append(1) or real(*a))
    model = small()
    net = jsc.compile(model, torch.randn(2, 3, 8, 8), budget=0.0)
    for batch in (3, 4, 7):
        x = torch.randn(batch, 3, 8, 8)
        torch.testing.assert_close(net(x), model(x), rtol=1e-4, atol=1e-4)
    assert len(calls) == 1
    net(torch.randn(1, 3, 8, 8)), net(torch.randn(2, 3, 9, 8))
    assert len(calls) == 3


def test_a_slice_of_a_larger_batch_leaves_the_batch_free_too(tmp_path):
    images = torch.randn(7, 3, 8, 8)
    net, path = saved(tmp_path, small(), images[:4])
    loaded = jsc.load(path)
    for x in (images[4:], images):
        assert torch.equal(loaded(x), net(x))


class Structured(nn.Module):
    """Two inputs, a number, a dict and a list of outputs, torch's own operators between."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.register_buffer("shift", torch.randn(8, 1, 1), persistent=False)
        self.table = torch.randn(8, 1, 1)

    def forward(self, x, y=None, scale=1.0):
        a = self.conv(x) + self.shift
        b = torch.cumsum(a * self.table, 1) + y.mean() * scale
        made = torch.arange(x.shape[-1], dtype=torch.float32)
        return OrderedDict(a=a.relu(), rest=[b * made, b.flatten(1).argmax(1)])


def test_structures_state_and_torch_operators(tmp_path):
    model = Structured().eval()
    x, y = torch.randn(2, 3, 6, 7), torch.randn(2, 4)
    given = {"x": x, "y": y, "scale": 0.5}
    net = jsc.compile(model, given, budget=0.0)
    net.save(tmp_path / "net.jsc")
    loaded = jsc.load(tmp_path / "net.jsc")
    ours, theirs = loaded(**given), model(**given)
    assert isinstance(ours, OrderedDict)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    four = {"x": x.repeat(2, 1, 1, 1), "y": y.repeat(2, 1), "scale": 0.5}
    torch.testing.assert_close(loaded(**four), model(**four), rtol=1e-4, atol=1e-4)
    with pytest.raises(TypeError, match=r"was compiled for 0\.5"):
        loaded(x=x, y=y, scale=0.25)


def test_new_weights_go_into_a_loaded_network(tmp_path):
    model, x = small(), torch.randn(2, 3, 8, 8)
    _, path = saved(tmp_path, model, x)
    loaded = jsc.load(path)
    other = small()
    loaded.refresh(other)
    torch.testing.assert_close(loaded(x), other(x), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"0\.bias must be .*\n0\.weight must be"):
        loaded.refresh(nn.Sequential(nn.Conv2d(3, 8, 3), *small()[1:]))


def test_another_size_is_refused_in_words(tmp_path):
    _, path = saved(tmp_path, small(), torch.randn(2, 3, 8, 8))
    loaded = jsc.load(path)
    with pytest.raises(jsc.CompileError, match=r"\(2 or more, 3, 8, 8\); got \(2, 3, 8, 9\)"):
        loaded(torch.randn(2, 3, 8, 9))


def test_plan_accuracy_and_summary_are_kept(tmp_path):
    x = torch.randn(2, 3, 12, 12)
    model = randomise(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1)))
    net = jsc.compile(model, x, plan={"1.weight": "winograd2x2"})
    net.save(tmp_path / "net.jsc")
    loaded = jsc.load(tmp_path / "net.jsc")
    assert loaded.plan == net.plan == {"1.weight": "winograd2x2"}
    assert loaded.accuracy == net.accuracy
    assert "winograd2x2" in str(loaded)
    with pytest.raises(ValueError, match="must be one of direct"):
        jsc.compile(model, x, plan={"1.weight": "fft"})


ELSEWHERE = """
import logging, sys, torch, jsc
logging.basicConfig()
torch.set_num_threads(1)
x, y = torch.load(sys.argv[1])
net = jsc.load(sys.argv[2])
torch.testing.assert_close(net(x), y, rtol=1e-5, atol=1e-5)
print(net.plan, net.methods())
"""


@pytest.mark.parametrize("other", _config.ISA_NAMES[: _config.isa()])
def test_a_file_from_another_processor(tmp_path, other):
    """Timed here, run by a process that has a lower instruction set."""
    model = randomise(nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 8, 3, padding=1)))
    x = torch.randn(2, 3, 12, 12)
    net = jsc.compile(model, x, plan={"1.weight": "winograd2x4"}, check=False)
    net.save(tmp_path / "net.jsc")
    torch.save((x, net(x)), tmp_path / "pair.pt")
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path / "pair.pt"), str(tmp_path / "net.jsc")],
        env={**os.environ, "JSC_ISA": other}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'1.weight': 'winograd2x4'} {'direct': 1, 'winograd2x4': 1}\n"
    assert f"were chosen with {_config.isa_name()}, and this processor has {other}" in done.stderr


def test_where_methods_were_chosen_is_kept(tmp_path, caplog):
    _, path = saved(tmp_path, small(), torch.randn(2, 3, 8, 8))
    with caplog.at_level(logging.INFO, "jsc"):
        jsc.load(path)
    assert "chosen with" not in caplog.text
    altered(path, lambda about: about.update(isa="avx1024"))
    jsc.load(path).save(path)
    with caplog.at_level(logging.INFO, "jsc"):
        jsc.load(path)
    assert f"chosen with avx1024, and this processor has {_config.isa_name()}" in caplog.text


def test_a_foreign_operator_cannot_be_saved(tmp_path):
    from torch.library import custom_op

    @custom_op("jsc_test::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    twice.register_fake(lambda x: torch.empty_like(x))

    class Foreign(nn.Module):
        def forward(self, x):
            return twice(x)

    net = jsc.compile(Foreign(), torch.randn(2, 3), budget=0.0, check=False)
    with pytest.raises(TypeError, match=r"jsc_test\.twice"):
        net.save(tmp_path / "net.jsc")


def test_a_file_that_cannot_be_written(tmp_path):
    net, _ = saved(tmp_path, small(), torch.randn(2, 3, 8, 8))
    for path in (tmp_path, tmp_path / "no" / "such" / "folder", ""):
        with pytest.raises(OSError, match="directory"):
            net.save(path)


def test_a_loaded_network_does_not_change_with_its_file(tmp_path):
    x = torch.randn(2, 3, 8, 8)
    _, path = saved(tmp_path, small(), x)
    net = jsc.load(path)
    path.write_bytes(b"")
    net.save(tmp_path / "again.jsc")
    assert torch.equal(jsc.load(tmp_path / "again.jsc")(x), net(x))


def test_a_convolution_whose_weight_is_no_parameter_keeps_its_method(tmp_path):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = torch.randn(8, 8, 3, 3)

        def forward(self, x):
            return torch.conv2d(x, self.kernel)

    x = torch.randn(2, 8, 12, 12)
    net = jsc.compile(Fixed(), x, budget=0.0)
    (name,) = [o.name for o in net._planned_last().graph.operations if hasattr(o, "groups")]
    net = jsc.compile(Fixed(), x, plan={name: "winograd2x2"})
    assert net.methods() == {"winograd2x2": 1}
    net.save(tmp_path / "net.jsc")
    assert jsc.load(tmp_path / "net.jsc").methods() == net.methods()
