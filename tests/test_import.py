"""`import jsc` brings compiled networks; what else there is comes when it is first asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import jsc
from jsc.ops import _library

COMPILER = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_network_from_a_file_needs_no_other_package(tmp_path):
    file = tmp_path / "net.jsc"
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU()).eval()
    jsc.compile(model, torch.zeros(1, 3, 8, 8)).save(file)
    loaded = run(
        "import sys, torch, jsc\n"
        "jsc.load(sys.argv[1])(torch.zeros(1, 3, 8, 8))\n"
        "print(*(name for name in sys.modules if name.startswith('jsc.')))\n",
        str(file),
    ).split()
    assert "jsc.network" in loaded
    others = ("functional", "formats", "jpeg", "methods", "nn", "tuning")
    assert not [name for name in loaded if name.split(".")[1] in others]


def test_every_name_is_there_when_it_is_asked_for():
    for name in dir(jsc):
        assert getattr(jsc, name) is getattr(jsc, name)
    assert {"nn", "functional", "tune", "Plan", "compile", "load"} <= set(dir(jsc))
    with pytest.raises(AttributeError, match="module 'jsc' has no attribute 'optimise'"):
        jsc.optimise  # noqa: B018
    assert not hasattr(jsc, "optimise")


@pytest.mark.parametrize("first", ["jsc.nn.JPEG", "jsc.tune", "jsc.functional.jpeg"])
def test_threads_may_be_the_first_to_ask(first):
    run(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "import jsc\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        f"    found = list(pool.map(lambda _: {first}, range(32)))\n"
        "assert all(f is found[0] for f in found) and callable(found[0])\n"
    )


def test_operators_are_there_at_once_and_implemented_by_their_modules():
    names = run("import torch, jsc\nfrom jsc.ops import _library\nprint(*_library.DEFINED)").split()
    assert {"jpeg", "conv2d"} <= set(names)
    for name, module in _library.DEFINED.items():
        __import__(module)
        assert callable(_library._IMPLEMENTATIONS[name])
        assert callable(_library._FAKES[name])
    assert set(_library._IMPLEMENTATIONS) == set(_library._FAKES) == set(names)


def test_an_operator_imports_what_implements_it():
    run(
        "import sys, torch, jsc\n"
        "x = torch.rand(1, 3, 16, 8)\n"
        "assert 'jsc.ops.dct' not in sys.modules\n"
        "z = torch.ops.jsc.block_dct(x)\n"
        "assert 'jsc.ops.dct' in sys.modules\n"
        "torch.testing.assert_close(torch.ops.jsc.block_idct(z), x)\n"
        "meta = torch.ops.jsc.soft_quantize(torch.empty(2, 8, device='meta'), "
        "torch.ones(8, device='meta'), torch.ones(8, device='meta'), 0, 0, 0)\n"
        "assert meta.shape == (2, 8)\n"
    )


@COMPILER
def test_a_program_of_torch_export_needs_the_import_alone(tmp_path):
    layer, x = jsc.nn.JPEG.from_quality(50), torch.rand(2, 3, 16, 24)
    files = [str(tmp_path / name) for name in ("program.pt2", "result.pt")]
    torch.export.save(torch.export.export(layer, (x,)), files[0])
    torch.save((x, layer(x).detach()), files[1])
    run(
        "import sys, torch, jsc\n"
        "x, y = torch.load(sys.argv[2])\n"
        "program = torch.export.load(sys.argv[1]).module()\n"
        "torch.testing.assert_close(program(x), y, rtol=0, atol=1e-5)\n",
        *files,
    )


def test_the_first_use_may_be_where_tensors_have_no_numbers():
    run(
        "import torch, jsc\n"
        "from torch._subclasses.fake_tensor import FakeTensorMode\n"
        "with torch.device('meta'), FakeTensorMode():\n"
        "    jsc.functional, jsc.jpeg, jsc.formats, jsc.nn, jsc.tuning\n"
        "x = torch.rand(1, 3, 24, 16)\n"
        "y = jsc.nn.JPEG.from_quality(90)(x)\n"
        "assert (x - y).abs().mean() < 0.5\n"
        "conv = torch.nn.Conv2d(3, 16, 3)\n"
        "for method in ('im2col', 'mec', 'cpo', 'cps', 'cpc', 'winograd'):\n"
        "    z = jsc.nn.SparseConv2d.from_dense(conv, method).eval()(x)\n"
        "    torch.testing.assert_close(z, conv(x), atol=1e-5, rtol=1e-5)\n"
    )
