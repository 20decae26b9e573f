"""`torch.nn.parallel.DistributedDataParallel` over two processes (gloo)."""

import pytest
import torch
import torch.distributed as dist
from samples import IMAGENET, photo
from torch import nn

import jsc

PROCESSES = 2

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo"
)


def network():
    torch.manual_seed(3)
    layer = jsc.nn.JPEG.from_quality(40, kappa=2.0, train_alpha=True, rounds=2, **IMAGENET)
    body = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    return nn.Sequential(layer, *body).double()


def loss(model, x):
    return nn.functional.cross_entropy(model(x), torch.arange(len(x)) % 3)


def worker(rank, folder):
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=PROCESSES)
    try:
        model = nn.parallel.DistributedDataParallel(network())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        x = photo(6, 20, 18, dtype=torch.float64)
        for _ in range(2):
            optimizer.zero_grad()
            loss(model, x.chunk(PROCESSES)[rank]).backward()
            optimizer.step()
        names = dict(model.module.named_parameters())
        found = {n: (p.grad, p.detach()) for n, p in names.items()}
        torch.save(found, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_gradients_are_those_of_the_whole_batch(tmp_path):
    torch.multiprocessing.spawn(worker, (str(tmp_path),), nprocs=PROCESSES)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    x = photo(6, 20, 18, dtype=torch.float64)
    for _ in range(2):
        optimizer.zero_grad()
        loss(model, x).backward()
        optimizer.step()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(PROCESSES))
    assert {"0.tables", "0.log_kappa"} <= set(first)
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 0, name
        for found, other, expected in zip(
            first[name], second[name], (parameter.grad, parameter.detach()), strict=True
        ):
            assert torch.equal(found, other), name
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
