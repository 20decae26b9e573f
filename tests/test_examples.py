"""Each script of examples/ runs to its end, as a user would run it, and says what it found."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
SAYS = {  # a line that only a right result prints
    "1_train_with_the_layer": r"with the trained layer: [6-9]\d\.\d %",
    "2_export_tables": "the file's tables and pixels are the layer's",
    "3_compile_a_network": "after refresh: True",
    "4_fine_tune": r"on real files with the tuned tables: [6-9]\d\.\d %",
    "5_batch_inference_with_ray": "70 images; the bits of one process: True",
    "6_train_with_timm_and_lightning": r"moved by [0-9.]+ on average; [6-9]\d\.\d %",
}
NEEDS = {  # what `pip install ".[test]"` does not bring
    "5_batch_inference_with_ray": ["ray"],
    "6_train_with_timm_and_lightning": ["timm", "lightning", "tensorboard"],
}


def test_there_is_a_line_for_each():
    assert {path.stem for path in SCRIPTS} == set(SAYS)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own exporter to ONNX
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of Ray
@pytest.mark.filterwarnings("ignore::UserWarning:lightning")  # about few workers and few batches
def test_example(path, capsys, monkeypatch, tmp_path):
    for package in NEEDS.get(path.stem, ()):
        pytest.importorskip(package)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    runpy.run_path(str(path), run_name="__main__")
    assert re.search(SAYS[path.stem], capsys.readouterr().out)
