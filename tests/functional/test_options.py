"""`JpegOptions`: checked once, never changed, the same for the function, the rate and the layer."""

import copy
import pickle
from dataclasses import FrozenInstanceError, fields, replace
from inspect import signature

import numpy as np
import pytest
import torch
from samples import photo

import jsc
from jsc.functional import JpegOptions, jpeg, jpeg_rate

COMPILER = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
OTHERS = {
    "quantizer": "ste", "window": 5, "levels": 127, "subsampling": "4:2:0",
    "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "peak": 255.0, "chroma_offset": 0.5,
    "padding": "zero",
}  # fmt: skip


def test_it_is_a_value():
    options = JpegOptions(**OTHERS)
    assert options == JpegOptions(**OTHERS) != JpegOptions()
    assert hash(options) == hash(JpegOptions(**OTHERS))
    for other in (copy.deepcopy(options), pickle.loads(pickle.dumps(options))):
        assert other == options
    with pytest.raises(FrozenInstanceError):
        options.peak = 1.0
    assert replace(options, window=None) == JpegOptions(**{**OTHERS, "window": None})
    with pytest.raises(ValueError, match="odd"):
        replace(options, window=4)


@pytest.mark.parametrize("options", [JpegOptions(), JpegOptions(**OTHERS), JpegOptions(std=[0.5])])
def test_its_repr_makes_it_again(options):
    assert eval(repr(options)) == options


def test_fields_are_numbers_of_pythons():
    given = JpegOptions(
        window=np.int64(5),
        levels=np.int32(7),
        peak=np.float32(2),
        mean=[np.float64(0.5)] * 3,
        std=1,
    )
    assert given == JpegOptions(window=5, levels=7, peak=2.0, mean=(0.5, 0.5, 0.5), std=1.0)
    found = [given.window, given.levels, given.peak, given.mean[0], given.std, given.chroma_offset]
    assert [type(v) for v in found] == [int, int, float, float, float, float]


@pytest.mark.parametrize("function", [jpeg, jpeg_rate, jsc.nn.JPEG.__init__])
def test_each_caller_has_every_option_with_its_default(function):
    parameters = signature(function).parameters
    for field in fields(JpegOptions):
        assert parameters[field.name].default == field.default
        assert parameters[field.name].kind is parameters[field.name].KEYWORD_ONLY


@pytest.mark.parametrize("name", OTHERS)
def test_every_option_reaches_the_layer(name):
    """One option at a time differs: the layer holds it, and the function gives what the layer
    does."""
    given = {name: OTHERS[name]}
    layer = jsc.nn.JPEG.from_quality(30, kappa=2.0, **given)
    assert layer.options == JpegOptions(**given)
    x, tables = photo(1, 21, 30), jsc.jpeg.quality_tables(30)
    assert torch.equal(jpeg(x, tables, kappa=2.0, **given), layer(x))
    assert torch.equal(jpeg_rate(x, tables, kappa=2.0, **given), layer.rate(x))
    shared = {k: v for k, v in given.items() if k in signature(jsc.jpeg.decoded).parameters}
    assert torch.equal(jsc.jpeg.decoded(x, tables.long(), **shared), layer.decoded(x))


def test_normalisation_of_channels():
    assert JpegOptions().normalisation(3) == ([0.0] * 3, [1.0] * 3)
    assert JpegOptions(mean=0.5, std=(1, 2, 3)).normalisation(3) == ([0.5] * 3, [1.0, 2.0, 3.0])
    assert JpegOptions(mean=(0.5,)).normalisation(1) == ([0.5], [1.0])
    with pytest.raises(ValueError, match="mean must be a number or 1 numbers"):
        JpegOptions(mean=(0.5, 0.4, 0.3)).normalisation(1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"quantizer": "round"}, ValueError, "soft, hard, ste, sample; got 'round'"),
        ({"quantizer": None}, ValueError, "quantizer must be one of"),
        ({"subsampling": ["4:4:4"]}, ValueError, "4:4:4, 4:2:2, 4:2:0"),
        ({"padding": "reflect"}, ValueError, "replicate, zero"),
        ({"peak": 0}, ValueError, "peak must be positive: 1 for images in .* got 0"),
        ({"peak": "1"}, TypeError, "peak must be a number"),
        ({"chroma_offset": float("nan")}, ValueError, "chroma_offset must be finite"),
        ({"window": 6}, ValueError, "odd"),
        ({"window": 5, "levels": 1}, ValueError, "does not fit"),
        ({"levels": True}, ValueError, "levels must be None or an int"),
        ({"mean": (0.5, 0.5)}, ValueError, "mean must be a number or 3 numbers"),
        ({"mean": torch.zeros(3)}, TypeError, "mean must be a number or 3 numbers"),
        ({"mean": "abc"}, TypeError, "mean must be a number or 3 numbers"),
        ({"mean": (0.5,), "std": (1, 1, 1)}, ValueError, "mean must be a number or 3 numbers"),
        ({"std": ()}, ValueError, "std must be a number or 3 numbers"),
        ({"std": (1, 0, 1)}, ValueError, "std must be positive"),
        ({"std": (1, None, 1)}, TypeError, "std must be a number"),
        ({"peak": 1e-40}, ValueError, "peak and std must be such that .* got peak=1e-40"),
        ({"peak": 1e40}, ValueError, "peak and std must be such that"),
        ({"std": 1e-40}, ValueError, "peak and std must be such that .* std=1e-40"),
        ({"std": (1, 1e40, 1)}, ValueError, "peak and std must be such that"),
        ({"std": 1e-30, "peak": 1e10}, ValueError, "peak and std must be such that"),
        ({"mean": 1e36}, ValueError, "mean must be such that .* got 1e[+]36"),
        ({"mean": 1e10, "std": 1e-30}, ValueError, "mean must be such that"),
    ],
)
def test_errors(change, error, message):
    for make in (JpegOptions, jsc.nn.JPEG):
        with pytest.raises(error, match=message):
            make(**change)
    with pytest.raises(error, match=message):
        jpeg(torch.zeros(1, 3, 8, 8), torch.ones(2, 8, 8), **change)


@pytest.mark.parametrize(
    "options",
    [
        {"peak": 3e-33}, {"peak": 2e37}, {"peak": 255, "std": 2e-35}, {"peak": 255, "std": 9e34},
        {"mean": 3e32}, {"mean": 9e4, "std": 1e-30, "peak": 255},
    ],
)  # fmt: skip
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_what_is_not_refused_is_finite(options, subsampling):
    x, tables = torch.zeros(1, 3, 8, 8), torch.full((2, 8, 8), 10.0)
    assert jpeg(x, tables, subsampling=subsampling, **options).isfinite().all()


@COMPILER
def test_a_traced_program_may_make_one():
    """The function checks its options while torch.compile traces it, in one graph."""
    torch._dynamo.reset()
    f = lambda x, t: jpeg(x, t, kappa=2.0, **OTHERS)  # noqa: E731
    x, tables = photo(1, 16, 24) * 255, jsc.jpeg.quality_tables(50)
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, tables), f(x, tables), rtol=1e-5, atol=1e-4)
