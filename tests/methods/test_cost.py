"""`Method.cost` ranks the methods as they were measured: the likely fastest is tried first."""

from __future__ import annotations

import math

import pytest

from jsc import _precision
from jsc._geometry import ConvGeometry
from jsc.methods import METHODS, get, likely_fastest_first

# Milliseconds on one thread, from benchmarks/results/paper.md ("The paper's layers").
ORDER = ("dense", "im2col", "mec", "cpo", "cps", "cpc")
MEASURED = {
    "3x3 32-32@149": (
        ConvGeometry(1, 32, 149, 149, 32, 3, 3), 0.59,
        (3.885, 14.79, 5.782, 5.403, 4.492, 2.951),
    ),
    "1x1 64-80@73": (
        ConvGeometry(1, 64, 73, 73, 80, 1, 1), 0.77,
        (0.4523, 0.498, 0.5083, 2.455, 1.916, 1.158),
    ),
    "3x3 80-192@71": (
        ConvGeometry(1, 80, 71, 71, 192, 3, 3), 0.479,
        (8.372, 11.23, 9.433, 7.858, 7.736, 6.471),
    ),
    "5x5 48-64@35": (
        ConvGeometry(1, 48, 35, 35, 64, 5, 5, 1, 1, 2, 2), 0.479,
        (1.188, 1.706, 1.47, 0.8869, 0.8449, 0.7241),
    ),
    "7x1 160-192@17": (
        ConvGeometry(1, 160, 17, 17, 192, 7, 1, 1, 1, 3, 0), 0.17,
        (0.7965, 1.059, 0.9686, 0.4424, 0.4104, 0.3087),
    ),
}  # fmt: skip
SLACK = 1.5  # times as fast: what is nearer than that may be ranked either way


@pytest.mark.parametrize("layer", MEASURED)
def test_the_ranking_is_that_of_the_measurements(layer):
    g, density, times = MEASURED[layer]
    costs = [get(name).cost(g, density) for name in ORDER]
    for a, first in enumerate(ORDER):
        for b, second in enumerate(ORDER):
            if times[a] * SLACK < times[b]:
                assert costs[a] < costs[b], (first, second)


@pytest.mark.parametrize("name", METHODS)
def test_only_sparse_methods_cost_less_where_there_are_more_zeros(name):
    method = get(name)
    g = ConvGeometry(2, 64, 28, 28, 64, 3, 3, 1, 1, 1, 1)
    costs = [method.cost(g, density) for density in (0.0, 0.3, 0.6, 1.0)]
    assert all(math.isfinite(cost) and cost > 0 for cost in costs)
    if method.sparse:
        assert costs == sorted(set(costs))
    else:
        assert len(set(costs)) == 1
    assert method.cost(g._replace(N=20), 0.5) == pytest.approx(10 * method.cost(g, 0.5))


def test_the_order_follows_the_density_and_leaves_dense_out():
    g = ConvGeometry(1, 64, 28, 28, 64, 3, 3, 1, 1, 1, 1)
    order = likely_fastest_first(g, 0.1)
    assert sorted(order) == sorted(name for name in METHODS if name != "dense")
    assert order[0] == "cpc"
    dense = likely_fastest_first(g, 1.0)
    assert dense.index("amx") < dense.index("cpc")
    assert dense.index("mec") < dense.index("cpo")


def test_tiles_cost_less_at_a_lower_precision(monkeypatch):
    g, costs = ConvGeometry(1, 64, 28, 28, 64, 3, 3, 1, 1, 1, 1), []
    for word in ("bf16", "tf32", "ieee"):
        monkeypatch.setattr(_precision, "of_convolutions", lambda word=word: word)
        costs.append(get("amx").cost(g, 0.5))
    assert costs == sorted(set(costs))


def test_nothing_to_convolve_has_a_cost():
    for g in (ConvGeometry(0, 3, 5, 5, 4, 3, 3), ConvGeometry(1, 3, 5, 5, 0, 3, 3)):
        assert all(math.isfinite(get(name).cost(g, 0.0)) for name in METHODS)


def test_winograd_gains_where_channels_are_many_and_loses_where_they_are_few():
    wide, narrow = (ConvGeometry(64, c, 32, 32, c, 3, 3, 1, 1, 1, 1) for c in (64, 16))
    winograd, dense = get("winograd"), get("dense")
    # ratios of time measured on one thread of an AMD EPYC with AVX-512: 0.57 and 1.05
    assert winograd.cost(wide, 1.0) / dense.cost(wide, 1.0) == pytest.approx(0.57, rel=0.15)
    assert winograd.cost(narrow, 1.0) / dense.cost(narrow, 1.0) == pytest.approx(1.05, rel=0.15)
