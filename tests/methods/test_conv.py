"""Every convolution method against torch's own convolution."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from strategies import ConvCase, conv_cases
from torch._subclasses import FakeTensorMode

import jsc
from jsc import methods as ops
from jsc.reference import winograd

METHODS = [m for m in ops.METHODS if m != "dense"]
FEW_GEOMETRIES = ("winograd",)  # 3 x 3 kernels of stride and dilation 1
SPARSE = [m for m in ("cpo", "cps", "cpc") if m in METHODS]
fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def supported(case: ConvCase, method: str) -> bool:
    x, w, _ = case.tensors(torch.float32, integer=True)
    g = ops.geometry(x, w, case.stride, case.padding, case.dilation, case.groups)
    return ops.unsupported(method, g) is None


def able(method, x, w, stride=1, padding=0, dilation=1, groups=1):
    pairs = [
        (1, 1) if isinstance(v, str) else torch.nn.modules.utils._pair(v)
        for v in (stride, padding, dilation)
    ]
    x = x if x.ndim == 4 else x[None]
    return ops.unsupported(method, ops.geometry(x, w, *pairs, groups)) is None


@pytest.mark.parametrize("method", METHODS)
@fixtures
@given(case=conv_cases())
def test_integers_are_exact(isa, num_threads, dtype, method, case):
    """Sums of small integers are exact in any order, so every method must agree bit for bit."""
    x, w, b = case.tensors(dtype, integer=True)
    if not supported(case, method):
        with pytest.raises(ValueError, match="cannot do this convolution"):
            jsc.functional.conv2d(x, w, b, **case.arguments, method=method)
        return
    out = jsc.functional.conv2d(x, w, b, **case.arguments, method=method)
    assert torch.equal(out, case.by_torch(x, w, b))
    assert out.dtype == dtype


@pytest.mark.parametrize("method", METHODS)
@fixtures
@given(case=conv_cases())
def test_real_numbers_are_within_the_rounding_bound(isa, dtype, method, case):
    """Higham's bound for a sum of n products in any order: |error| <= gamma_n sum |x w|."""
    x, w, b = case.tensors(dtype, integer=False)
    if not supported(case, method):
        return
    out = jsc.functional.conv2d(x, w, b, **case.arguments, method=method).double()
    exact = F.conv2d(x.double(), w.double(), None if b is None else b.double(), **case.arguments)
    size = F.conv2d(
        x.double().abs(),
        w.double().abs(),
        None if b is None else b.double().abs(),
        **case.arguments,
    )
    if method == "winograd":
        size = 2 * winograd.products(x, w, b, case.padding, case.groups)
    n = w[0].numel() + 1
    bound = (
        (n + 2) * torch.finfo(dtype).eps * size
    )  # the exact value itself is a rounded float64 sum
    assert bool(((out - exact).abs() <= bound).all())


@pytest.mark.parametrize("method", SPARSE)
@pytest.mark.parametrize("kernel", [1, 3, (1, 7)])
def test_same_bits_for_threads_and_batch_split(isa, dtype, method, kernel, monkeypatch):
    monkeypatch.setattr("jsc._config.SERIAL_WORK", 0)
    x = torch.relu(torch.randn(3, 70, 17, 19, dtype=dtype))
    w = torch.randn(40, 70, *torch.nn.modules.utils._pair(kernel), dtype=dtype)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(jsc.functional.conv2d(x, w, padding=1, method=method))
        results.append(
            torch.cat(
                [jsc.functional.conv2d(one, w, padding=1, method=method) for one in x.split(1)]
            )
        )
    torch.set_num_threads(before)
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("method", SPARSE)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_bad_activations_propagate_as_in_dense(isa, method, bad):
    x = torch.relu(torch.randn(1, 20, 9, 9))
    x[0, 3, 4, 5] = bad
    w = torch.randn(18, 20, 3, 3)
    out, expected = jsc.functional.conv2d(x, w, padding=1, method=method), F.conv2d(x, w, padding=1)
    torch.testing.assert_close(out, expected, equal_nan=True, rtol=1e-4, atol=1e-4)
    assert not torch.isfinite(out).all()


