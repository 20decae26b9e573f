"""The JPEG modules written down: torch.fx, TorchScript, ONNX. Compile and export:
tests/functional/test_jpeg_transforms.py."""

import io
import pickle

import pytest
import torch
from samples import IMAGENET, photo

import jsc
from jsc.nn import JPEG, BlockDCT, InverseBlockDCT, SoftQuantizer

OPTIONS = [
    {}, {"subsampling": "4:2:0"}, {"subsampling": "4:2:2"}, {"quantizer": "ste"},
    {"quantizer": "hard"}, {"rounds": 2}, {"padding": "zero"}, {"window": 5, "levels": 127},
    {"levels": 11, **IMAGENET},
]  # fmt: skip
SIZES = ((2, 24, 20), (1, 8, 8), (3, 17, 33))


def layer(**options):
    return JPEG.from_quality(50, kappa=2.0, train_alpha=True, **options).requires_grad_(False)


@pytest.mark.parametrize("options", [*OPTIONS, {"quantizer": "sample"}])
def test_symbolic_trace_has_the_layer_as_one_node(options):
    model = torch.nn.Sequential(layer(**options).requires_grad_(), torch.nn.Conv2d(3, 4, 3))
    graph = torch.fx.symbolic_trace(model)
    graph = pickle.loads(pickle.dumps(graph))
    x = photo(2, 13, 18)
    results = []
    for each in (graph, model):
        torch.manual_seed(0)
        y = each(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), list(each.parameters()))))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_symbolic_trace_follows_training():
    made = layer().requires_grad_()
    graph = torch.fx.symbolic_trace(made)
    with torch.no_grad():
        made.tables.mul_(2)
        made.log_kappa.add_(1)
    assert torch.equal(graph(photo()), made(photo()))


def test_symbolic_trace_of_functions_and_parts():
    tables, x = jsc.jpeg.quality_tables(50), photo(1, 16, 24)

    class Model(torch.nn.Module):
        def forward(self, x):
            return jsc.functional.jpeg(x, tables, subsampling="4:2:0")

    assert torch.equal(torch.fx.symbolic_trace(Model())(x), Model()(x))
    parts = torch.nn.Sequential(BlockDCT(), SoftQuantizer(0.1, train_alpha=True), InverseBlockDCT())
    assert torch.equal(torch.fx.symbolic_trace(parts)(x), parts(x))


@pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore:.torch.jit:DeprecationWarning"
)
def test_what_draws_cannot_be_traced():
    layer = jsc.nn.JPEG(quantizer="sample").requires_grad_(False)
    with pytest.raises(ValueError, match="another quantizer"):
        torch.jit.trace(layer, photo(1, 16, 16))


@pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore:.torch.jit:DeprecationWarning"
)
@pytest.mark.parametrize("options", OPTIONS)
def test_jit_trace_for_any_size_without_jsc(options):
    made = layer(**options)
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(made, photo(2, 24, 20), check_trace=False), file)
    assert b"jsc::" not in file.getvalue()
    file.seek(0)
    traced = torch.jit.load(file)
    for size in SIZES:
        torch.testing.assert_close(traced(photo(*size)), made(photo(*size)), rtol=0, atol=2e-6)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("make", [layer, SoftQuantizer], ids=["JPEG", "SoftQuantizer"])
def test_jit_script_says_what_to_do(make):
    for model in (make(), torch.nn.Sequential(torch.nn.ReLU(), make())):
        with pytest.raises(NotImplementedError, match=r"torch.jit.trace\(model, x\)"):
            torch.jit.script(model)


def onnx_session(made, x, dynamic_shapes=None):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    program = torch.onnx.export(
        made.eval(), (x,), dynamo=True, verbose=False, dynamic_shapes=dynamic_shapes
    )
    assert {node.domain for node in program.model_proto.graph.node} == {""}  # ONNX's own operators
    session = runtime.InferenceSession(program.model_proto.SerializeToString())
    return lambda x: torch.from_numpy(
        session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    )


ONNX = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@ONNX
@pytest.mark.parametrize(
    "options",
    [o if o == {"subsampling": "4:2:0"} else pytest.param(o, marks=pytest.mark.slow)
     for o in OPTIONS],
)  # fmt: skip
def test_onnx_for_any_size(options):
    made, any_size = layer(**options), torch.export.Dim.DYNAMIC
    exported = onnx_session(made, photo(2, 24, 20), ({0: any_size, 2: any_size, 3: any_size},))
    for size in SIZES:
        torch.testing.assert_close(exported(photo(*size)), made(photo(*size)), rtol=0, atol=2e-6)


@ONNX
def test_onnx_in_front_of_a_network_and_of_grey_images():
    model = torch.nn.Sequential(layer(), torch.nn.Conv2d(3, 4, 3)).eval().requires_grad_(False)
    x = photo(1, 13, 18)
    torch.testing.assert_close(onnx_session(model, x)(x), model(x), rtol=1e-4, atol=1e-5)
    grey = x[:, :1].contiguous()
    torch.testing.assert_close(onnx_session(layer(), grey)(grey), layer()(grey), rtol=0, atol=2e-6)
