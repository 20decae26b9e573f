"""Models, clocks and settings of the tests of tuning."""

from __future__ import annotations

from torch import nn

from jsc.tuning import measure, timing, tuner, whole
from jsc.tuning.timing import Times

tune_module, measure_module, timing_module = tuner, measure, timing
whole_module = whole

QUICK = {"repeats": 3, "budget_s": 1.0, "progress": False}


class Nested(nn.Module):
    """A shared convolution called twice, a depthwise one, one that is never called, and a hook."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.again = self.body[0]
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.unused = nn.Conv2d(3, 3, 1)
        self.kept_in_a_list = [self.again]
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        x = self.stem(x).relu_()
        x = self.body(x)
        x = self.kept_in_a_list[0](x).relu()
        return self.dropout(self.depthwise(x).mean((2, 3)))


def clock(monkeypatch, times):
    """Let methods take these times, however long their first call takes on a busy machine."""

    def fake(candidates, rounds, seconds, baseline="dense", least=3):
        for function in candidates.values():
            function()
        return {name: Times(times.get(name, 9.0), times.get(name, 9.0)) for name in candidates}

    monkeypatch.setattr(measure_module, "interleaved", fake)
    monkeypatch.setattr(measure_module, "FIRST_CALL_SECONDS", 60.0)


def methods_of(plan):
    return {layer.name: layer.method for layer in plan.layers}
