"""The plan of CPO and CPS: the definition's, and linear in the columns that exist."""

from __future__ import annotations

import column_plan_oracle as oracle
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import jsc
from jsc._geometry import ConvGeometry
from jsc.formats import CPC, CPO, CPS
from jsc.ops import amx, column_order, lowering

ARRAYS = ("column", "kernel_column", "rank", "ptr_first", "ptr_last")
SPARSE = ("cpo", "cps", "cpc")


def row(W: int, Kw: int, Sw: int = 1, Pw: int = 0, Dw: int = 1) -> ConvGeometry:
    return ConvGeometry(1, 1, 3, W, 1, 1, Kw, 1, Sw, 0, Pw, 1, Dw)


@settings(max_examples=200)
@given(
    W=st.integers(0, 20), Kw=st.integers(1, 9), Sw=st.integers(1, 12), Pw=st.integers(0, 20),
    Dw=st.integers(1, 12), sets=st.booleans(),
)  # fmt: skip
def test_it_is_the_definition(W, Kw, Sw, Pw, Dw, sets):
    g = row(W, Kw, Sw, Pw, Dw)
    assume(g.Ow > 0)
    expected, made = oracle.plan(g), column_order.column_plan(g, sets=sets)
    for name in ARRAYS:
        assert getattr(made, name).tolist() == getattr(expected, name), name
    bare = column_order.column_plan(g, sets=sets, pointers=False)
    assert bare.column.tolist() == expected.column
    assert bare.entries == 0


@pytest.mark.parametrize(
    ("Kw", "Sw", "Pw", "Dw"),
    [(3, 2**24, 2**24, 1), (3, 2**40, 2**40, 1), (3, 1, 2**40, 2**40), (2, 2**59, 2**59, 2**58)],
)
def test_padding_that_no_column_lies_in_costs_nothing(Kw, Sw, Pw, Dw):
    g = row(4, Kw, Sw, Pw, Dw)
    made = column_order.column_plan(g)
    expected = [(j, oracle.windows(j + Pw, g)) for j in range(4)] if g.Ow < 100 else None
    assert expected is not None
    order = sorted((len(w), w[0][0], j) for j, w in expected if w)
    assert made.column.tolist() == [j for _, _, j in order]


def test_a_long_row():
    """Some milliseconds; the definition takes minutes."""
    x, w = torch.randint(-4, 5, (1, 1, 1, 2**17)).float(), torch.randint(-4, 5, (2, 1, 1, 5))
    for method in SPARSE:
        out = jsc.functional.conv2d(x, w.float(), padding=(0, 2), method=method)
        assert torch.equal(out, F.conv2d(x, w.float(), padding=(0, 2))), method
    for kind in (CPO, CPS):
        assert torch.equal(kind.encode(x, (1, 5)).decode(), x)


def test_mostly_padding_is_refused_in_words():
    g = ConvGeometry(1, 1, 4, 4, 1, 3, 3, 2**26, 2**26, 2**26, 2**26)
    assert "padding" in lowering.mec_unsupported(g)
    assert lowering.mec_unsupported(g._replace(Sh=1, Sw=1, Ph=1, Pw=1)) is None
    # Without a padding, a stride leaves rows out that exist: that is not a reason.
    assert lowering.mec_unsupported(ConvGeometry(1, 1, 400, 400, 1, 3, 3, 50, 50)) is None
    for kind in (CPO, CPS):
        with pytest.raises(ValueError, match="windows with padding"):
            kind.encode(torch.ones(1, 1, 4, 4), 3, padding=(0, 2**20))
    assert CPC.encode(torch.ones(1, 1, 4, 4), 3, padding=(0, 2**20)).elements == 16 + 16 + 5


def test_amx_refuses_planes_of_padding(monkeypatch):
    monkeypatch.setattr("jsc._config.amx", lambda: True)
    g = ConvGeometry(1, 40, 16, 16, 8, 3, 3, 1, 1, 1, 1)
    assert amx.unsupported(g) is None
    assert amx.unsupported(g._replace(Ph=36, Pw=36, Dh=36, Dw=36)) is None
    assert "padding" in amx.unsupported(g._replace(Ph=2**22, Dh=2**22))
    assert "padding" in amx.unsupported(g._replace(Pw=2**22, Dw=2**22))