@pytest.mark.parametrize("method", METHODS)
def test_weights_that_are_not_finite_go_dense(method):
    x = torch.zeros(1, 4, 5, 5)
    w = torch.randn(3, 4, 3, 3)
    w[1, 2, 1, 1] = float("inf")
    out = jsc.functional.conv2d(x, w, padding=1, method=method)
    assert torch.equal(out.isnan(), F.conv2d(x, w, padding=1).isnan())
    assert out.isnan().any()  # 0 * inf
    module = jsc.nn.SparseConv2d(4, 3, 3, padding=1, bias=False, method=method).requires_grad_(
        False
    )
    module.weight.copy_(w)
    assert module(x).isnan().any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("x_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("w_format", [torch.contiguous_format, torch.channels_last])
def test_memory_format_is_torchs(method, x_format, w_format):
    """Also where one channel, or maps of one pixel, are contiguous in either format."""
    for C, K, size in (
        (8, 5, (6, 7)),
        (1, 5, (6, 7)),
        (8, 1, (6, 7)),
        (8, 5, (3, 3)),
        (1, 1, (3, 3)),
    ):
        x = torch.empty(2, C, *size, memory_format=x_format).normal_()
        w = torch.empty(K, C, 3, 3, memory_format=w_format).normal_()
        expected = F.conv2d(x, w).stride()
        assert jsc.functional.conv2d(x, w, method=method).stride() == expected
        with FakeTensorMode() as fake:
            given = fake.from_tensor(x), fake.from_tensor(w)
            assert jsc.functional.conv2d(*given, method=method).stride() == expected
        layer = jsc.nn.SparseConv2d(C, K, 3, bias=False, method=method).requires_grad_(False)
        layer.to(memory_format=w_format)
        assert layer(x).stride() == layer.to_dense()(x).stride()


@pytest.mark.parametrize("method", METHODS)
def test_strange_strides(method):
    w = torch.randint(-3, 4, (5, 8, 3, 3)).float()
    base = torch.randint(0, 3, (4, 16, 20, 20)).float()
    for x in (
        base[:, ::2, 1::2, ::3],
        base[:, :8].transpose(2, 3),
        base[:1, :1].expand(2, 8, 20, 20),
        base[1:3, 4:12, 3:],
    ):
        assert torch.equal(jsc.functional.conv2d(x, w, method=method), F.conv2d(x, w))
    read_only = torch.from_numpy(base.numpy().copy())[:, :8]
    assert torch.equal(jsc.functional.conv2d(read_only, w, method=method), F.conv2d(read_only, w))


@pytest.mark.parametrize("method", METHODS)
def test_torchs_own_samples(method):
    """The sample inputs PyTorch tests its conv2d with, as an oracle from outside."""
    from torch.testing._internal.common_methods_invocations import op_db

    (info,) = [op for op in op_db if op.name == "nn.functional.conv2d"]
    ran = 0
    for dtype in (torch.float32, torch.float64):
        for sample in info.sample_inputs("cpu", dtype):
            x, w, *rest = sample.input, *sample.args
            kwargs = dict(sample.kwargs)
            expected = F.conv2d(x, w, *rest, **kwargs)
            if not able(method, x, w, **kwargs):
                with pytest.raises(ValueError, match="cannot do this convolution"):
                    jsc.functional.conv2d(x, w, *rest, **kwargs, method=method)
                continue
            out = jsc.functional.conv2d(x, w, *rest, **kwargs, method=method)
            torch.testing.assert_close(out, expected)
            ran += 1
    assert ran >= 10 or method in FEW_GEOMETRIES


@pytest.mark.parametrize("method", METHODS)
def test_gradients(method):
    few = method in FEW_GEOMETRIES
    kernel, stride = ((3, 3), 1) if few else ((3, 2), (2, 1))
    x = torch.relu(torch.randn(2, 2, 4, 3, dtype=torch.float64)).requires_grad_()
    w = torch.randn(2, 1, *kernel, dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def f(x, w, b):
        return jsc.functional.conv2d(x, w, b, stride, padding=1, groups=2, method=method)

    assert torch.autograd.gradcheck(f, (x, w, b))
    assert torch.autograd.gradgradcheck(f, (x, w, b))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_opcheck(method, channels_last, groups):
    x, w, b = torch.relu(torch.randn(2, 4, 5, 6)), torch.randn(6, 4 // groups, 3, 3), torch.randn(6)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(
        torch.ops.jsc.conv2d.default,
        (x, w, None, b, (1, 1), (1, 1), (1, 1), groups, method, False),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_torch_func_compile_and_export(method):
    torch.compiler.reset()  # one method a compilation: more than eight in a process are refused
    x, w = torch.relu(torch.randn(2, 4, 5, 6)), torch.randn(6, 4, 3, 3)

    def loss(w):
        return jsc.functional.conv2d(x, w, padding=1, method=method).square().sum()

    expected = torch.func.grad(lambda w: F.conv2d(x, w, padding=1).square().sum())(w)
    torch.testing.assert_close(torch.func.grad(loss)(w), expected, rtol=1e-4, atol=1e-3)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    weight = w.clone().requires_grad_()
    compiled(weight).backward()
    torch.testing.assert_close(weight.grad, expected, rtol=1e-4, atol=1e-3)

    module = jsc.nn.SparseConv2d(4, 6, 3, padding=1, method=method).eval().requires_grad_(False)
    program = torch.export.export(module, (x,))
    assert torch.equal(program.module()(x), module(x))
    assert torch.equal(torch.compile(module, fullgraph=True, backend="aot_eager")(x), module(x))


def test_autocast_is_torchs():
    x, w = torch.relu(torch.randn(1, 4, 5, 5)), torch.randn(3, 4, 3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for given in (x, x.bfloat16()):
            out = jsc.functional.conv2d(given, w, method="cpc")
            assert out.dtype == torch.bfloat16
            assert torch.equal(out, F.conv2d(given, w))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"method": "fft"}, ValueError, "method must be one of"),
        ({"input": [1.0]}, TypeError, "input must be a torch.Tensor, got list"),
        ({"input": torch.zeros(1, 4, 5, 5).to_sparse()}, TypeError, "dense .strided. tensor"),
        (
            {"input": torch.zeros(1, 4, 5, 5).half()},
            TypeError,
            "input must be float32 or float64, got torch.float16",
        ),
        ({"input": torch.zeros(1, 4, 5, 5).long()}, TypeError, "input must be float32 or float64"),
        (
            {"weight": torch.zeros(2, 4, 3, 3).double()},
            TypeError,
            "weight must have the dtype of input",
        ),
        ({"input": torch.zeros(4, 5)}, ValueError, r"input must be \(N, C, H, W\)"),
        ({"input": torch.zeros(1, 3, 5, 5)}, ValueError, "input must have 4 channels"),
        ({"weight": torch.zeros(2, 4, 0, 3)}, ValueError, "Kh, Kw > 0"),
        ({"weight": torch.zeros(3, 4, 3, 3), "groups": 2}, ValueError, "multiple of groups=2"),
        ({"bias": torch.zeros(3)}, ValueError, r"bias must be \(2,\)"),
        ({"stride": 0}, ValueError, "stride must be at least 1"),
        ({"stride": 1.5}, TypeError, "stride must be an int or a pair"),
        ({"dilation": (1, 2, 3)}, TypeError, "dilation must be an int or a pair"),
        ({"padding": -1}, ValueError, "padding must be at least 0"),
        ({"padding": "half"}, ValueError, 'padding must be "valid", "same"'),
        ({"padding": "same", "stride": 2}, ValueError, "needs stride 1"),
        ({"dilation": 4}, ValueError, "does not fit into the padded input"),
        ({"groups": 0}, ValueError, "groups must be a positive int"),
    ],
)
def test_errors(change, error, message):
    arguments = {"input": torch.zeros(1, 4, 5, 5), "weight": torch.zeros(2, 4, 3, 3)} | change
    with pytest.raises(error, match=message):
        jsc.functional.conv2d(**arguments)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "circular"])
