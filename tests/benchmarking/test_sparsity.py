"""`sparsity`: runs are kept, density is counted, the sentences follow from the rows."""

import json

import pytest
import torch
from torch import nn

import jsc
from benchmarks.common.harness import WrongResult
from benchmarks.common.kept import Runs
from benchmarks.inputs import networks
from benchmarks.inputs.image_tasks import Split
from benchmarks.networks import sparsity, sparsity_page, sparsity_times, sparsity_training
from benchmarks.networks.sparsity_training import Arm, Images


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    ).eval().requires_grad_(False)  # fmt: skip


def split(count):
    generator = torch.Generator().manual_seed(count)
    x = torch.randint(256, (count, 16, 16, 3), generator=generator, dtype=torch.uint8)
    return Split(x, torch.arange(count) % 10)


SETS = Images(split(60), split(20), split(24))


@pytest.fixture
def made(monkeypatch):
    """The benchmark on a small network and noise; how often it was fine-tuned."""
    network = networks.Network("small", small_network(), (3, 16, 16), {}, 0)
    monkeypatch.setattr(networks, "load", lambda folder, name: network)
    monkeypatch.setattr(sparsity_training, "images", lambda data, quick: SETS)
    trained, original = [], sparsity_training.fine_tune
    monkeypatch.setattr(
        sparsity_training, "fine_tune", lambda *a: trained.append(a[1]) or original(*a)
    )
    return trained


def test_it_runs_and_trains_nothing_again(tmp_path, made, capsys):
    given = ["--data", "x", "--quick", "--out", str(tmp_path), "--runs", str(tmp_path / "runs")]
    sparsity.main([*given, "--no-times"])
    count = len(made)
    assert count == len([arm for arm in sparsity.arms(1) if arm.epochs])
    shown = capsys.readouterr().out
    assert "whether time is gained is not" in shown
    assert "not taken" in shown
    sparsity.main(given)
    assert len(made) == count
    rows = json.loads((tmp_path / "sparsity.json").read_text())["rows"]
    assert len(rows) == len(sparsity.arms(1))
    for row in rows:
        assert 0 < row["density"] <= 1
        assert bool(row["epochs"]) == ("times" in row)
    assert (tmp_path / "sparsity.png").exists()
    assert "sceptical reader" in capsys.readouterr().out


def test_the_weights_of_a_run_come_back(tmp_path, made):
    kept, arm = Runs(tmp_path), Arm(0.3, 1.0, 1, 0.02)
    sparsity_training.run(kept, tmp_path, "small", arm, 0, SETS, lambda note: None)
    model = sparsity_training.trained(kept, tmp_path, "small", arm, 0, SETS.train)
    assert sparsity_training.accuracy(model, SETS.test) == kept.get(
        sparsity_training.configuration("small", arm, 0, SETS.train)
    )["test"]  # fmt: skip
    assert isinstance(model[2], jsc.nn.FATReLU)
    assert not torch.equal(model[0].weight, small_network()[0].weight)


def test_arms_are_runs_of_their_own():
    keys = {
        json.dumps(sparsity_training.configuration("small", arm, 0, SETS.train))
        for arm in sparsity.arms(2)
    }
    assert len(keys) == len(sparsity.arms(2))


def test_density_is_that_of_the_multiply_adds():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 1))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([1.0, -1, -1, -1]))
    x = torch.full((2, 8, 8, 3), 200, dtype=torch.uint8)
    assert sparsity_training.density(model, x) == pytest.approx((12 * 1 + 24 * 0.25) / 36)


def test_a_wrong_way_is_not_timed():
    exact = torch.randn(8, 10)
    few = exact.clone()
    few[0] += 1  # an activation at its threshold
    sparsity_times.check("few", few, exact)
    with pytest.raises(WrongResult, match="100 % of the images are off"):
        sparsity_times.check("all", exact + 1, exact)
    with pytest.raises(WrongResult):
        sparsity_times.check("nan", exact * float("nan"), exact)


def row(arm, density, validation, ms, epochs=2):
    ratio = [1.0, 0.9, 1.1]
    times = {
        way: {"ms": value, "quartiles": [value, value], "gain": ratio, "over torch": ratio}
        for way, value in zip(sparsity_times.WAYS, ms, strict=True)
    }
    return {
        "network": "n", "arm": arm, "kind": f"{arm}, {'' if epochs else 'not '}fine-tuned",
        "density": density, "validation": validation, "test": validation - 8, "epochs": epochs,
        "cpu seconds": 1.0, "times": times,
    }  # fmt: skip


def test_the_sentences_follow_from_the_rows():
    rows = [
        row("ReLU", 0.5, 99, (4, 5, 4, 2)), row("ReLU", 0.5, 99.5, (4, 5, 4, 2), epochs=0),
        row("FATReLU 0.4", 0.4, 98.5, (4, 4, 3, 2)), row("FATReLU 0.1", 0.1, 50, (4, 2.5, 2.5, 2)),
    ]  # fmt: skip
    assert sparsity_page.chosen(rows, "n")["arm"] == "FATReLU 0.4"
    text = sparsity_page.words(rows)
    assert "compiled, no arm is faster than the plain ReLUs" in text
    assert "1.67 times" not in text
    assert "1.33 times as fast as the ReLU network run so" in text
    rows[3]["times"]["compiled"]["gain"] = [2.0, 1.9, 2.1]
    assert "FATReLU 0.1 by 2.00 times for 49.0 points of accuracy" in sparsity_page.words(rows)
    alone = [rows[0], rows[1], row("FATReLU 0.3", 0.3, 90, (4, 4, 3, 2))]
    assert "No arm loses at most 1 point" in sparsity_page.words(alone)
