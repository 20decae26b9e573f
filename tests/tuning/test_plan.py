"""Plan files: what `save` wrote comes back equal, and nothing else comes back at all."""

import json
import os
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jsc.tuning import Environment, LayerChoice, Plan, PlanError
from jsc.tuning.plan import strict_json

LAYER = LayerChoice(
    name="stage.conv1",
    aliases=("again.conv1",),
    input_shape=(2, 16, 8, 8),
    weight_shape=(32, 16, 3, 3),
    stride=(1, 1),
    padding=(1, 1),
    dilation=(1, 1),
    groups=1,
    calls=2,
    density=0.31,
    method="cpc",
    reason="cpc 1.80x at density 0.31",
    times_ms={"dense": 0.9, "cpc": 0.5},
    max_error=3e-7,
    memory={"dense": 8192, "im2col": 73728, "cpc": 8448},
)
DENSE = replace(
    LAYER, name="head", aliases=(), method="dense", padding="same", reason="dense: best sparse 0.9x"
)
ENVIRONMENT = Environment("Some CPU", "avx2", 2, "2.13.0", "0.1.0", "ieee")
PLAN = Plan((LAYER, DENSE), 4.0, 3.0, 1e-6, 1.05, 1.1, ENVIRONMENT)
DOCUMENT = PLAN.to_dict()


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "plan.json"
    PLAN.save(path)
    return path


def load_bytes(path, data):
    path.write_bytes(data)
    return Plan.load(path)


def signed(document):
    """A file with these contents and a right checksum: the schema alone must find the fault."""
    return strict_json.dumps(document).encode()


def test_round_trip(saved):
    assert Plan.load(saved) == PLAN


def test_a_save_that_fails_leaves_the_old_plan(saved, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        replace(PLAN, dense_ms=9.0).save(saved)
    assert Plan.load(saved) == PLAN
    assert os.listdir(saved.parent) == [saved.name]
    with pytest.raises(TypeError, match="must be a path"):
        PLAN.save(7)
    assert Plan.from_dict(json.loads(json.dumps(DOCUMENT))) == PLAN


def test_figures():
    assert LAYER.gain == pytest.approx(1.8)
    assert (LAYER.dense_bytes, LAYER.chosen_bytes) == (8192, 8448)
    assert DENSE.gain == 1
    assert PLAN.gain == pytest.approx(4 / 3)
    assert PLAN.chosen == (LAYER,)


@given(data=st.data())
def test_flipped_bytes_never_load_as_another_plan(tmp_path_factory, data):
    text = bytearray(strict_json.dumps(DOCUMENT).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "flipped.json"
    with suppress(PlanError):
        assert load_bytes(path, bytes(text)) == PLAN


@given(cut=st.floats(0, 0.999))
def test_truncated(tmp_path_factory, cut):
    text = strict_json.dumps(DOCUMENT).rstrip().encode()
    with pytest.raises(PlanError):
        load_bytes(tmp_path_factory.getbasetemp() / "cut.json", text[: int(cut * len(text))])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"version": 4', '"version": 5', "version '5' is not 4"),
        ('"version": 4', '"version": true', "version 'True' is not 4"),
        ('"version": 4', '"version": 3', "version '3' is not 4"),
        ("jsc-plan", "other", "not a jsc plan"),
        ('"density": 0.31', '"density": NaN', "contains NaN"),
        ('"density": 0.31', '"density": -Infinity', "contains -Infinity"),
        ('"density": 0.31', '"density": 1e999', "too large"),
        ('"density": 0.31', '"density": 1.5', r"in \[0, 1\]"),
        ('"density": 0.31', '"density": "0.31"', "finite number"),
        ('"calls": 2', '"calls": 2.0', "whole number"),
        ('"calls": 2', '"calls": true', "whole number"),
        ('"calls": 2', '"calls": -1', "whole number"),
        ('"calls": 2', '"calls": 1' + 5000 * "0", "damaged"),
        ('"calls": 2', '"calls": 1' + 400 * "0", "whole number"),
        ('"density": 0.31', '"density": 1' + 400 * "0", "finite number"),
        ('"calls": 2', '"calls": 2, "calls": 3', "'calls' appears twice"),
        ('"calls": 2', '"calls": 2, "extra": 3', "unknown extra"),
        ('"calls": 2,', "", "without calls"),
        ('"method": "cpc"', '"method": "magic"', "unknown method 'magic'"),
        ('"method": "cpc"', '"method": ["cpc"]', "unknown method"),
        ('"name": "head"', '"name": "stage.conv1"', "appears twice"),
        ('"name": "head"', '"name": "again.conv1"', "appears twice"),
        ('"name": "head"', '"name": "\\u001b[2J"', "printable"),
        ('"name": "head"', '"name": 3', "must be a string"),
        ("[1,1]", "[1,1,1]", "must have"),
        ('"padding": "same"', '"padding": "reflect"', "padding must be a list"),
        ('"threads": 2', '"threads": "two"', "threads must be a whole number"),
        ('"dense": 0.9', '"dense": 0.8', "checksum"),
        ('"im2col": 73728', '"im2col": 0.5', "memory of im2col must be a whole number"),
        ('"im2col": 73728', '"magic": 73728', "memory of an unknown method 'magic'"),
        ('"checksum": "sha256:', '"checksum": "sha256:0', "checksum"),
    ],
)
def test_each_fault_has_its_sentence(saved, old, new, message):
    text = saved.read_text()
    assert old in text
    with pytest.raises(PlanError, match=message):
        load_bytes(saved, text.replace(old, new).encode())


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"3", b'"plan"', b"{}", b"\xff\xfe", b"[" * 200_000, b'{"a":' * 100_000],
    ids=["empty", "null", "list", "number", "string", "object", "not utf-8", "deep list", "deep"],
)
def test_other_files(tmp_path, data):
    with pytest.raises(PlanError, match="other"):
        load_bytes(tmp_path / "other", data)


