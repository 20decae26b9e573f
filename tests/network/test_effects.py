"""What a forward leaves behind beside its results is refused; a cache that it fills once is not."""

import random
from collections import deque

import numpy as np
import pytest
import torch
from compiled_networks import X, close, compiled
from torch import nn

import jsc
from jsc.network.effects import MARKS, changed, snapshot


class Plain:
    def __init__(self):
        self.count = 0


class Model(nn.Module):
    """Attributes of many kinds that are there before the forward writes them."""

    def __init__(self, forward):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("buffer", torch.zeros(2))
        self.log, self.seen, self.table, self.last = [], set(), {}, deque(maxlen=1)
        self.kept, self.calls, self.first = None, 0, True
        self.tensor, self.array = torch.zeros(2), np.zeros(2)
        self.object, self.nested = Plain(), {"counts": [0]}
        self.function = forward

    def forward(self, x):
        return self.function(self, self.conv(x))


def keeps_result(self, y):
    self.kept = y
    return y


def keeps_part(self, y):
    self.log[:] = [y]
    return y


def counts(self, y):
    self.calls += 1
    return y


def logs(self, y):
    self.log.append(1)
    return y


def remembers_the_last(self, y):
    self.last.append(y)
    return y


def notes(self, y):
    self.table["last"] = y
    return y


def collects(self, y):
    self.seen.add(len(self.seen))
    return y


def reassigns(self, y):
    self.tensor = self.tensor + 1
    return y


def adds_to_an_array(self, y):
    self.array += 1
    return y


def reassigns_a_buffer(self, y):
    self.buffer = self.buffer + 1
    return y


def writes_to_an_object(self, y):
    self.object.count += 1
    return y


def writes_within(self, y):
    self.nested["counts"][0] += 1
    return y


def is_another_at_first(self, y):
    first, self.first = self.first, False
    return y * 2 if first else y


def keeps_numbers_of_the_first_input(self, y):
    if self.kept is None:
        self.kept = y.mean()
    return y - self.kept


def draws(self, y):
    return y * random.random()


REFUSED = {
    keeps_result: "sets kept", keeps_part: r"sets log\[0\]", counts: "sets calls",
    logs: "sets log", remembers_the_last: r"sets last\[0\]", notes: r"sets table\['last'\]",
    collects: "sets seen", reassigns: "sets tensor", adds_to_an_array: "sets array",
    reassigns_a_buffer: "sets buffer", writes_to_an_object: r"sets object\.count",
    writes_within: r"sets nested\['counts'\]\[0\]",
    is_another_at_first: "other results .* sets first",
    keeps_numbers_of_the_first_input: "sets kept", draws: "other results",
}  # fmt: skip


@pytest.mark.parametrize("forward", REFUSED, ids=lambda f: f.__name__)
def test_what_the_forward_writes_is_refused(forward):
    with pytest.raises(jsc.CompileError, match=REFUSED[forward]):
        compiled(Model(forward).eval(), torch.rand(X))


def test_the_module_is_named():
    model = nn.Sequential(nn.ReLU(), Model(counts)).eval()
    with pytest.raises(jsc.CompileError, match=r"sets 1\.calls.*Let the forward return it"):
        compiled(model, torch.rand(X))


def notes_what_does_not_change(self, y):
    self.kept = [y.device, y.dtype, y.shape, np.int64(3), float("nan")]
    return y


def test_what_is_the_same_at_each_call_is_accepted():
    model, x = Model(notes_what_does_not_change).eval(), torch.rand(X)
    net = compiled(model, x)
    close(net(x), model(x))


def test_results_of_other_dtypes_are_compared_too():
    model, x = Model(lambda self, y: (y > 0, y.argmax(1), y + float("nan"))).eval(), torch.rand(X)
    net = compiled(model, x)
    for ours, theirs in zip(net(x), model(x), strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_large_attributes_take_no_time():
    model = Model(counts).eval()
    model.large = [[[1] * 1000 for _ in range(1000)] for _ in range(20)]
    marks = snapshot(model)
    assert len(marks) < 2 * MARKS
    model.calls += 1
    assert changed(marks, snapshot(model)) == ["calls"]


def positions(self, y):
    if self.kept is None or self.kept.shape != y.shape[-2:]:
        self.kept = torch.arange(y[0, 0].numel()).view(y.shape[-2:]).float()
    return y + self.kept


def positions_by_size(self, y):
    size = tuple(y.shape[-2:])
    if size not in self.table:
        self.table[size] = torch.arange(size[0] * size[1]).view(size).float()
    return y + self.table[size]


@pytest.mark.parametrize("forward", [positions, positions_by_size])
def test_a_cache_is_accepted_and_the_model_is_left_alone(forward):
    model = Model(forward).eval()
    x, larger = torch.rand(X), torch.rand(2, 3, 20, 18)
    before = torch.get_rng_state(), random.getstate()
    net = compiled(model, x)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert model.kept is None
    assert not model.table
    for image in (x, larger, x):
        close(net(image), model(image))
