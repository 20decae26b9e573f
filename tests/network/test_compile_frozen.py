"""A compiled network is frozen, belongs to any number of threads, and says how exact it is."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from compiled_networks import X, close, compiled, small
from random_networks import RandomNetwork, randomise
from torch import nn

import jsc
from jsc._precision import Precision
from jsc.network.accuracy import measure


def test_frozen_until_refreshed():
    model = small()
    x = torch.randn(X)
    net = compiled(model, x)
    before = net(x)
    for p in model.parameters():
        p.mul_(1.5)
    model[1].running_var.mul_(2)
    assert torch.equal(net(x), before)
    net.refresh(model)
    close(net(x), model(x))
    with pytest.raises(ValueError, match=r"refresh: [\s\S]*0\.weight must be"):
        net.refresh(nn.Sequential(nn.Conv2d(3, 4, 3)))
    close(net(x), model(x))


ELSEWHERE = torch.ones(1, 16, 16)


def test_constants_that_lie_elsewhere_are_frozen_too():
    class Shifted(nn.Module):
        def forward(self, x):
            return torch.special.i0e(x + ELSEWHERE)

    x = torch.randn(X)
    net = compiled(Shifted(), x)
    before = net(x)
    ELSEWHERE.mul_(3)
    assert torch.equal(net(x), before)
    ELSEWHERE.div_(3)


def test_weights_of_linear_layers_are_there_once():
    """They are read in torch's order, in which the image is put."""
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(48 * 25, 300)), torch.randn(2, 48, 5, 5)
    net = compiled(model, x.contiguous(memory_format=torch.channels_last))
    own = {t.data_ptr() for t in net._store.state.values()}
    assert {made.data_ptr() for _, made in net._store._made.values() if made.dim() == 2} <= own
    close(net(x), model(x))
    before = net(x)
    model[1].weight.detach().mul_(2.0)
    assert torch.equal(net(x), before)
    net.refresh(model)
    close(net(x), model(x))


def test_refresh_takes_a_module():
    model = small()
    net = compiled(model, torch.randn(X))
    with pytest.raises(TypeError, match=r"must be an nn\.Module; got OrderedDict"):
        net.refresh(model.state_dict())


def test_profiles_of_several_threads_at_once():
    x = torch.randn(X)
    net = compiled(small(), x)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: len(net.profile(x, repeats=1).rows), range(40)))
    assert len(set(found)) == 1


def test_is_an_inference_module():
    net = compiled(small(), torch.randn(X))
    assert not list(net.parameters())
    assert not net.training
    assert net.eval() is net
    with pytest.raises(jsc.CompileError, match="frozen"):
        net.train()
    with pytest.raises(TypeError, match="pickled or copied"):
        copy.deepcopy(net)
    with pytest.raises(RuntimeError, match="no gradients"):
        net(torch.randn(X, requires_grad=True))
    with torch.no_grad():
        net(torch.randn(X, requires_grad=True))


def test_the_model_is_left_as_it_was():
    model = small().train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    compiled(model, torch.randn(X), check=True)
    assert model.training
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())


def test_many_python_threads(threads):
    threads(2)
    model = randomise(RandomNetwork(3, steps=12))
    xs = [torch.randn(1 + i % 3, 3, 13, 11) for i in range(6)]
    net = compiled(model, xs[0])
    with torch.no_grad():
        expected = [net(x)[0].clone() for x in xs]
    wrong = []

    def work(i):
        for _ in range(50):
            with torch.no_grad():
                if not torch.equal(net(xs[i])[0], expected[i]):
                    wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_results_are_not_overwritten_by_the_next_call():
    net = compiled(small()[:6], torch.randn(X))
    first = net(torch.zeros(X))
    kept = first.clone()
    net(torch.ones(X))
    assert torch.equal(first, kept)


def test_checks_the_error_on_the_sample():
    net = jsc.compile(small(), torch.randn(X), budget=1.0)
    assert net.accuracy is not None
    assert net.accuracy.error < 1e-5
    assert "largest error" in repr(net)


def test_wrong_numbers_are_noticed():
    """NaN where the model has numbers counts as wrong, and is no error of zero."""
    model, x = small(), torch.randn(X)
    with pytest.warns(RuntimeWarning, match="largest error"):
        measure(model, model(x) * float("nan"), (x,), {}, Precision())