def test_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(strict_json, "MAX_BYTES", 100)
    with pytest.raises(PlanError, match="larger than"):
        load_bytes(tmp_path / "plan.json", signed(DOCUMENT))


def test_faults_are_found_behind_a_right_checksum(tmp_path):
    for key, value in (("layers", {}), ("layers", [1]), ("environment", []), ("dense_ms", None)):
        with pytest.raises(PlanError):
            load_bytes(tmp_path / "plan.json", signed({**DOCUMENT, key: value}))


@pytest.mark.parametrize("key", ["dense_ms", "channels_last_ms", "spread", "version"])
@pytest.mark.parametrize("digits", [310, 400, 5000])
def test_numbers_of_many_digits(key, digits):
    """No float holds them, and of 5000 digits Python does not even print them."""
    with pytest.raises(PlanError, match=key):
        Plan.from_dict({**DOCUMENT, key: 10**digits})
    layer = {**DOCUMENT["layers"][0], "method": 10**digits, "density": 10**digits}
    with pytest.raises(PlanError):
        Plan.from_dict({**DOCUMENT, "layers": [layer]})


def test_the_largest_numbers_can_be_printed():
    huge = replace(LAYER, times_ms={"dense": 10**300, "cpc": 1e-300})
    plan = replace(PLAN, layers=(huge, DENSE), dense_ms=10**300, tuned_ms=1e-300)
    assert plan.gain > 1
    assert huge.gain > 1
    assert "stage.conv1" in str(plan)


def test_torch_alone_may_be_faster():
    plan = replace(PLAN, channels_last_ms=2.5)
    assert plan.torch_is_faster
    for show in (str, Plan.to_markdown, Plan._repr_html_):
        assert "torch alone takes 2.500 ms with channels-last maps, this plan 3.000" in show(plan)
    for not_faster in (PLAN, replace(PLAN, channels_last_ms=2.99), plan.override({"head": "mec"})):
        assert not not_faster.torch_is_faster
        assert "tune again" not in str(not_faster)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        Plan.load(tmp_path / "none.json")