@pytest.mark.parametrize("padding", [1, "same", "valid"])
def test_module_matches_conv2d(method, padding_mode, padding):
    dense = torch.nn.Conv2d(8, 12, 3, padding=padding, padding_mode=padding_mode)
    sparse = jsc.nn.SparseConv2d.from_dense(dense, method=method)
    assert sparse.weight is dense.weight
    assert isinstance(sparse, torch.nn.Conv2d)
    assert sparse.state_dict().keys() == dense.state_dict().keys()
    x = torch.relu(torch.randn(2, 8, 9, 9))
    with torch.no_grad():
        torch.testing.assert_close(sparse(x), dense(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(sparse(x[0]), dense(x[0]), rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(sparse(x), dense(x), rtol=1e-4, atol=1e-4)
    assert torch.equal(sparse(x), dense(x))  # with gradients it is torch's own convolution
    assert type(sparse.to_dense()) is torch.nn.Conv2d
    assert sparse.to_dense().weight is dense.weight


@pytest.mark.parametrize("method", METHODS)
def test_module_sees_new_weights(method):
    module = jsc.nn.SparseConv2d(4, 6, 3, method=method)
    x = torch.relu(torch.randn(1, 4, 8, 8))

    def agrees():
        with torch.no_grad():
            return torch.allclose(module(x), F.conv2d(x, module.weight, module.bias), atol=1e-4)

    assert agrees()
    with torch.no_grad():
        module.weight.mul_(2)
    assert agrees()
    module.load_state_dict({k: v + 1 for k, v in module.state_dict().items()})
    assert agrees()
    module.weight = torch.nn.Parameter(torch.randn(6, 4, 3, 3))
    assert agrees()
    module.weight.data.mul_(3)  # invisible to torch
    module.repack()
    assert agrees()
    module.double()
    x = x.double()
    assert agrees()
    for clone in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        with torch.no_grad():
            assert torch.equal(clone(x), module(x))
            clone.weight.mul_(2)
            assert not torch.equal(clone(x), module(x))


def test_module_runs_dense_what_has_no_kernel():
    module = jsc.nn.SparseConv2d(4, 6, 3).requires_grad_(False)
    x = torch.randn(1, 4, 8, 8)
    half = copy.deepcopy(module).bfloat16()
    assert torch.equal(half(x.bfloat16()), half.to_dense()(x.bfloat16()))
    assert module(torch.empty(0, 4, 8, 8)).shape == (0, 6, 6, 6)
    with pytest.raises(RuntimeError, match="expected input"):
        module(torch.randn(1, 3, 8, 8))
    with pytest.raises(ValueError, match="method must be one of"):
        module.method = "fft"
    with pytest.raises(TypeError, match=r"must be a torch.nn.Conv2d"):
        jsc.nn.SparseConv2d.from_dense(torch.nn.Linear(3, 3))
