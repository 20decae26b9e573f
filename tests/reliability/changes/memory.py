"""What writes into the memory of the weight: in place, through `.data`, through other views."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tests.reliability.changes.table import change, random_like

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
