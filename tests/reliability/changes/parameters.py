"""Other dtypes and memory formats, other parameters, and weights that are computed."""

from __future__ import annotations

import warnings

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from tests.reliability.changes.optimizers import step
from tests.reliability.changes.table import change, random_like

# Other dtypes, formats, modes.


@change
def bfloat16_and_back(conv):
    conv.bfloat16().float()


@change
def half_and_back(conv):
    conv.half().float()


@change
def half_and_back_swapping(conv):
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        conv.half().float()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


@change
def state_loaded_swapping(conv):
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        conv.load_state_dict({k: random_like(v) for k, v in conv.state_dict().items()})
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


@change
def double_and_written(conv):
    conv.double()
    conv.weight.data.mul_(2)


@change
def channels_last_and_written(conv):
    conv.to(memory_format=torch.channels_last)
    with torch.no_grad():
        conv(torch.rand(1, conv.in_channels, 5, 5))
    conv.weight.data.mul_(2)


@change
def applied_to_every_tensor(conv):
    conv._apply(lambda tensor: tensor * 2)


@change
def frozen_and_written(conv):
    conv.requires_grad_(False)
    conv.weight.mul_(2)


@change
def to_meta_and_empty(conv):
    conv.to("meta").to_empty(device="cpu")
    for parameter in conv.parameters():
        nn.init.normal_(parameter)


# Other parameters.


@change
def new_parameter(conv):
    conv.weight = nn.Parameter(random_like(conv.weight))


@change
def new_parameter_in_the_dict(conv):
    conv._parameters["weight"] = nn.Parameter(random_like(conv.weight))


@change
def registered_again(conv):
    new = nn.Parameter(random_like(conv.weight))
    del conv.weight
    conv.register_parameter("weight", new)


@change
def tied_and_written_there(conv):
    other = nn.Conv2d(conv.in_channels, conv.out_channels, 3, groups=conv.groups)
    conv.weight = other.weight
    with torch.no_grad():
        conv(torch.rand(1, conv.in_channels, 5, 5))
    step(other, torch.optim.SGD, {"fused": True}, ("weight",))


@change
def weights_of_inference_mode(conv):
    with torch.inference_mode():
        conv.weight = nn.Parameter(random_like(conv.weight), requires_grad=False)
        for _ in range(2):
            conv(torch.rand(1, conv.in_channels, 5, 5))
        conv.weight.mul_(2)


# Weights that are computed.


@change
def weight_norm(conv):
    parametrizations.weight_norm(conv)
    with torch.no_grad():
        conv(torch.rand(1, conv.in_channels, 5, 5))
    conv.parametrizations.weight.original0.data.mul_(2)


@change
def weight_norm_cached(conv):
    parametrizations.weight_norm(conv)
    with torch.no_grad(), parametrize.cached():
        conv(torch.rand(1, conv.in_channels, 5, 5))
    conv.parametrizations.weight.original1.data.copy_(
        random_like(conv.parametrizations.weight.original1)
    )


@change
def weight_norm_removed(conv):
    parametrizations.weight_norm(conv)
    conv.parametrizations.weight.original0.data.mul_(2)
    with torch.no_grad():
        conv(torch.rand(1, conv.in_channels, 5, 5))
    parametrize.remove_parametrizations(conv, "weight")


@change
def weight_norm_of_old(conv):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and used
        nn.utils.weight_norm(conv)
    with torch.no_grad():
        conv(torch.rand(1, conv.in_channels, 5, 5))
    conv.weight_g.data.mul_(2)


@change
def spectral_norm(conv):
    parametrizations.spectral_norm(conv)
    with torch.no_grad():
        conv(torch.rand(1, conv.in_channels, 5, 5))
    conv.parametrizations.weight.original.data.copy_(
        random_like(conv.parametrizations.weight.original)
    )


@change
def pruned(conv):
    prune.l1_unstructured(conv, "weight", 0.5)


@change
def pruned_and_written(conv):
    prune.random_structured(conv, "weight", 0.5, dim=0)
    with torch.no_grad():
        conv(torch.rand(1, conv.in_channels, 5, 5))
    conv.weight_orig.data.mul_(2)


@change
def pruned_for_good(conv):
    prune.ln_structured(conv, "weight", 0.5, n=2, dim=0)
    prune.remove(conv, "weight")