@pytest.mark.parametrize("path", [0, 7, np.int64(3), torch.tensor(3), None, b"plan.json", 1.5])
def test_what_is_no_path(path):
    """A number would be a file descriptor of the process."""
    with pytest.raises(TypeError, match="path must be a str"):
        Plan.load(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PlanError, match="is a pipe"):
        Plan.load(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        Plan.load(tmp_path)


def test_constructors_check():
    with pytest.raises(PlanError, match="density"):
        replace(LAYER, density=float("nan"))
    with pytest.raises(PlanError, match="without a dense time"):
        replace(LAYER, times_ms={})


def test_override():
    plan = PLAN.override({"stage.conv1": "dense"})
    assert [layer.method for layer in plan.layers] == ["dense", "dense"]
    assert plan.layers[0].reason == "dense: set by hand"
    assert "not measured as a whole" in " ".join(str(plan).split())  # its column may be narrow
    with pytest.raises(PlanError, match="no layer 'none'"):
        PLAN.override({"none": "dense"})
    with pytest.raises(PlanError, match="unknown method"):
        PLAN.override({"head": "fast"})


def test_text_table_is_aligned():
    lines = str(PLAN).splitlines()
    column = lines[0].index("method")
    assert lines[2][column:].startswith("cpc ")
    assert lines[3][column:].startswith("dense ")
    assert "1.80x" in lines[2]
    assert "1.33x" in str(PLAN).split("whole model")[1]
    assert "dense 0.016, im2col 0.147, cpc 0.017" in lines[-2]
    assert str(ENVIRONMENT) in lines[-1]


def test_the_text_fits_120_columns():
    """However long names and reasons are; no letter of them is lost."""
    name = "features.denseblock3.denselayer24.conv2.with.a_part_that_has_no_dot_for_a_long_while"
    reason = "dense: " + "cpc took 183 ms, dense 12 ms; it needs a CPU with AMX tiles " * 3
    layers = (
        replace(LAYER, name=name, aliases=(), reason=reason, input_shape=(128, 2048, 224, 224)),
        replace(DENSE, reason="dense: best sparse cpo 1.05x"),
    )
    plan = replace(PLAN, layers=layers, spread=2.4, channels_last_ms=2.5)
    lines = str(plan).splitlines()
    assert max(map(len, lines)) <= 120
    first = lines[0].index("input")
    row = lines[2 : next(i for i, line in enumerate(lines) if line.startswith(DENSE.name))]
    assert "".join(line[:first].strip() for line in row) == name
    why = lines[0].index("why")
    assert " ".join(line[why:].strip() for line in row).split() == reason.split()


def test_a_busy_machine_is_mentioned():
    busy = replace(PLAN, spread=2.4)
    for show in (str, Plan.to_markdown, Plan._repr_html_):
        assert "2.4 times the fastest" in show(busy)
        assert "busy" not in show(PLAN)


def test_markdown_and_html_escape():
    plan = replace(PLAN, layers=(replace(LAYER, reason="a | b <script>"), DENSE))
    lines = plan.to_markdown().splitlines()
    bars = {line.replace("\\|", "").count("|") for line in lines if line.startswith("|")}
    assert bars == {13}
    assert "<script>" not in plan._repr_html_()
    named = replace(PLAN, layers=(replace(LAYER, name="<b>&amp;", reason="dense"), DENSE))
    assert "&lt;b&gt;&amp;amp;" in named._repr_html_()
    assert "<b>" not in named._repr_html_()
    assert plan._repr_html_().count("<tr>") == 5


def test_environment_differences():
    other = replace(ENVIRONMENT, threads=4)
    assert ENVIRONMENT.differences(ENVIRONMENT) == []
    assert ENVIRONMENT.differences(other) == ["threads 2, here 4"]
    lower = replace(ENVIRONMENT, precision="bf16")
    assert ENVIRONMENT.differences(lower) == ["precision ieee, here bf16"]
    assert str(lower) == f"{ENVIRONMENT}, precision bf16"
