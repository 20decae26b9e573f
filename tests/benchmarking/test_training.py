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
    accuracy_page,
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
    monkeypatch.setattr(image_tasks, "load", lambda name, data, **_: task)
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
    monkeypatch.setattr(image_tasks, "load", lambda name, data, **_: noise_task())
    given = ["--data", "x", "--runs", str(tmp_path), "--minutes", "-1", "--sets", "cifar10"]
    assert accuracy.train(accuracy.arguments_of(given), runs.Runs(tmp_path)) == []
    assert "runs are left" in capsys.readouterr().out


def test_the_most_telling_runs_come_first():
    options = accuracy.arguments_of(["--data", "x"])
    planned = accuracy.plan(options)
    pairs, main = len(options.sets) * len(options.architectures), len(variants.MAIN)
    assert {variant for _, _, variant, _ in planned[: main * pairs]} == set(variants.MAIN)
    assert {seed for *_, seed in planned[: main * pairs + len(variants.CONTROLS)]} == {0}
    assert len(set(planned)) == len(planned) == 5 * (main * pairs + len(variants.CONTROLS))


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


def record(right):
    return {"right": right, "accuracy": 100 * right.count("1") / len(right)}


def found_of(ours, standard):
    """Runs of two seeds, as `summary` takes them."""
    return [
        (("set", "net", variant, seed), record(right))
        for variant, runs_of in (("standard", standard), ("jpeg-dl", ours))
        for seed, right in enumerate(runs_of)
    ]


def test_gains_are_paired_and_have_an_interval():
    worse, better = "1" * 60 + "0" * 40, "1" * 80 + "0" * 20
    _, row = accuracy_page.summary(found_of([better, better], [worse, worse]))
    assert row["gain"] == [20.0, 20.0]
    assert row["interval"].mean == pytest.approx(20.0)
    assert row["interval"].seeds == 0.0
    assert row["interval"].images == pytest.approx(1.96 * 40.2 / 10, rel=0.01)
    assert accuracy_page.ahead(row)


def test_seeds_that_disagree_are_not_ahead():
    low, high = "1" * 60 + "0" * 40, "1" * 90 + "0" * 10
    _, row = accuracy_page.summary(found_of([high, low], [low, low]))
    assert row["gain"] == [30.0, 0.0]
    assert row["interval"].half > 100
    assert not accuracy_page.ahead(row)


def test_one_seed_is_not_ahead():
    _, row = accuracy_page.summary(found_of(["1" * 90 + "0" * 10], ["1" * 10 + "0" * 90]))
    assert not accuracy_page.ahead(row)


def test_the_sceptic_compares_with_simpler_front_ends():
    found = found_of(["1110", "1110"], ["1000", "1000"])
    found += [(("set", "net", "saturation", seed), record("1100")) for seed in (0, 1)]
    found += [(("set", "net", "local contrast", 1), record("1111"))]
    (sentence,) = accuracy_page.sceptic(accuracy_page.summary(found))
    assert "jpeg-dl gains +50.0 and saturation +25.0 (1 pairs; +25.0 apart" in sentence
    assert "local contrast +75.0 (1 pairs; -25.0 apart, jpeg-dl the better in 0)" in sentence
    assert "fixed tables" not in sentence


@pytest.mark.parametrize("name", ["high-pass", "local contrast"])
def test_filters_take_away_what_is_even(name):
    """A constant image becomes 0.5, and so does, inside, a slope."""
    layer = variants.FILTERS[name]()
    assert torch.allclose(layer(torch.full((1, 3, 40, 40), 0.3)), torch.tensor(0.5), atol=1e-5)
    slope = torch.linspace(0, 1, 40).expand(1, 3, 40, 40)
    assert torch.allclose(layer(slope)[..., 16:24], torch.tensor(0.5), atol=1e-4)
    edge = (torch.arange(40) >= 20).float().expand(1, 3, 40, 40)
    assert layer(edge)[0, 0, 20, 20] > 0.6 > 0.4 > layer(edge)[0, 0, 20, 19]


# variants and the hard quantizer


def test_zero_dc_takes_the_block_means_off():
    x = torch.rand(2, 3, 16, 24)
    y = variants.ZeroDC()(x)
    z = jsc.functional.block_dct(x - 0.5).clone()
    z[..., 0, 0] = 0
    torch.testing.assert_close(y - 0.5, jsc.functional.block_idct(z), atol=1e-5, rtol=0)


def test_a_tiny_kappa_only_saturates():
    variant = variants.VARIANTS["saturation"]
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
    monkeypatch.setattr(image_tasks, "load", lambda name, data, **_: noise_task())
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
    monkeypatch.setattr(image_tasks, "load", lambda name, data, **_: noise_task())
    where = ["--data", "x", "--out", str(tmp_path), "--runs", str(tmp_path / "runs")]
    accuracy.main([*where, "--seeds", "0", "--sets", "flower_photos5", "--architectures", "resnet"])
    rows = json.loads((tmp_path / "accuracy.json").read_text())["rows"]
    assert {row["variant"] for row in rows} == {*variants.MAIN, *variants.CONTROLS}
    assert (tmp_path / "accuracy.png").exists()
    assert "JPEG-DL, %" in capsys.readouterr().out


def test_longer_runs_have_a_page_of_their_own(tmp_path, monkeypatch):
    task = noise_task()
    monkeypatch.setattr(image_tasks, "load", lambda name, data, **_: task)
    where = ["--data", "x", "--out", str(tmp_path), "--runs", str(tmp_path / "runs")]
    where += ["--seeds", "0", "--sets", "flower_photos5", "--architectures", "resnet"]
    where += ["--variants", "standard", "jpeg-dl"]
    accuracy.main([*where, "--longer", "2"])
    accuracy.main(where)
    kept = runs.Runs(tmp_path / "runs")
    assert sorted(r["config"]["epochs"] for r in kept.found.values()) == [
        task.epochs, task.epochs, 2 * task.epochs, 2 * task.epochs,
    ]  # fmt: skip
    for name, epochs in (("accuracy", task.epochs), ("accuracy_longer", 2 * task.epochs)):
        rows = json.loads((tmp_path / f"{name}.json").read_text())["rows"]
        assert [row["variant"] for row in rows] == ["standard", "jpeg-dl"]
        text = (tmp_path / f"{name}.md").read_text()
        side = task.train.x.shape[1]
        assert f"| {len(task.train.y)} | {len(task.test.y)} | {side} | {epochs} |" in text
        assert f"]({name}.png)" in text
        assert (tmp_path / f"{name}.png").exists()


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
