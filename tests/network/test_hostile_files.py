"""jsc.load of files that are no networks, damaged, or made to do harm."""

import json
import os

import pytest
import torch
from network_files import altered, saved, small

import jsc
from jsc.network.saving import FileError


def test_files_that_are_no_networks(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError):
        jsc.load(tmp_path / "missing.jsc")
    (tmp_path / "empty").write_bytes(b"")
    save_file({"a": torch.ones(2)}, tmp_path / "other")
    for name in ("empty", "other"):
        with pytest.raises(FileError):
            jsc.load(tmp_path / name)


def test_what_is_no_file(tmp_path):
    """A number would be a descriptor of this process, and a pipe makes its reader wait."""
    read, write = os.pipe()
    with pytest.raises(TypeError, match="path must be"):
        jsc.load(read)
    os.fstat(read)  # it is still open
    os.close(read), os.close(write)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a pipe"):
        jsc.load(tmp_path / "pipe")


NOT_IMPORTED = "jsc_test_module_that_a_file_names"


@pytest.mark.parametrize(
    ("kind", "context"),
    [
        ("builtins.dict", json.dumps([{"__enum__": 1, "fqn": f"{NOT_IMPORTED}:A", "name": "a"}])),
        ("collections.defaultdict", {"default_factory_module": NOT_IMPORTED,
                                     "default_factory_name": "a", "dict_context": []}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["arguments", "results"])
def test_no_module_is_imported_for_a_file(tmp_path, monkeypatch, kind, context, where):
    _, path = saved(tmp_path, small(), torch.randn(2, 3, 8, 8))
    (tmp_path / f"{NOT_IMPORTED}.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    structure = json.dumps([1, {"type": kind, "context": context, "children_spec": []}])
    # What JSON may write otherwise is found too.
    structure = structure.replace("__enum", "\\u005f_enum")

    def change(about):
        if where == "arguments":
            about["structure"] = structure
        else:
            about["graphs"][0]["results"] = structure

    altered(path, change)
    with pytest.raises(FileError, match="names a module"):
        jsc.load(path)


def test_damaged_files_are_refused(tmp_path):
    _, path = saved(tmp_path, small(), torch.randn(2, 3, 8, 8))
    good = path.read_bytes()
    for end in (4, 100, len(good) - 10):
        path.write_bytes(good[:end])
        with pytest.raises(FileError):
            jsc.load(path)

    def each(change):
        path.write_bytes(good)
        altered(path, change)
        with pytest.raises(FileError):
            jsc.load(path)

    each(lambda about: about.update(version=99))
    each(lambda about: about.update(graphs=[{}]))
    each(lambda about: about.pop("plan"))
    each(lambda about: about.update(plan={"0.weight": "fft"}))
    each(lambda about: about["graphs"][0]["nodes"].pop(0))
    each(lambda about: about["graphs"][0]["placeholders"].pop())
    each(lambda about: about["graphs"][0].update(sizes=[[2, 5, 8, 8]]))


GEOMETRY = {  # stride, padding, dilation, groups
    "dilation": ([1, 1], [0, 0], [-1000000, -1000000], 1),
    "no dilation": ([1, 1], [0, 0], [0, 0], 1),
    "padding": ([1, 1], [-40, -40], [1, 1], 1),
    "groups": ([1, 1], [0, 0], [1, 1], 2),
}


@pytest.mark.parametrize("geometry", GEOMETRY.values(), ids=GEOMETRY)
@pytest.mark.parametrize("transposed", [False, True])
def test_a_convolution_that_torch_would_refuse(tmp_path, geometry, transposed):
    """Torch's sizes do not depend on all that its kernels check."""
    stride, padding, dilation, groups = geometry
    _, path = saved(tmp_path, small(), torch.randn(2, 3, 8, 8))

    def change(about):
        nodes = about["graphs"][0]["nodes"]
        (conv,) = [node for node in nodes if "conv" in node[2]]
        x, weight, bias = conv[4][:3]
        conv[2] = "aten.conv_transpose2d.input" if transposed else "aten.convolution.default"
        conv[4] = (
            [x, weight, bias, stride, padding, [0, 0], groups, dilation]
            if transposed
            else [x, weight, bias, stride, padding, dilation, False, [0, 0], groups]
        )

    altered(path, change)
    with pytest.raises(FileError, match="damaged"):
        jsc.load(path)


@pytest.mark.parametrize(
    "name",
    [
        "aten.from_file.default", "aten.add_.Tensor", "os.system.x", "aten.manual_seed.default",
        "aten.set_grad_enabled.default",
    ],
)  # fmt: skip
def test_operators_with_effects_are_refused(tmp_path, name):
    _, path = saved(tmp_path, small(), torch.randn(2, 3, 8, 8))

    def change(about):
        nodes = about["graphs"][0]["nodes"]
        (relu,) = [node for node in nodes if "relu" in node[2]]
        relu[2] = name

    altered(path, change)
    with pytest.raises(FileError, match="damaged"):
        jsc.load(path)
