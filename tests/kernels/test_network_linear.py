"""Linear layers of a network program, against torch in float64."""

import pytest
import torch
import torch.nn.functional as F
from network_maps import Maps, act, close


@pytest.mark.parametrize(
    "inputs", [(1, 1, 1), (1, 1, 37), (3, 5, 29), (2, 3, 7), (1, 1, 2048)], ids=str
)
@pytest.mark.parametrize("K", [1, 7, 10, 24, 100])
@pytest.mark.parametrize("N", [1, 2, 5])
def test_linear(maps, N, K, inputs):
    H, W, C = inputs
    x, weight, shift = torch.randn(N, C, H, W), torch.randn(K, C * H * W), torch.randn(K)
    out, _ = maps.place((N, 1, 1, K))
    fields = {
        "x": maps.put(x, around=0, rows=0), "out": out, "inputs": C * H * W, "bf16": 0,
        "weight": maps.constant(weight), "shift": maps.constant(shift), "act": act("silu"),
    }  # fmt: skip
    rows = x.permute(0, 2, 3, 1).flatten(1).double()
    exact = F.silu(F.linear(rows, weight.double(), shift.double()))
    ours = maps.run("linear", fields)[:, :, 0, 0]
    close(ours, exact)
    for n in range(N):  # a row alone has the same bits
        one, _ = maps.place((1, 1, 1, K))
        source = maps.put(x[n : n + 1], around=0)
        alone = maps.run("linear", {**fields, "x": source, "out": one})[:, :, 0, 0]
        assert torch.equal(alone[0], ours[n])
    # Weights of bfloat16 give the bits of the same numbers in float32.
    short = weight.bfloat16()
    same = maps.run("linear", {**fields, "weight": maps.constant(short.float())}).clone()
    halves = maps.run("linear", {**fields, "bf16": 1, "weight": maps.constant(short)})
    assert torch.equal(halves, same)


def test_linear_of_rows_beyond_the_cache(isa, num_threads):
    maps = Maps(isa, num_threads, 1 << 19)
    x, weight = torch.randn(64, 3000, 1, 1), torch.randn(19, 3000)
    out, _ = maps.place((64, 1, 1, 19))
    fields = {
        "x": maps.put(x, around=0), "out": out, "inputs": 3000, "bf16": 0,
        "weight": maps.constant(weight), "shift": 0, "act": act(),
    }  # fmt: skip
    ours = maps.run("linear", fields)[:, :, 0, 0]
    close(ours, x.flatten(1).double() @ weight.double().T)
    one, _ = maps.place((1, 1, 1, 19))
    source = {**fields["x"], "N": 1, "offset": fields["x"]["offset"] + 7 * fields["x"]["image"]}
    assert torch.equal(maps.run("linear", {**fields, "x": source, "out": one})[0, :, 0, 0], ours[7])
