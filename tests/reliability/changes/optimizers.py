"""Optimizers, and averages of the weights of several steps."""

from __future__ import annotations

import torch

from tests.reliability.changes.table import CHANGES, change, random_like

OPTIMIZERS = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad)
KINDS = {"plain": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}


# Optimizers. A step without a change of mode: nothing but the numbers says that it happened.


def step(conv, optimizer, options, names=("weight", "bias")):
    parameters = [getattr(conv, name) for name in names]
    for parameter in parameters:
        parameter.grad = random_like(parameter)
    optimizer(parameters, lr=0.1, **options).step()


def epoch(conv, optimizer, options):
    """As people do it: mode, forward, backward, step, mode."""
    made = optimizer(conv.parameters(), lr=0.1, **options)
    conv.train()
    for _ in range(2):
        made.zero_grad()
        conv(torch.rand(2, conv.in_channels, 6, 6)).square().sum().backward()
        made.step()
    conv.eval()


def filters_of_few(conv, options):
    """Only a quarter of the filters have a gradient, as where ReLUs are dead."""
    conv.weight.grad = random_like(conv.weight)
    conv.weight.grad[len(conv.weight) // 4 :] = 0
    torch.optim.SGD([conv.weight], lr=0.5, **options).step()


for _optimizer in OPTIMIZERS:
    for _kind, _options in KINDS.items():
        _name = f"{_optimizer.__name__} {_kind}"
        CHANGES[f"step of {_name}"] = lambda m, o=_optimizer, k=_options: step(m, o, k)
        CHANGES[f"epoch of {_name}"] = lambda m, o=_optimizer, k=_options: epoch(m, o, k)
    CHANGES[f"bias by {_optimizer.__name__} fused"] = lambda m, o=_optimizer: step(
        m, o, {"fused": True}, ("bias",)
    )
CHANGES["a quarter of the filters by SGD fused"] = lambda m: filters_of_few(m, {"fused": True})


# Averages.


@change
def averaged_model_swapped_in(conv):
    average = torch.optim.swa_utils.AveragedModel(
        conv, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
    )
    for _ in range(2):
        step(conv, torch.optim.SGD, {"fused": True})
        average.update_parameters(conv)
    for mine, theirs in zip(conv.parameters(), average.module.parameters(), strict=True):
        mine.data, theirs.data = theirs.data, mine.data


@change
def averaged_model_copied_in(conv):
    average = torch.optim.swa_utils.AveragedModel(conv)
    for parameter in average.module.parameters():
        parameter.data.mul_(2)
    for mine, theirs in zip(conv.parameters(), average.module.parameters(), strict=True):
        mine.data.copy_(theirs.data)


@change
def averaged_model_itself(conv):
    average = torch.optim.swa_utils.AveragedModel(conv)
    with torch.no_grad():
        average(torch.rand(1, conv.in_channels, 5, 5))
    average.module.weight.data.mul_(2)
    return average.module
