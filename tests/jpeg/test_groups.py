"""`jsc.jpeg.param_groups`."""

import pytest
import torch
from samples import photo
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

import jsc
from jsc.jpeg import param_groups


def model(**options):
    layer = jsc.nn.JPEG.from_quality(50, kappa=2.0, **options)
    return nn.Sequential(layer, nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_tables_have_a_rate_of_their_own_and_do_not_decay():
    net = model(train_alpha=True)
    others, tables = param_groups(net, lr=0.1, table_lr=0.3, weight_decay=0.05)
    assert (others["name"], others["lr"], others["weight_decay"]) == ("model", 0.1, 0.05)
    assert (tables["name"], tables["lr"], tables["weight_decay"]) == ("tables", 0.3, 0.0)
    assert {id(p) for p in tables["params"]} == {id(net[0].tables), id(net[0].log_kappa)}
    together = [*others["params"], *tables["params"]]
    assert len(together) == len(list(net.parameters()))
    assert {id(p) for p in together} == {id(p) for p in net.parameters()}


def test_adamw():
    net = model()
    optimizer = torch.optim.AdamW(param_groups(net, lr=0.01, table_lr=0.5, weight_decay=0.5))
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    net(photo()).sum().mul(0).backward()  # decay alone
    optimizer.step()
    assert torch.equal(net[0].tables, before["0.tables"])
    torch.testing.assert_close(net[1].weight, before["1.weight"] * (1 - 0.01 * 0.5))
    optimizer.zero_grad()
    net[0](photo()).square().sum().backward()
    optimizer.step()
    step = (net[0].tables - before["0.tables"]).abs().max()
    assert step > 0.1  # far from lr, near to table_lr


def test_what_needs_no_gradient_is_left_out():
    net = model()
    net[0].requires_grad_(False)
    assert [g["name"] for g in param_groups(net, lr=0.1, table_lr=0.3)] == ["model"]
    net.requires_grad_(False)[0].requires_grad_()
    assert [g["name"] for g in param_groups(net, lr=0.1, table_lr=0.3)] == ["tables"]


def test_shared_layers_and_quantisers_count_once():
    layer, quantizer = jsc.nn.JPEG.from_quality(50), jsc.nn.SoftQuantizer(2.0)
    net = nn.ModuleList([layer, nn.Sequential(layer, quantizer), nn.Linear(2, 2)])
    others, tables = param_groups(net, lr=0.1, table_lr=0.3)
    assert len(tables["params"]) == len(others["params"]) == 2
    assert torch.optim.SGD([others, tables]).param_groups[1]["lr"] == 0.3


class Exponential(nn.Module):
    def forward(self, logarithm):
        return logarithm.exp()

    def right_inverse(self, tables):
        return tables.log()


def test_parametrized_tables_are_tables():
    net = model()
    register_parametrization(net[0], "tables", Exponential())
    others, tables = param_groups(net, lr=0.1, table_lr=0.3, weight_decay=0.05)
    assert [id(p) for p in tables["params"]] == [id(net[0].parametrizations.tables.original)]
    assert len(others["params"]) == len(list(net[1:].parameters()))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": [1]}, TypeError, "torch.nn.Module"),
        ({"model": nn.Linear(1, 1)}, ValueError, "jsc.nn.JPEG"),
        ({"lr": -1.0}, ValueError, "lr must not be negative"),
        ({"table_lr": float("nan")}, ValueError, "table_lr must be finite"),
        ({"weight_decay": "0"}, TypeError, "weight_decay must be a number"),
    ],
)
def test_errors(change, error, message):
    arguments = {"model": model(), "lr": 0.1, "table_lr": 0.3, **change}
    with pytest.raises(error, match=message):
        param_groups(arguments.pop("model"), **arguments)
