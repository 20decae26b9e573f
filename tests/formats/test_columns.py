"""CPO and CPS: arrays against the obvious encoders, sizes against formulas, hostile arrays."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, pairwise

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from strategies import ConvCase, conv_cases

from jsc.formats import CPO, CPS
from jsc.reference import formats as reference

FORMATS = [CPO, CPS]
dtypes = st.sampled_from([torch.float32, torch.float64])
fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

# The worked example of the formats' specification: 8 x 6, kernel 3 x 3.
EXAMPLE = torch.tensor(
    [
        [0, 0, 1, 0, 0, 0],
        [2, 0, 3, 0, 0, 4],
        [0, 5, 6, 0, 0, 0],
        [0, 0, 7, 0, 8, 0],
        [9, 0, 0, 1, 0, 2],
        [0, 0, 0, 0, 3, 0],
        [0, 4, 0, 5, 0, 0],
        [0, 0, 0, 6, 0, 0],
    ],
    dtype=torch.float64,
).view(1, 1, 8, 6)


def random_map(shape, density, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype) * (torch.rand(shape) < density)


def encode(kind, case: ConvCase, dtype):
    x, _, _ = case.tensors(dtype, integer=False)
    return x, kind.encode(x, case.kernel, case.stride, case.padding, case.dilation)


def test_worked_example_cpo():
    made = CPO.encode(EXAMPLE, 3)
    assert made.Ptr.tolist() == [[0, 2, 4, 0, 2, 2, 4, 4, 0, 4, 7, 7, 7]]
    assert made.IN.tolist() == [3, 12, 5, 14, 7, 19, 11, 17, 2, 5, 8, 11, 14, 20, 23]
    assert made.DA.tolist() == [2, 9, 4, 2, 5, 4, 8, 3, 1, 3, 6, 7, 1, 5, 6]
    assert made.elements == 43
    assert made.compression_ratio == 216 / 43
    assert repr(made) == (
        "CPO(1 x 1 x 8 x 6, kernel 3 x 3, density 0.312, 43 elements, 192 bytes, "
        "5.02 x smaller than im2col)"
    )


def test_worked_example_cps():
    made = CPS.encode(EXAMPLE, 3)
    assert made.Ptr.tolist() == [[0, 2, 4, 0, 2, 2, 4, 4, 0, 4, 7, 7, 7]]
    assert [divmod(word, 16) for word in made.IN.tolist()] == [  # set within the column, pattern
        (0, 2), (1, 1), (0, 2), (1, 1), (0, 4), (1, 4), (0, 8), (1, 2), (0, 15), (1, 13),
    ]  # fmt: skip
    assert made.DA.tolist() == [2, 9, 4, 2, 5, 4, 8, 3, 1, 3, 6, 7, 1, 5, 6]
    assert (made.elements, made.packed_elements) == (40, 38)


def test_the_papers_index_stream_of_the_example():
    g = CPS.encode(EXAMPLE, 3).geometry
    words = reference.cps_encode(EXAMPLE[0, 0], g, packed=False).IN
    assert words == [1, 4, 41, 44, 10, 14, 35, 37, ~16, 15, ~28, 13]


@fixtures
@given(case=conv_cases(), dtype=dtypes)
def test_cpo_arrays_are_the_obvious_ones(isa, num_threads, case, dtype):
    x, made = encode(CPO, case, dtype)
    ptr = iter(made.Ptr.tolist())
    decoded = made.decode().flatten(0, 1).double()
    for plane, out, (begin, end) in zip(
        x.flatten(0, 1), decoded, pairwise(made.offsets.tolist()), strict=True
    ):
        expected = reference.cpo_encode(plane, made.geometry)
        assert made.IN[begin:end].tolist() == expected.IN
        assert made.DA[begin:end].tolist() == expected.DA
        if begin < end:
            full = expected.Ptr
            if len(next_row := next(ptr)) != sum(
                map(len, full)
            ):  # the first pattern trimmed to 3 entries
                full = [[0, full[0][1], full[0][-1]], *full[1:]]
            assert next_row == list(chain(*full))
        assert torch.equal(reference.cpo_decode(expected, made.geometry), out)


@fixtures
@given(case=conv_cases(), dtype=dtypes)
def test_cps_arrays_are_the_obvious_ones(isa, num_threads, case, dtype):
    x, made = encode(CPS, case, dtype)
    cpo = CPO.encode(x, case.kernel, case.stride, case.padding, case.dilation)
    assert torch.equal(made.DA, cpo.DA)
    assert made.Ptr.tolist() == cpo.Ptr.tolist()
    paper = 0
    for plane, (begin, end) in zip(
        x.flatten(0, 1), pairwise(made.set_offsets.tolist()), strict=True
    ):
        assert made.IN[begin:end].tolist() == reference.cps_encode(plane, made.geometry).IN
        paper += len(reference.cps_encode(plane, made.geometry, packed=False).IN)
    assert made.elements == made.DA.numel() + paper + made.Ptr.numel()
    assert made.packed_elements <= made.elements <= cpo.elements


@pytest.mark.parametrize("kind", FORMATS)
@fixtures
@given(case=conv_cases(), dtype=dtypes)
def test_decode_inverts_encode(isa, num_threads, kind, case, dtype):
    x, made = encode(kind, case, dtype)
    expected = x.clone()
    read = {column for pattern in reference.patterns(made.geometry) for _, column, _ in pattern}
    for j in range(x.shape[3]):  # columns that no window reads are not stored
        if j + made.geometry.Pw not in read:
            expected[..., j] = 0
    assert torch.equal(made.decode(), expected)
    assert made == kind.encode(made.decode(), case.kernel, case.stride, case.padding, case.dilation)


@pytest.mark.parametrize("kind", FORMATS)
def test_reference_decoders_invert_reference_encoders(kind):
    g = kind.encode(EXAMPLE, 3).geometry
    encoder, decoder = (
        (reference.cpo_encode, reference.cpo_decode)
        if kind is CPO
        else (reference.cps_encode, reference.cps_decode)
    )
    assert torch.equal(decoder(encoder(EXAMPLE[0, 0], g), g), EXAMPLE[0, 0])


@given(
    H=st.integers(1, 30), W=st.integers(1, 30), Kh=st.integers(1, 7), Kw=st.integers(1, 7),
    density=st.sampled_from([0.02, 0.3, 1.0]),
)  # fmt: skip
def test_sizes_follow_the_closed_formulas(H, W, Kh, Kw, density):
    """Elements of one channel at stride 1 without padding, on maps at least two kernels wide."""
    assume(Kh <= H and 2 * Kw - 1 <= W)
    x = random_map((1, 1, H, W), density)
    x[0, 0, H - 1, W // 2] = 1.0
    cpo, cps = CPO.encode(x, (Kh, Kw)), CPS.encode(x, (Kh, Kw))
    Oh, Ow, nnz = H - Kh + 1, W - Kw + 1, int(x.count_nonzero())
    pointers = (Kw - 1) * (Ow + 1) + min(Ow + 1, 3) if Kw > 1 else Ow + 1
    per_set = torch.nn.functional.pad((x[0, 0] != 0).int(), (0, 0, 0, -H % 4)).view(-1, 4, W).sum(1)
    assert cpo.elements == 2 * nnz + pointers
    assert cps.elements == nnz + int(per_set.clamp(max=2).sum()) + pointers
    assert cps.packed_elements == nnz + int((per_set > 0).sum()) + pointers
    assert cpo.compression_ratio == Oh * Ow * Kh * Kw / cpo.elements
    assert cpo.nbytes == nnz * (4 + 2) + 2 * pointers + 16


@pytest.mark.parametrize("density", [0.1, 0.3, 0.7])
def test_cps_size_of_random_maps(density):
    """Independent non-zeros: A (rho - rho^3 + rho^4 / 2) words, A/4 (1 - (1 - rho)^4) sets."""
    x = random_map((1, 4, 200, 200), density)
    made, area = CPS.encode(x, 3), x.numel()
    words = made.elements - made.DA.numel() - made.Ptr.numel()
    assert words == pytest.approx(area * (density - density**3 + density**4 / 2), rel=0.02)
    assert made.IN.numel() == pytest.approx(area / 4 * (1 - (1 - density) ** 4), rel=0.02)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("shape", [(0, 3, 5, 5), (2, 3, 5, 5), (1, 1, 1, 1)])
def test_all_zero_channels_cost_an_offset_only(kind, shape):
    made = kind.encode(torch.zeros(shape), 1)
    offsets = (1 if kind is CPO else 2) * 8 * (shape[0] * shape[1] + 1)
    assert (made.elements, made.nbytes) == (0, offsets)
    assert torch.equal(made.decode(), torch.zeros(shape))


@pytest.mark.parametrize("kind", FORMATS)
def test_shape_decides_the_index_width(kind):
    small, large = torch.zeros(1, 1, 255, 255), torch.zeros(1, 1, 300, 300)
    small[0, 0, 254, 254] = large[0, 0, 299, 299] = large[0, 0, 0, 0] = 1
    assert kind.encode(small, 1).IN.dtype == torch.uint16
    assert kind.encode(large, 1).IN.dtype == torch.int32
    for x in (small, large):
        assert torch.equal(kind.encode(x, 1).decode(), x)
        assert torch.equal(kind.encode(x, 7, padding=3).decode(), x)


@pytest.mark.parametrize("kind", FORMATS)
def test_special_values(kind):
    x = torch.tensor([[float("nan"), -0.0, float("inf")], [0.0, -float("inf"), 1e-45]]).view(
        1, 1, 2, 3
    )
    made = kind.encode(x, 2)
    assert len(made.DA) == 4
    assert torch.equal(made.decode().nan_to_num(7.0), x.nan_to_num(7.0))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("change", ["transpose", "slice", "expand", "channels_last"])
def test_maps_of_any_strides(kind, change):
    x = random_map((2, 3, 8, 8), 0.5)
    x = {
        "transpose": lambda: x.transpose(2, 3),
        "slice": lambda: x[:, 1:, ::2, 1::3],
        "expand": lambda: x[:1, :1].expand(2, 3, 8, 8),
        "channels_last": lambda: x.contiguous(memory_format=torch.channels_last),
    }[change]()
    assert torch.equal(kind.encode(x, 2).decode(), x)


# ---- arrays from elsewhere ---------------------------------------------------------------------


def arrays(made):
    names = ("DA", "IN", "Ptr", "offsets") + (("set_offsets",) if isinstance(made, CPS) else ())
    return {name: getattr(made, name).clone() for name in names}


@pytest.mark.parametrize("kind", FORMATS)
def test_from_arrays_takes_what_encode_makes(kind):
    made = kind.encode(random_map((2, 3, 9, 7), 0.4), 3, stride=2, padding=1)
    assert (
        kind.from_arrays(**arrays(made), shape=(2, 3, 9, 7), kernel_size=3, stride=2, padding=1)
        == made
    )


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=200)
@given(data=st.data())
def test_damaged_arrays_raise_or_decode_to_something(kind, data):
    """Any damage either raises ValueError or describes another valid map; nothing crashes."""
    kernel, stride = data.draw(st.sampled_from([(3, 1), (2, 2), (3, 2), (1, 1), (5, 1)]))
    torch.manual_seed(kernel)
    made = kind.encode(random_map((2, 2, 9, 8), 0.4), kernel, stride)
    damaged = arrays(made)
    name = data.draw(st.sampled_from([n for n in damaged if n != "DA"]))
    values = damaged[name].to(torch.int64).view(-1)
    place = data.draw(st.integers(0, len(values) - 1))
    limit = 2**16 - 1 if damaged[name].dtype == torch.uint16 else 2**40
    values[place] = data.draw(st.one_of(st.integers(0, limit), st.integers(0, 200)))
    damaged[name] = values.view(damaged[name].shape).to(damaged[name].dtype)
    try:
        other = kind.from_arrays(**damaged, shape=(2, 2, 9, 8), kernel_size=kernel, stride=stride)
    except ValueError:
        return
    again = kind.encode(other.decode(), kernel, stride)
    assert again == other


@pytest.mark.parametrize("kind", FORMATS)
def test_malformed_arrays_are_named(kind):
    made = kind.encode(random_map((1, 2, 8, 8), 0.5), 3)
    broken = made.IN.clone()
    broken[0] = 60000
    with pytest.raises(ValueError, match="contradict"):
        replace(made, IN=broken).decode()
    with pytest.raises(ValueError, match="offsets must"):
        replace(made, offsets=made.offsets[:-1]).decode()
    with pytest.raises(ValueError, match="offsets must ascend"):
        replace(made, offsets=made.offsets.flip(0)).decode()
    with pytest.raises(ValueError, match="Ptr must be"):
        replace(made, Ptr=made.Ptr[:, :-1].contiguous()).decode()
    with pytest.raises(TypeError, match="IN must be"):
        replace(made, IN=made.IN.to(torch.int64)).decode()
    with pytest.raises(ValueError, match="must"):
        replace(made, DA=made.DA[:-1]).decode()
    with pytest.raises(ValueError, match="must"):
        replace(made, IN=made.IN[:-1]).decode()


@pytest.mark.parametrize("kind", FORMATS)
def test_bad_arguments(kind):
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        kind.encode(torch.zeros(3, 5, 5), 3)
    with pytest.raises(ValueError, match="does not fit"):
        kind.encode(torch.zeros(1, 3, 2, 5), 3)
    with pytest.raises(TypeError, match="float32 or float64"):
        kind.encode(torch.zeros(1, 3, 5, 5, dtype=torch.int32), 3)
    with pytest.raises(ValueError, match="stride"):
        kind.encode(torch.zeros(1, 3, 5, 5), 3, stride=0)
