"""`jsc.sparsify` and `jsc.HoyerSquare`."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import jsc
from jsc.nn import FATReLU
from jsc.tuning.sparsify import hoyer_square


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
    )  # fmt: skip


X = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def densities(model, x=X):
    """Of the output of each ReLU, in evaluation mode."""
    found = []
    relus = [m for m in model.modules() if isinstance(m, (nn.ReLU, FATReLU))]
    hooks = [
        m.register_forward_hook(lambda m, a, y: found.append((y != 0).double().mean().item()))
        for m in relus
    ]
    mode = model.training
    with torch.no_grad():
        model.eval()(x)
    model.train(mode)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("density", [0.4, 0.25, 0.1, 0.013])
def test_each_relu_gets_the_wanted_density(density):
    """Also the second, whose input depends on the threshold of the first."""
    sparse = jsc.sparsify(network(), X, density)
    for found, count in zip(densities(sparse), (8 * 144 * 4,) * 2, strict=True):
        assert density - 1.5 / count < found <= density


def test_the_model_itself_stays_as_it_was():
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sparse = jsc.sparsify(model, X, 0.2)
    assert model.training
    assert sparse.training
    assert not [m for m in model.modules() if isinstance(m, FATReLU) or m._forward_pre_hooks]
    assert not [m for m in sparse.modules() if m._forward_pre_hooks]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert sparse[0].weight is model[0].weight
    assert sparse[2].inplace
    assert not sparse[3][1].inplace


def test_in_place_keeps_objects_and_hooks():
    model, called = network(), []
    relu = model[3][1]
    relu.register_forward_hook(lambda *a: called.append(1))
    assert jsc.sparsify(model, X, 0.2, inplace=True) is model
    assert model[3][1] is relu
    assert isinstance(relu, FATReLU)
    assert relu.threshold > 0
    called.clear()
    model(X)
    assert called == [1]


def test_a_relu_that_is_sparse_enough_stays_the_relu():
    model = network()
    sparse = jsc.sparsify(model, X, 1.0)
    assert [sparse[2].threshold, sparse[3][1].threshold] == [0, 0]
    with torch.no_grad():
        assert torch.equal(sparse.eval()(X), model.eval()(X))


def test_some_relus_by_name():
    sparse = jsc.sparsify(network(), X, {"3.1": 0.2})
    assert type(sparse[2]) is nn.ReLU
    assert densities(sparse)[1] <= 0.2


def test_a_shared_relu_has_one_threshold_for_all_its_calls():
    relu = nn.ReLU()
    model = nn.Sequential(nn.Conv2d(3, 8, 1), relu, nn.Conv2d(8, 8, 1), relu)
    sparse = jsc.sparsify(model, X, 0.2)
    assert sparse[1] is sparse[3]
    assert sparse[1].threshold > 0


def test_again_with_another_density():
    sparse = jsc.sparsify(network(), X, 0.1)
    again = jsc.sparsify(sparse, X, 0.3)
    assert 0.29 < densities(again)[0] <= 0.3
    assert sparse[2].threshold > again[2].threshold


def test_thresholds_travel_in_the_state_dict():
    sparse, other = jsc.sparsify(network(), X, 0.2), jsc.sparsify(network(), X, 0.9)
    other.load_state_dict(sparse.state_dict())
    assert other[2].threshold == sparse[2].threshold
    with torch.no_grad():
        assert torch.equal(sparse.eval()(X), other.eval()(X))


def test_it_trains_and_compiles():
    sparse = jsc.sparsify(network(), X, 0.2)
    sparse(X).square().mean().backward()
    assert sparse[0].weight.grad.abs().sum() > 0
    sparse.eval()
    with torch.no_grad():
        net = jsc.compile(sparse, X, budget=0, check=False, progress=False)
        off = (net(X) - sparse(X)).abs() > 1e-4  # where rounding crosses a threshold
        assert off.float().mean() < 0.01
        plan = jsc.tune(sparse, X, max_error=1.0, budget_s=2, progress=False)
        off = (jsc.apply(sparse, plan)(X) - sparse(X)).abs() > 1e-4
        assert off.float().mean() < 0.01


@pytest.mark.parametrize("wrong", [0, -0.1, 1.5, {"2": 0.0}])
def test_densities_are_shares(wrong):
    with pytest.raises(ValueError, match="density must be above 0 and at most 1"):
        jsc.sparsify(network(), X, wrong)


@pytest.mark.parametrize("wrong", ["0.3", None, torch.tensor(0.3), {"2": "a"}, [0.3]])
def test_densities_are_numbers(wrong):
    with pytest.raises(TypeError, match="density must be a number"):
        jsc.sparsify(network(), X, wrong)


def test_what_cannot_be_done_is_said():
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got function"):
        jsc.sparsify(F.relu, X)
    with pytest.raises(ValueError, match=r"must have nn\.ReLU modules.*F\.relu"):
        jsc.sparsify(nn.Conv2d(3, 8, 1), X)
    with pytest.raises(ValueError, match=r"density names '0', which is no nn\.ReLU"):
        jsc.sparsify(network(), X, {"0": 0.3})
    with pytest.raises(ValueError, match="inputs of 2 must be finite"):
        jsc.sparsify(network(), X * math.nan)
    silent = network()
    silent.spare = nn.ReLU()
    silent.forward = lambda x: silent[0](x)
    with pytest.raises(RuntimeError, match=r"does not reach 2, 3\.1, spare"):
        jsc.sparsify(silent, X)


# HoyerSquare


def test_hoyer_square_of_known_vectors():
    assert hoyer_square(torch.tensor([2.0, 2.0, 0, 0])).item() == pytest.approx(0.5)
    assert hoyer_square(torch.tensor([3.0, 0, 0, 0])).item() == pytest.approx(0.25)
    assert hoyer_square(torch.full((10,), -7.0)).item() == pytest.approx(1)
    zero = torch.zeros(5, requires_grad=True)
    hoyer_square(zero).backward()
    assert zero.grad.tolist() == [0] * 5


def test_hoyer_square_has_its_gradient():
    a = torch.rand(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    assert torch.autograd.gradcheck(hoyer_square, a.requires_grad_(True))
    pushed = torch.autograd.grad(hoyer_square(a), a)[0]
    assert pushed.flatten()[a.argmin()] > 0 > pushed.flatten()[a.argmax()]
    half = torch.rand(9, dtype=torch.float16)
    assert hoyer_square(half).dtype == torch.float32


def test_the_penalty_is_the_mean_over_relus_and_starts_anew():
    model = network().eval()
    outputs = []
    for relu in (model[2], model[3][1]):
        relu.register_forward_hook(lambda m, a, y: outputs.append(y.detach().clone()))
    with jsc.HoyerSquare(model) as penalty:
        for scale in (1.0, 2.0):
            outputs.clear()
            model(scale * X)
            wanted = torch.stack([hoyer_square(y) for y in outputs]).mean()
            assert penalty().item() == pytest.approx(wanted.item())
        with torch.no_grad():
            model(X)
        with pytest.raises(RuntimeError, match="no forward pass with gradients"):
            penalty()
    assert len(model[2]._forward_hooks) == 1
    with pytest.raises(RuntimeError, match="inside its context"):
        penalty()


def test_training_with_the_penalty_makes_zeros():
    model = network()
    before = densities(model)
    sgd = torch.optim.SGD(model.parameters(), 0.5)
    with jsc.HoyerSquare(model) as penalty:
        for _ in range(40):
            model(X)
            sgd.zero_grad()
            penalty().backward()
            sgd.step()
    assert all(after < 0.8 * first for after, first in zip(densities(model), before, strict=True))


def test_what_a_checkpoint_computes_again_does_not_count():
    model = network().eval()
    found = []
    for run in (model, lambda x: checkpoint(model, x, use_reentrant=False)):
        model.zero_grad()
        with jsc.HoyerSquare(model) as penalty:
            y = run(X)
            (penalty() + y.square().mean()).backward()
            with pytest.raises(RuntimeError, match="no forward pass with gradients"):
                penalty()
        found.append([p.grad for p in model.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_a_compiled_model_is_counted():
    model = network().eval()
    with jsc.HoyerSquare(model) as penalty:
        model(X)
        expected = penalty()
        torch._dynamo.reset()
        torch.compile(model, backend="eager")(X)
        torch.testing.assert_close(penalty(), expected)


def test_models_without_relus_are_refused():
    with pytest.raises(ValueError, match=r"nn\.ReLU, nn\.ReLU6 or jsc\.nn\.FATReLU"):
        jsc.HoyerSquare(nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"must be an nn\.Module, got str"):
        jsc.HoyerSquare("model")
    penalty = jsc.HoyerSquare(network())
    with penalty, pytest.raises(RuntimeError, match="in use"):
        penalty.__enter__()


def test_float64_and_inputs_by_name():
    class ByName(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.relu(input=x)

    x = torch.rand(999, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for density in (0.1, 0.3, 0.5, 0.7):
        sparse = jsc.sparsify(ByName(), x, density)
        assert float((sparse(x) != 0).double().mean()) <= density
