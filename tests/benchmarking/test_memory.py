"""`memory`: sizes of the dense storages, the benchmark, and its figures."""

import pytest
import torch
from torch import nn

from benchmarks.convolution import memory


def test_memory_and_figures(run, tmp_path):
    pytest.importorskip("matplotlib")
    run("conv")
    for row in run("memory")["memory"]["rows"]:
        assert row["im2col"]["compression ratio"] == 1
    run("plots")
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert {"memory_ratio.png", "conv_saving_over_dense_1.png"} <= drawn


def test_mec_and_im2col_sizes():
    layer = nn.Conv2d(2, 1, 3, padding=1)
    sizes = memory.lowered(layer, torch.ones(1, 2, 5, 6))
    assert sizes["im2col"].elements == 2 * 5 * 6 * 9
    assert sizes["MEC"].elements == 2 * 6 * 7 * 3
    assert sizes["MEC"].compression_ratio == pytest.approx(540 / 252)
