"""What a compiled network once got wrong in silence: each gave numbers that are not torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import jsc
from jsc.network import packing

ACTIVATIONS = [
    F.silu, F.gelu, lambda x: F.gelu(x, approximate="tanh"), F.hardswish, F.mish, F.elu,
    F.leaky_relu, F.relu, F.relu6, F.hardsigmoid, torch.sigmoid, torch.tanh, F.softplus,
]  # fmt: skip


class Of(nn.Module):
    """A module from a function of its input, with parts."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def compiled(model, x, check=False):
    return jsc.compile(model.eval(), x, budget=0, progress=False, check=check)


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_tensor_of_torch_that_does_not_begin_its_storage():
    def halves(self, x):
        a, b = x.chunk(2)
        return a @ b.transpose(1, 2)

    x = torch.randn(4, 5, 6)
    same(compiled(Of(halves), x)(x), halves(None, x))


def test_an_input_that_is_a_slice():
    model, big = Of(lambda self, x: x[:, 1:3].cumsum(1)), torch.randn(6, 5)
    same(compiled(model, big[:2])(big[2:4]), model(big[2:4]))
    model = Of(lambda self, x: x.permute(0, 2, 3, 1).roll(1, 1))
    big = torch.randn(6, 4, 5, 3).contiguous(memory_format=torch.channels_last)
    same(compiled(model, big[:2])(big[2:4]), model(big[2:4]))


@pytest.mark.parametrize("exchanged", [False, True])
def test_channels_in_two_dimensions_as_a_result(exchanged):
    def heads(self, x):
        y = self.conv(x)
        y = y.view(y.shape[0], 2, 4, *y.shape[2:])
        return y.transpose(1, 2) if exchanged else y

    x = torch.randn(2, 3, 6, 5)
    model = Of(heads, conv=nn.Conv2d(3, 8, 3)).eval()
    with torch.inference_mode():
        net = compiled(model, x)
        same(net(x), model(x))
        same(net(x[:1].contiguous()), model(x[:1]))


def test_autocast_changes_nothing():
    layers = nn.ConvTranspose2d(3, 8, 3, dilation=2), nn.ReLU(), nn.Conv2d(8, 4, 1)
    model, x = nn.Sequential(*layers).eval(), torch.randn(2, 3, 6, 5)
    with torch.inference_mode():
        expected = model(x)
        net = compiled(model, x)
        with torch.autocast("cpu", torch.bfloat16):
            same(net(x), expected)
            same(compiled(model, x, check=True)(x), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_changes_nothing(dtype):
    model, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval(), torch.randn(2, 3, 6, 5)
    with torch.inference_mode():
        expected, net = model(x), compiled(model, x)
        torch.set_default_dtype(dtype)
        try:
            results = net(x), compiled(model, x, check=dtype == torch.float64)(x)
        finally:
            torch.set_default_dtype(torch.float32)
        for found in results:
            same(found, expected)


@pytest.mark.parametrize("other", [3, 8])
def test_a_path_that_depends_on_the_batch(other):
    def odd(self, x):
        special = x.shape[0] % 2 if other == 3 else x.shape[0] == 8
        return self.b(x) if special else self.a(x)

    model = Of(odd, a=nn.Conv2d(3, 4, 3), b=nn.Conv2d(3, 4, 3)).eval()
    with torch.inference_mode():
        net = compiled(model, torch.randn(4, 3, 8, 8))
        for count in (4, other, 6):
            x = torch.randn(count, 3, 8, 8)
            same(net(x), model(x))


def test_a_linear_layer_with_a_bias_that_is_broadcast():
    x = torch.randn(3, 8)
    for size in ((), (1,)):
        parts = {"w": nn.Parameter(torch.randn(16, 8)), "bias": nn.Parameter(torch.randn(size))}
        model = Of(lambda self, x: F.linear(x, self.w, self.bias), **parts).eval()
        with torch.inference_mode():
            same(compiled(model, x)(x), model(x))


def test_refresh_after_calls_in_inference_mode():
    def product(self, x):
        return self.conv(x).cumsum(1) @ self.w

    parts = {"conv": nn.Conv2d(3, 4, 3), "w": nn.Parameter(torch.randn(3, 2))}
    model, x = Of(product, **parts).eval(), torch.randn(2, 3, 6, 5)
    with torch.inference_mode():
        net = compiled(model, x)
        net(x)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.5)
    net.refresh(model)
    with torch.no_grad():
        same(net(x), model(x))


@pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16"])
def test_means_over_channels_keep_their_bits_at_every_precision(precision):
    model, x = (
        Of(lambda self, x: x.mean(1, keepdim=True) + x.sum(1, keepdim=True)),
        torch.randn(2, 32, 6, 5),
    )
    with torch.inference_mode():
        net = jsc.compile(model, x, budget=0, progress=False, check=False, precision=precision)
        torch.testing.assert_close(net(x), model(x), rtol=1e-5, atol=1e-5)


def test_a_copy_is_a_copy():
    model, x = (
        Of(lambda self, x: (self.conv(x), x.clone()), conv=nn.Conv1d(3, 4, 3)),
        torch.ones(2, 3, 8),
    )
    with torch.inference_mode():
        net = compiled(model, x)
        net(x)[1].zero_()
    assert bool((x == 1).all())


def test_a_tensor_in_the_place_of_another_argument():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x=None, before=None):
            return self.conv(x) if before is None else self.conv(before) * 2

    t = torch.randn(2, 3, 6, 5)
    with torch.inference_mode():
        net = jsc.compile(Two().eval(), {"x": t, "before": None}, budget=0, progress=False)
        net(x=t, before=None)
        with pytest.raises(TypeError, match="was compiled for"):
            net(x=None, before=t)


