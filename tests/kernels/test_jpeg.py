"""The fused layer against the reference, on every instruction set, with one and two threads."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import gradients, same_bits

from jsc.functional import jpeg
from jsc.reference import jpeg as reference

SCALES = {3: {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}, 1: {"mean": [0.5], "std": [0.2]}}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(0, 3), channels=st.sampled_from([1, 3]),
    h=st.integers(1, 33), w=st.integers(1, 40),
    quantizer=st.sampled_from(["soft", "hard", "ste"]), window=st.sampled_from([None, 5]),
    levels=st.sampled_from([None, 4]), seed=st.integers(0, 99),
)  # fmt: skip
def test_value_and_gradients(
    isa, num_threads, dtype, n, channels, h, w, quantizer, window, levels, seed
):
    # In double precision and compared as such: a hard layer in float32 rounds ties either way.
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((n, channels, h, w), generator=generator, dtype=torch.float64)
    tables = torch.rand((2, 8, 8), generator=generator, dtype=torch.float64) * 30 + 2
    kappa = torch.rand((2, 8, 8), generator=generator, dtype=torch.float64) * 8
    g = torch.randn((n, channels, h, w), generator=generator, dtype=torch.float64)
    options = {"quantizer": quantizer, "window": window, "levels": levels, **SCALES[channels]}
    if dtype == torch.float32:
        if quantizer != "soft" or window:
            return  # values jump there
        x, tables, kappa, g = (t.float() for t in (x, tables, kappa, g))
    y, found = gradients(lambda a, b, c: jpeg(a, b, kappa=c, **options), x, tables, kappa, g=g)
    expected, wanted = gradients(
        lambda a, b, c: reference.jpeg(a, b, c, **options),
        x.double(),
        tables.double(),
        kappa.double(),
        g=g,
    )
    rtol = 1e-10 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=rtol / 5)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(
            a.double(), b, rtol=0, atol=rtol * (b.abs().max().item() if b.numel() else 0) + rtol
        )


def test_same_bits_for_threads_instruction_sets_and_batches(num_threads, dtype):
    x, g = torch.rand(5, 3, 40, 72, dtype=dtype), torch.randn(5, 3, 40, 72, dtype=dtype)
    tables, kappa = torch.rand(2, 8, 8, dtype=dtype) * 20 + 1, torch.rand(2, 8, 8, dtype=dtype) * 50

    def run():
        return gradients(lambda *a: jpeg(a[0], a[1], kappa=a[2]), x, tables, kappa, g=g)

    y, _ = same_bits(run)
    split = torch.cat([jpeg(part, tables, kappa=kappa) for part in x.split([1, 4])])
    assert torch.equal(split, y)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_in_its_block(isa, dtype, value):
    x = torch.rand(2, 3, 24, 40, dtype=dtype)
    clean = jpeg(x, torch.full((2, 8, 8), 10.0, dtype=dtype))
    x[1, 2, 13, 20] = value
    y = jpeg(x, torch.full((2, 8, 8), 10.0, dtype=dtype))
    hit = torch.zeros_like(x, dtype=torch.bool)
    hit[1, :, 8:16, 16:24] = True
    assert torch.equal(y[~hit], clean[~hit])
    assert y[hit].isnan().any()


def test_any_strides(isa):
    x, tables = (
        torch.rand(2, 24, 20, 3).permute(0, 3, 1, 2),
        torch.rand(8, 8, 2).permute(2, 1, 0) * 9 + 1,
    )
    expected = jpeg(x.contiguous(), tables.contiguous())
    assert torch.equal(jpeg(x, tables), expected)
    assert torch.equal(jpeg(x.contiguous(memory_format=torch.channels_last), tables), expected)
    one = x[:1].expand(3, -1, -1, -1)
    assert torch.equal(jpeg(one, tables)[2], expected[0])
