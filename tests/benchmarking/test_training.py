"""`accuracy` and `robustness_small`: runs are kept, variants and attacks are what they say."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

import jsc
from benchmarks.inputs import image_tasks
from benchmarks.jpeg.training import (
    accuracy,
    attacks,
    hard_quantizer,
    loop,
    robustness_small,
    runs,
    variants,
)


def noise_task(count=12, side=16, epochs=1):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (count, side, side, 3), generator=generator, dtype=torch.uint8)
    y = torch.arange(count) % 3
    train, test = image_tasks.Split(x, y), image_tasks.Split(x[:6], y[:6])
    return image_tasks.task("noise", train, test, epochs)


# runs


def test_a_finished_run_is_not_made_again(tmp_path, monkeypatch):
    task = noise_task()
    monkeypatch.setattr(image_tasks, "load", lambda name, data, quick: task)
    given = ["--data", "x", "--runs", str(tmp_path), "--sets", "cifar10", "--seeds", "0"]
    given += ["--architectures", "resnet", "--variants", "standard", "jpeg-dl", "zero-dc"]
    options = accuracy.arguments_of(given)
    trained = []
    original = loop.train
    monkeypatch.setattr(loop, "train", lambda *a: trained.append(1) or original(*a))
    first = accuracy.train(options, runs.Runs(tmp_path))
    assert len(first) == len(trained) == 3 - 1  # controls belong to another pair
    again = accuracy.train(options, runs.Runs(tmp_path))
    assert len(trained) == 2
    assert [r["accuracy"] for _, r in again] == [r["accuracy"] for _, r in first]


def test_no_run_starts_when_the_minutes_are_spent(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(image_tasks, "load", lambda name, data, quick: noise_task())
    given = ["--data", "x", "--runs", str(tmp_path), "--minutes", "-1", "--sets", "cifar10"]
    assert accuracy.train(accuracy.arguments_of(given), runs.Runs(tmp_path)) == []
    assert "runs are left" in capsys.readouterr().out


def test_the_most_telling_runs_come_first():
    options = accuracy.arguments_of(["--data", "x"])
    planned = accuracy.plan(options)
    pairs = len(options.sets) * len(options.architectures)
    assert {variant for _, _, variant, _ in planned[: 2 * pairs]} == set(variants.MAIN)
    assert {seed for *_, seed in planned[: 2 * pairs + len(variants.CONTROLS)]} == {0}
    assert len(set(planned)) == len(planned) == 3 * (2 * pairs + len(variants.CONTROLS))


def test_a_line_cut_off_counts_as_not_run(tmp_path):
    (tmp_path / "runs.jsonl").write_text(json.dumps({"key": "a"}) + '\n{"key": "b", "con')
    kept = runs.Runs(tmp_path)
    assert list(kept.found) == ["a"]


def test_a_run_after_a_line_cut_off_is_kept(tmp_path):
    (tmp_path / "runs.jsonl").write_text('{"key": "b", "con')
    runs.Runs(tmp_path).add({"seed": 1}, nn.Linear(1, 1), {"accuracy": 1.0})
    assert runs.Runs(tmp_path).get({"seed": 1})["accuracy"] == 1.0


def test_the_key_is_the_whole_configuration():
    task, variant = noise_task(), variants.VARIANTS["jpeg-dl"]
    config = runs.configuration(task, "resnet", variant, 0)
    assert runs.key(config) == runs.key(dict(reversed(config.items())))
    others = [
        runs.configuration(task, "vgg", variant, 0),
        runs.configuration(task, "resnet", variant, 1),
        runs.configuration(task, "resnet", variants.VARIANTS["ones"], 0),
        runs.configuration(noise_task(epochs=2), "resnet", variant, 0),
        runs.configuration(noise_task(count=15), "resnet", variant, 0),
    ]
    assert len({runs.key(c) for c in [config, *others]}) == 6
    every = variants.VARIANTS.values()
    keys = {runs.key(runs.configuration(task, "resnet", a, 0)) for a in every}
    assert len(keys) == len(every)


def test_weights_come_back(tmp_path):
    task, kept = noise_task(), runs.Runs(tmp_path)
    silent = lambda note: None  # noqa: E731
    _, model = runs.run(kept, task, "vgg", variants.VARIANTS["ones"], 3, silent)
    found = runs.model_of(kept, task, "vgg", variants.VARIANTS["ones"], 3, silent)
    x = image_tasks.to_float(task.test.x)
    assert torch.equal(model.eval()(x), found(x))
    assert not torch.equal(found.layer[0].tables, torch.ones(2, 8, 8))  # they were trained


def test_all_variants_see_the_same_images_and_weights():
    task = noise_task()
    seeds = [torch.Generator().manual_seed(1) for _ in range(2)]
    seen = [next(image_tasks.batches(task.train, seed))[0] for seed in seeds]
    assert torch.equal(*seen)
    models = [
        runs.build(task, "resnet", variants.VARIANTS[name], 5, lambda: torch.ones(3, 8, 8))
        for name in ("standard", "jpeg-dl", "zero-dc")
    ]
    first, *rest = [torch.cat([p.flatten() for p in m.network.parameters()]) for m in models]
    assert all(torch.equal(first, other) for other in rest)


def test_ahead_means_beyond_every_deviation():
    standard = {"accuracy": [70.0, 71.0, 72.0]}
    assert accuracy.ahead(standard, {"accuracy": [73.0, 74.0, 75.0], "gain": [3.0, 3.0, 3.0]})
    assert not accuracy.ahead(standard, {"accuracy": [70.5, 71.5, 72.5], "gain": [0.5] * 3})
    assert not accuracy.ahead({"accuracy": [70.0]}, {"accuracy": [80.0], "gain": [10.0]})


# variants and the hard quantizer


def test_zero_dc_takes_the_block_means_off():
    x = torch.rand(2, 3, 16, 24)
    y = variants.ZeroDC()(x)
    z = jsc.functional.block_dct(x - 0.5).clone()
    z[..., 0, 0] = 0
    torch.testing.assert_close(y - 0.5, jsc.functional.block_idct(z), atol=1e-5, rtol=0)


def test_a_tiny_kappa_only_saturates():
    variant = variants.CONTROLS["saturation"]
    layer = variant.build(lambda: torch.ones(3, 8, 8))[0]  # all steps 5: clamped at 635
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(layer(x), x, atol=1e-4, rtol=0)
    assert not layer.tables.requires_grad


def test_bits_per_pixel_of_known_histograms():
    k = torch.zeros(2, 3, 2, 2, 8, 8)
    assert hard_quantizer.bits_per_pixel(k) == 0
    k[0, :, ..., 0, 0] = 7  # half of the blocks: one bit a channel and block of 64 pixels
    assert hard_quantizer.bits_per_pixel(k) == pytest.approx(3 / 64)


def test_hard_levels_are_those_of_the_layer():
    layer = jsc.nn.JPEG(torch.full((2, 8, 8), 20.0), quantizer="hard", levels=5)
    x = torch.rand(1, 3, 8, 8)
    k = hard_quantizer.levels(layer, x)
    again = hard_quantizer.levels(layer, layer(x))
    assert k.abs().max() <= 5
    assert torch.equal(k, again)


# attacks


def small_model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()


@pytest.mark.parametrize("stop", [True, False])
def test_attacks_stay_in_the_ball_and_in_the_image(stop):
    model, x = small_model(), torch.rand(9, 3, 8, 8)
    x[0], x[1] = 0, 1
    with torch.no_grad():
        y = model(x).argmax(1)
    made = [attacks.fgsm(model, x, y, 0.03)]
    made.append(attacks.pgd(model, x, y, 0.03, 7, torch.Generator().manual_seed(0), stop=stop))
    for attacked in made:
        assert (attacked - x).abs().max() <= 0.03 + 1e-6
        assert attacked.min() >= 0
        assert attacked.max() <= 1
        assert not torch.equal(attacked, x)


def test_pgd_raises_the_loss():
    model, x = small_model(), torch.rand(16, 3, 8, 8)
    with torch.no_grad():
        y = model(x).argmax(1)
        loss = nn.functional.cross_entropy(model(x), y)
        made = attacks.pgd(model, x, y, 0.1, 5, torch.Generator().manual_seed(0))
        assert nn.functional.cross_entropy(model(made), y) > loss
        assert (model(made).argmax(1) != y).any()


def test_bpda_has_the_layer_forward_and_the_identity_backward():
    layer = jsc.nn.JPEG(torch.full((2, 8, 8), 40.0), quantizer="hard")
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    y = attacks.Bypass(layer)(x)
    assert torch.equal(y, layer(x))
    weights = torch.randn_like(y)
    (gradient,) = torch.autograd.grad((y * weights).sum(), x)
    assert torch.equal(gradient, weights)


def test_robustness_small_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(image_tasks, "load", lambda name, data, quick: noise_task())
    where = ["--data", "x", "--out", str(tmp_path), "--runs", str(tmp_path / "runs")]
    robustness_small.main([*where, "--seeds", "0", "--variants", "jpeg-dl"])
    rows = json.loads((tmp_path / "robustness_small.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == ["standard", "jpeg-dl"]
    assert "PGD-20, BPDA" in rows[1]["attacked"]
    for row in rows:
        for values in row["attacked"].values():
            assert all(
                w <= v <= row["clean"]
                for w, v in zip(row["attacked"]["worst"], values, strict=True)
            )
    assert "transfer" in capsys.readouterr().out


def test_accuracy_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(image_tasks, "load", lambda name, data, quick: noise_task())
    where = ["--data", "x", "--out", str(tmp_path), "--runs", str(tmp_path / "runs")]
    accuracy.main([*where, "--seeds", "0", "--sets", "flower_photos5", "--architectures", "resnet"])
    rows = json.loads((tmp_path / "accuracy.json").read_text())["rows"]
    assert {row["variant"] for row in rows} == {*variants.MAIN, *variants.CONTROLS}
    assert (tmp_path / "accuracy.png").exists()
    assert "JPEG-DL, %" in capsys.readouterr().out


DATA = os.environ.get("JSC_DATA")


@pytest.mark.data
@pytest.mark.skipif(not DATA, reason="JSC_DATA is not set")
@pytest.mark.parametrize("name", image_tasks.SOURCES)
def test_sets_are_read(name):
    task = image_tasks.load(name, Path(DATA), quick=True)
    side = image_tasks.SOURCES[name].side
    assert task.train.x.shape == (10 * task.classes, side, side, 3)
    assert torch.equal(task.train.y.bincount(), torch.full((task.classes,), 10))
    assert len(task.test.y) == 10 * task.classes