def test_a_file_that_names_a_shorter_vector_as_a_bias(tmp_path):
    """Its kernel would read beyond the vector."""
    model, x = (
        nn.Sequential(nn.Conv2d(3, 9, 3), nn.Conv2d(9, 64, 1)).eval(),
        torch.randn(2, 3, 8, 8),
    )
    path = tmp_path / "net.jsc"
    with torch.inference_mode():
        compiled(model, x).save(path)
    # In the JSON, where both stand, `1.bias` becomes `0.bias`; the length of the file stays.
    data = path.read_bytes()
    old, new = (rf"\"state\", \"{name}\"".encode() for name in ("1.bias", "0.bias"))
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    with pytest.raises(ValueError, match="damaged"):
        jsc.load(path)


def normed(x, fill=0.0, mode="constant", dim=1, **pool):
    """Local response norm as torch writes it, or nearly."""
    square = (x * x).unsqueeze(dim)
    padded = F.pad(square, (0, 0, 0, 0, 2, 2), mode, **({"value": fill} if fill else {}))
    mean = F.avg_pool3d(padded, (5, 1, 1), stride=1, **pool).squeeze(dim)
    return x / mean.mul(0.1).add(2.0).pow(0.75)


LRN = {
    "torch's": {}, "ones around": {"fill": 1.0}, "edges around": {"mode": "replicate"},
    "a divisor": {"divisor_override": 3},
}  # fmt: skip


@pytest.mark.parametrize("options", LRN.values(), ids=LRN)
def test_what_only_looks_like_local_response_norm(options):
    model = Of(lambda self, x: normed(self.conv(x), **options), conv=nn.Conv2d(3, 8, 3))
    x = torch.randn(2, 3, 9, 7)
    with torch.no_grad():
        same(compiled(model, x)(x), model(x))


def test_dropout_that_stays_on_is_random():
    model = Of(lambda self, x: F.dropout(self.conv(x), 0.5, True), conv=nn.Conv2d(3, 8, 3))
    x = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        net = compiled(model, x)
        assert not torch.equal(net(x), net(x))
        assert 0.3 < net(x).eq(0).float().mean() < 0.7


def test_linear_layers_of_pixels_have_the_precision_of_linear_layers():
    conv, x = torch.backends.mkldnn.conv, torch.randn(2, 32, 6, 5)
    model = Of(lambda self, x: self.linear(x.permute(0, 2, 3, 1)), linear=nn.Linear(32, 16))
    before = conv.fp32_precision
    conv.fp32_precision = "bf16"
    try:
        net = compiled(model, x)
    finally:
        conv.fp32_precision = before
    with torch.no_grad():
        same(net(x), model(x))
    assert net.methods() == {"direct": 1}


def test_constants_are_not_rounded_by_autocast():
    class Low(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Parameter(torch.randn(4, 27)), nn.Parameter(torch.randn(8, 4))

        def forward(self, x):
            return F.conv2d(x, (self.b @ self.a).view(8, 3, 3, 3))

    model, other, x = Low(), Low(), torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        net = compiled(model, x)
        with torch.autocast("cpu", torch.bfloat16):
            net.refresh(other)
        same(net(x), other(x))


def test_a_refresh_that_fails_changes_nothing(monkeypatch):
    model, other = (nn.Sequential(nn.Conv2d(3, 32, 5), nn.Conv2d(32, 8, 5)) for _ in range(2))
    x = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        net = compiled(model, x)
        expected, real, calls = net(x), packing.direct, []

        def fails(*arguments):
            calls.append(1)
            if len(calls) == 2:
                raise MemoryError
            return real(*arguments)

        monkeypatch.setattr(packing, "direct", fails)
        with pytest.raises(MemoryError):
            net.refresh(other)
        assert torch.equal(net(x), expected)


def test_keyword_arguments_in_another_order():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, image, other):
            return self.conv(image) - 2 * other

    model, a, b = Two(), torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        net = jsc.compile(model, {"image": a, "other": b}, budget=0, progress=False)
        same(net(other=b, image=a), model(a, b))


def test_an_adaptive_pool_to_nothing():
    model = Of(lambda self, x: F.adaptive_max_pool2d(self.conv(x), 0), conv=nn.Conv2d(3, 8, 3))
    x = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        assert compiled(model, x)(x).shape == (2, 8, 0, 0)


@pytest.mark.parametrize("function", ACTIVATIONS)
def test_activations_of_what_is_not_finite(isa, function):
    model = Of(lambda self, x: function(self.conv(x)), conv=nn.Conv2d(1, 1, 1))
    x = torch.tensor([-torch.inf, -1e30, -90.0, 0.0, 90.0, 1e30, torch.inf, torch.nan])
    x = x.view(1, 1, 2, 4)
    with torch.no_grad():
        model.conv.weight.fill_(1), model.conv.bias.zero_()
        found, expected = compiled(model, x)(x), model(x)
    if function is F.gelu:  # torch's is NaN at +inf
        expected[x == torch.inf] = torch.inf
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-30, equal_nan=True)


def test_another_default_device_while_compiling():
    model, x = nn.Conv2d(8, 8, 3), torch.randn(2, 8, 9, 9)
    with torch.no_grad():
        with torch.device("meta"):
            net = jsc.compile(model, x, plan={"weight": "winograd2x2"}, check=False)
            found = net(x)
        same(found, model(x))
