"""`accuracy` and `rate` as several processes: what they find is what one process finds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from benchmarks import __main__ as command_line
from benchmarks.common import processes
from benchmarks.inputs import image_tasks
from benchmarks.jpeg import rate, rate_accuracy
from benchmarks.jpeg.training import accuracy, runs

ROOT = Path(__file__).parents[2]
PROCESSES = 2

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo"
)


def noise(name, data, **_):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (12, 16, 16, 3), generator=generator, dtype=torch.uint8)
    y = torch.arange(12) % 3
    return image_tasks.task(name, image_tasks.Split(x, y), image_tasks.Split(x[:6], y[:6]), 1)


def trained(folder):
    given = ["--data", "x", "--runs", str(folder), "--sets", "cifar10", "--seeds", "0", "1", "2"]
    given += ["--architectures", "resnet", "--variants", "standard", "jpeg-dl"]
    real, image_tasks.load = image_tasks.load, noise
    try:
        found = accuracy.train(accuracy.arguments_of(given), runs.Runs(folder))
    finally:
        image_tasks.load = real
    return [(run, record["losses"], record["accuracy"]) for run, record in found]


def curve():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, 5, stride=3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    pixels = torch.stack(rate.natural(1, 32)).expand(210, -1, -1, -1)[:, :, :16, :16].clone()
    pixels[:, 0] = (pixels[:, 0] // 2 + torch.arange(210, dtype=torch.uint8)[:, None, None]) // 2
    sets = pixels, torch.arange(210) % 3  # three batches of the evaluation
    return rate_accuracy.curve(model, sets, sets, [50], [8.0], [0.5], 2)


def worker(rank, folder):
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=PROCESSES)
    try:
        found = {"runs": trained(folder / "runs"), "curve": curve()}
        torch.save(found, folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_two_processes_train_and_measure_what_one_does(tmp_path, threads):
    pytest.importorskip("PIL.Image")
    torch.multiprocessing.spawn(worker, (tmp_path,), nprocs=PROCESSES)
    threads(1)
    expected = trained(tmp_path / "alone")
    rows, measured = curve()
    assert len(expected) == 6
    for rank in range(PROCESSES):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        assert found["runs"] == expected
        assert found["curve"][0] == rows
        np.testing.assert_array_equal(found["curve"][1], measured)
    files = sorted(path.name for path in (tmp_path / "runs").glob("*.jsonl"))
    assert files == ["runs-1.jsonl", "runs.jsonl"]
    assert len(runs.Runs(tmp_path / "runs").found) == 6
    assert trained(tmp_path / "runs") == expected  # by one process, of what two have kept


def test_torchrun_writes_one_page(tmp_path, threads):
    pytest.importorskip("PIL.Image")
    rest = ["rate", "--quick", "--threads", "1", "--out"]
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES)]
    command += ["-m", "benchmarks", *rest, str(tmp_path / "two")]
    place = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": place, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("# rate\n") == 1
    threads(1)
    command_line.main([*rest, str(tmp_path / "one")])
    one, two = (json.loads((tmp_path / n / "rate.json").read_text()) for n in ("one", "two"))
    assert one["files"] == two["files"]


def test_shares_come_back_in_order(monkeypatch):
    items = list(range(7))
    for count in (1, 2, 3, 9):
        parts = [items[rank::count] for rank in range(count)]
        monkeypatch.setattr(processes, "gathered", lambda value, parts=parts: parts)
        assert processes.merged(parts[0]) == items
    monkeypatch.setattr(processes, "place", lambda: (1, 3))
    assert processes.share(items) == [1, 4]
    assert not processes.first()


def test_what_cannot_be_shared_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(processes, "place", lambda: (0, 2))
    loaded = SimpleNamespace(main=lambda rest: pytest.fail("it ran"))
    monkeypatch.setattr(command_line.importlib, "import_module", lambda name: loaded)
    assert command_line.main(["memory"]) == 2
    assert "accuracy, rate" in capsys.readouterr().out
