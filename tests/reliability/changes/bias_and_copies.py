"""Changes of the bias alone, and of a copy of the module."""

from __future__ import annotations

import copy
import io
import pickle

import torch
from torch import nn

from tests.reliability.changes.table import change, random_like

# The bias alone.


@change
def bias_in_place(conv):
    with torch.no_grad():
        conv.bias.add_(1)


@change
def bias_data(conv):
    conv.bias.data = random_like(conv.bias)


@change
def bias_data_added(conv):
    conv.bias.data.add_(1)


@change
def one_number_of_the_bias_by_numpy(conv):
    conv.bias.detach().numpy()[-1] += 1


@change
def bias_from_dlpack(conv):
    torch.from_dlpack(conv.bias.detach().__dlpack__()).mul_(3)


@change
def bias_of_other_strides(conv):
    conv.bias.data = torch.randn(2 * len(conv.bias))[::2]


@change
def bias_replaced(conv):
    conv.bias = nn.Parameter(random_like(conv.bias))


@change
def bias_removed(conv):
    conv.bias = None


@change
def bias_removed_and_back(conv):
    conv.bias = None
    with torch.no_grad():
        conv(torch.rand(1, conv.in_channels, 5, 5))
    conv.bias = nn.Parameter(torch.ones(conv.out_channels))


@change
def bias_filled_with_nan(conv):
    conv.bias.data.fill_(float("nan"))


# Copies.


@change
def deepcopied_and_written(conv):
    new = copy.deepcopy(conv)
    new.weight.data.mul_(2)
    return new


@change
def pickled_and_written(conv):
    new = pickle.loads(pickle.dumps(conv))
    new.weight.data.mul_(2)
    return new


@change
def saved_and_written(conv):
    stored = io.BytesIO()
    torch.save(conv, stored)
    stored.seek(0)
    new = torch.load(stored, weights_only=False)
    new.weight.data.mul_(2)
    return new


@change
def shallow_copy_and_written(conv):
    new = copy.copy(conv)
    new._parameters = dict(conv._parameters)
    new.weight = nn.Parameter(random_like(conv.weight))
    with torch.no_grad():
        new(torch.rand(1, conv.in_channels, 5, 5))
    new.weight.data.mul_(2)
    return new
