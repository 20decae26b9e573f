"""The estimators of `jsc.jpeg` under `torch.distributed`: two processes, the bits of one."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

import jsc

PROCESSES = 2
SIZES = (3, 2, 4, 1, 2)

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo"
)


def network():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3),
    )  # fmt: skip


def batches():
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.rand(n, 3, 20, 17, generator=generator), torch.randint(3, (n,), generator=generator))
        for n in SIZES
    ]


def measured(model, loader, **options):
    loss = nn.functional.cross_entropy
    return [
        jsc.jpeg.sensitivity(model, loader, loss, progress=False, **options),
        jsc.jpeg.mean_absolute(loader, progress=False, **options),
    ]


def found(rank, model):
    data = batches()
    own = data[rank::PROCESSES]
    made = {f"share {most}": measured(model, data, max_images=most) for most in (None, 3, 6)}
    made["one batch"] = measured(model, data[:1])  # the second process has none
    made["parts"] = measured(model, own, processes="parts")
    made["alone"] = measured(model, own, processes="alone")
    return made


def worker(rank, folder):
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=PROCESSES)
    try:
        model = nn.parallel.DistributedDataParallel(network())
        torch.save(found(rank, model), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_two_processes_find_the_bits_of_one(tmp_path, threads):
    torch.multiprocessing.spawn(worker, (str(tmp_path),), nprocs=PROCESSES)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(PROCESSES))
    threads(1)
    model, data = network(), batches()
    expected = {f"share {most}": measured(model, data, max_images=most) for most in (None, 3, 6)}
    expected |= {"one batch": measured(model, data[:1]), "parts": measured(model, data)}
    for name, values in expected.items():
        for one, other, right in zip(first[name], second[name], values, strict=True):
            assert torch.equal(one, right), name
            assert torch.equal(other, right), name
    for rank, made in enumerate((first, second)):
        for value, right in zip(made["alone"], measured(model, data[rank::2]), strict=True):
            assert torch.equal(value, right)
