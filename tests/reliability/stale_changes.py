"""Every way known to change the weight or the bias of a convolution, as a table.

A change takes a module with a `weight` of (K, C, Kh, Kw) and a `bias`, and leaves other numbers in
it. It returns the module to call from then on, or None where that is the same one. The test of the
table asks that the next evaluation has torch's result on the new numbers.
"""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

Change = Callable[[nn.Conv2d], nn.Module | None]
CHANGES: dict[str, Change] = {}
OPTIMIZERS = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad)
KINDS = {"plain": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}


def change(function: Change) -> Change:
    CHANGES[function.__name__.replace("_", " ")] = function
    return function


def random_like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.randn(tensor.shape, dtype=tensor.dtype)


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


# Torch's own ways to write.


@change
def in_place_without_gradients(conv):
    with torch.no_grad():
        conv.weight.mul_(2)


@change
def in_place_in_inference_mode(conv):
    with torch.inference_mode():
        conv.weight.mul_(2)


@change
def version_counter_kept(conv):
    with torch.no_grad(), torch.autograd._unsafe_preserve_version_counter(conv.weight):
        conv.weight.mul_(2)


@change
def foreach_in_place(conv):
    with torch.no_grad():
        torch._foreach_mul_([conv.weight, conv.bias], 2)


@change
def nn_init(conv):
    nn.init.normal_(conv.weight)


@change
def vector_to_parameters(conv):
    vector = nn.utils.parameters_to_vector(conv.parameters())
    nn.utils.vector_to_parameters(torch.randn_like(vector).detach(), conv.parameters())


@change
def state_loaded(conv):
    conv.load_state_dict({k: random_like(v) for k, v in conv.state_dict().items()})


@change
def state_assigned(conv):
    new = {k: random_like(v) for k, v in conv.state_dict().items()}
    conv.load_state_dict(new, assign=True)


@change
def state_assigned_then_written(conv):
    new = {k: random_like(v) for k, v in conv.state_dict().items()}
    conv.load_state_dict(new, assign=True)
    with torch.no_grad():
        conv(torch.rand(1, conv.in_channels, 5, 5))
    for value in new.values():
        value.mul_(2)


# Through `.data`, which torch does not count.


@change
def data_replaced(conv):
    conv.weight.data = random_like(conv.weight)


@change
def data_replaced_twice(conv):
    for _ in range(2):  # the second may get the address of the first
        conv.weight.data = random_like(conv.weight)


@change
def data_of_fewer_filters(conv):
    half = len(conv.weight) // 2
    conv.weight.data, conv.bias.data = conv.weight.data[:half], conv.bias.data[:half]


@change
def data_of_more_filters(conv):
    conv.weight.data = torch.cat([conv.weight.data, random_like(conv.weight)])
    conv.bias.data = torch.cat([conv.bias.data, random_like(conv.bias)])


@change
def data_transposed(conv):
    conv.weight.data = conv.weight.data.transpose(2, 3)


@change
def data_flipped_filters(conv):
    """The same numbers in another order."""
    conv.weight.data = conv.weight.data.flip(0)


@change
def data_expanded(conv):
    conv.weight.data = torch.randn(1, *conv.weight.shape[1:]).expand(conv.weight.shape)


@change
def data_of_other_memory_format(conv):
    conv.weight.data = random_like(conv.weight).contiguous(memory_format=torch.channels_last)


@change
def data_multiplied(conv):
    conv.weight.data.mul_(2)


@change
def data_negated(conv):
    conv.weight.data.neg_()


@change
def data_copied(conv):
    conv.weight.data.copy_(random_like(conv.weight))


@change
def data_zeroed(conv):
    conv.weight.data.zero_()


@change
def data_filled_with_infinity(conv):
    conv.weight.data.fill_(float("inf"))


@change
def data_added_in_a_hook(conv):
    def add(module, inputs):
        module.weight.data.add_(1)

    conv.register_forward_pre_hook(add)


# Through other views of the memory.


@change
def numpy_view(conv):
    conv.weight.detach().numpy()[...] = random_like(conv.weight).numpy()


@change
def numpy_from_dlpack(conv):
    np.from_dlpack(conv.weight.detach())[...] *= 3


@change
def torch_from_dlpack(conv):
    torch.from_dlpack(conv.weight.detach().__dlpack__()).mul_(3)


@change
def view_of_the_storage(conv):
    empty = torch.empty(0, dtype=conv.weight.dtype)
    empty.set_(conv.weight.untyped_storage()).mul_(3)


@change
def storage_copied(conv):
    conv.weight.untyped_storage().copy_(random_like(conv.weight).untyped_storage())


@change
def set_to_other_memory(conv):
    conv.weight.detach().set_(random_like(conv.weight))  # a view: the parameter is as it was
    with torch.no_grad():
        conv.weight.set_(random_like(conv.weight))


@change
def swapped_tensors(conv):
    torch.utils.swap_tensors(conv.weight, nn.Parameter(random_like(conv.weight)))


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
