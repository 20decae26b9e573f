"""`robustness`: arms are trained alike, choices see no test image, attacks and words are right."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import fx, nn

from benchmarks.inputs import image_tasks, networks
from benchmarks.jpeg.protocol import models, pages, robustness, statistics, suite
from benchmarks.jpeg.training import attacks, runs

RECIPE = replace(models.RECIPES["resnet20"], epochs=1)
SCRATCH = replace(models.RECIPES["resnet20-scratch"], epochs=1)


def small_network():
    torch.manual_seed(7)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip
    recipe = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    model = fx.symbolic_trace(model).eval().requires_grad_(False)
    return networks.Network("small", model, (3, 32, 32), recipe, 0)


@pytest.fixture
def task(monkeypatch):
    """Noise of 32x32 pixels, brighter with the class; networks are small."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    noise = torch.randint(0, 60, (60, 32, 32, 3), generator=generator)
    x = (noise + 60 * y.view(-1, 1, 1, 1)).to(torch.uint8)
    made = image_tasks.task(
        "cifar10", image_tasks.Split(x, y), image_tasks.Split(x[:20].flip(1), y[:20]), 1
    )
    monkeypatch.setattr(networks, "load", lambda data, name: small_network())
    monkeypatch.setattr(image_tasks, "load", lambda name, data, quick: made)
    return made


@pytest.fixture
def trainer(task, tmp_path):
    return models.Trainer(runs.Runs(tmp_path), task, tmp_path, lambda: True)


# networks and their training


def test_choices_are_made_on_training_images_that_no_run_sees(trainer, task):
    kept, count = trainer.task, len(task.train.y)
    assert torch.equal(torch.cat([kept.train.x, kept.test.x]), task.train.x)
    assert len(kept.test.y) == count // 4
    assert models.VALIDATION < 4000 // 4


def test_the_rate_is_that_of_the_best_pilot(trainer, monkeypatch):
    asked = []

    def pilot(recipe, arm, rate):
        asked.append((recipe.network, rate))
        return {0.003: 60.0, 0.03: accuracies[arm]}[rate]

    monkeypatch.setattr(trainer, "pilot", pilot)
    accuracies = {"standard": 60.0, "authors": 61.0}
    assert trainer.rate(RECIPE, "standard") == 0.003  # of equals the smallest
    assert trainer.rate(RECIPE, "authors") == 0.03
    assert trainer.rate(models.RECIPES["resnet56"], "authors") == 0.03
    assert {network for network, _ in asked} == {"resnet20_cifar10"}
    assert trainer.rate(SCRATCH, "authors") == 0.05
    assert len(asked) == 6


@pytest.mark.parametrize("recipe", [RECIPE, SCRATCH], ids=["pretrained", "scratch"])
def test_all_arms_of_a_seed_begin_alike(trainer, recipe):
    layers = [nn.Identity(), nn.AvgPool2d(1)]
    first, second = (trainer._new(recipe, layer, 3).network.state_dict() for layer in layers)
    assert all(torch.equal(first[name], second[name]) for name in first)
    given = small_network().model.state_dict()
    same = all(torch.equal(first[name], given[name]) for name in first)
    assert same is recipe.pretrained


@pytest.mark.parametrize("arm", models.ARMS)
def test_an_arm_is_trained_once_and_kept(trainer, task, tmp_path, arm):
    made = trainer.trained(RECIPE, arm, 0)
    idle = models.Trainer(runs.Runs(tmp_path), task, tmp_path, lambda: False)
    again = idle.trained(RECIPE, arm, 0)
    assert (again.rate, again.accuracy, again.config) == (made.rate, made.accuracy, made.config)
    state = made.model.state_dict()
    assert all(torch.equal(state[name], v) for name, v in again.model.state_dict().items())
    with pytest.raises(models.NotMade):
        idle.trained(RECIPE, arm, 1)


def test_scratch_takes_its_sensitivity_from_the_standard_run_of_its_seed(trainer):
    trainer.trained(SCRATCH, "authors", 2)
    found = [record["config"] for record in trainer.runs.found.values()]
    assert [c["seed"] for c in found] == [2, 2]
    assert [c["arm"]["start"] for c in found] == ["", "sensitivity"]


# attacks


@pytest.fixture
def victims(trainer, task):
    trained = [trainer.trained(RECIPE, arm, 0) for arm in ("standard", "authors")]
    return [suite.Victim(t, task.test, 0, 20) for t in trained]


def test_folding_and_compiling_keep_the_scores(victims):
    for victim in victims:
        model = victim.trained.model
        with torch.no_grad():
            expected = model(victim.x)
            torch.testing.assert_close(victim.model(victim.x), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(victim.scores(victim.x[:7]), expected[:7], rtol=1e-4, atol=1e-4)


def block(attack, epsilon):
    return suite.Block(attack, epsilon, 5, 15)


def right_ones(victim):
    """The images of `block` that the network has right, and which they are."""
    x, y = victim.x[5:20], victim.y[5:20]
    clean = victim.right(x, y)
    return x[clean], y[clean], clean


def test_fgsm_is_one_step_of_the_sign(victims):
    for victim in victims:
        x, y, clean = right_ones(victim)
        made = victim._made(block("FGSM", 25.5), x, y, victim, 0)
        assert torch.equal(made, attacks.fgsm(victim.model, x, y, 0.1))
        held = victim.held(block("FGSM", 25.5), victim)
        assert torch.equal(held[clean], victim.right(made, y))
        assert not held[~clean].any()
        assert len(held) == 15


def test_more_starts_break_no_fewer_images(victims):
    victim = victims[1]
    one, three = (
        victim.held(block(name, 8.0), victim) for name in ("PGD-50", statistics.STRONGEST)
    )
    assert not (three & ~one).any()


def test_transfer_attacks_with_the_gradients_of_the_other_network(victims, monkeypatch):
    standard, ours = victims
    used = []

    def pgd(model, x, *rest, stop):
        used.append((model, stop))
        return x

    monkeypatch.setattr(attacks, "pgd", pgd)
    ours.held(block("PGD-10, transfer", 4.0), standard)
    ours.held(block("PGD-10", 4.0), standard)
    assert used == [(standard.model, False), (ours.model, True)]


def test_bpda_takes_the_identity_as_the_layers_derivative(victims):
    model = victims[1].way("PGD-50, BPDA")
    _, slope = attacks.gradient(model, victims[1].x[:2], victims[1].y[:2])
    inner = victims[1].model
    _, expected = attacks.gradient(inner.classify, inner.layer(victims[1].x[:2]), victims[1].y[:2])
    torch.testing.assert_close(slope, expected)


def test_square_stays_in_the_ball_and_finds_errors():
    """Of an image that is right only while its mean is below a half."""
    square = pytest.importorskip("pyautoattack.square").SquareAttack

    def scores(x):
        mean = x.mean((1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], 1)

    x, y = torch.full((4, 3, 32, 32), 0.49), torch.zeros(4, dtype=torch.long)
    made = square(scores, n_queries=100, eps=0.1, seed=0, device="cpu").perturb(x, y)
    assert (made - x).abs().max() <= 0.1 + 1e-6
    assert made.min() >= 0
    assert made.max() <= 1
    assert (scores(made).argmax(1) != y).all()


def test_square_is_left_out_where_it_is_not_installed(monkeypatch):
    for there in (True, False):
        monkeypatch.setattr(suite, "square_attack", lambda there=there: there or None)
        planned = suite.plan(suite.BUDGETS["resnet20"], "standard")
        assert any(task.attack == "Square" for task in planned) is there


def test_every_attack_has_a_budget():
    for network, budget in suite.BUDGETS.items():
        assert network in models.RECIPES
        assert budget.images >= budget.heavy >= budget.square
        for arm in models.ARMS:
            planned = suite.plan(budget, arm)
            assert len(set(planned)) == len(planned)
            assert [task.first for task in planned] == sorted(task.first for task in planned)
            for attack in pages.CLAIMS:
                for epsilon in suite.PAPER:
                    found = [t for t in planned if (t.attack, t.epsilon) == (attack, epsilon)]
                    assert sum(task.count for task in found) == budget.images
            bpda = any("BPDA" in task.attack for task in planned)
            assert bpda is (arm in ("authors", "saturation"))
    assert set(suite.FOUR) < set(suite.PAPER)
    assert suite.PAPER[1] == pytest.approx(4 / 3, abs=1e-4)


# statistics and words


def row(arm, seed, held, network="resnet20", clean=90.0):
    held = {a: {e: "".join(map(str, map(int, v))) for e, v in h.items()} for a, h in held.items()}
    return {
        "network": network, "arm": arm, "seed": seed, "clean": clean, "rate": 0.003,
        "validation": 99.0, "core seconds": 1.0, "held": held,
    }  # fmt: skip


def test_an_image_broken_at_a_smaller_epsilon_is_broken():
    held = {
        "FGSM": {1.0: [1, 1, 0, 1, 1], 2.0: [1, 1, 1, 0, 1]}, "Square": {1.0: [0]},
        "PGD-5": {e: [1, 1, 1, 1, 0] for e in suite.FOUR},
        "PGD-50, 3 starts": {1.0: [1, 1, 1, 1], 2.0: [1, 1, 1, 1, 1]},
    }  # fmt: skip
    made = row("standard", 0, held)
    assert statistics.worst(made, 1.0).tolist() == [False, True, False, True]
    assert statistics.worst(made, 2.0).tolist() == [False, True, False, False]
    assert statistics.worst(row("standard", 0, {"FGSM": held["FGSM"]}), 1.0) is None
    assert statistics.worst(row("authors", 0, held), 1.0) is None
    bpda = held | {"PGD-50, BPDA": {1.0: [1, 1], 2.0: [1, 1, 1]}}
    assert statistics.worst(row("authors", 0, bpda), 1.0).tolist() == [False, True]


def test_intervals_are_students_over_seeds_and_normal_over_images():
    differences = [np.array([1.0, 0, 0, 0]), np.array([1.0, 1, 0, 0]), np.array([0.0, 0, 1, 0])]
    found = statistics.interval(differences)
    points = np.array([25.0, 50.0, 25.0])
    assert found.mean == pytest.approx(100 / 3)
    assert found.seeds == pytest.approx(4.30 * points.std(ddof=1) / np.sqrt(3))
    image = 100 * np.mean(differences, 0)
    assert found.images == pytest.approx(1.96 * image.std(ddof=1) / 2)
    assert found.half == max(found.seeds, found.images)
    assert found.sign == 0
    assert statistics.interval(differences[:1]).seeds is None
    assert statistics.Gain(3.0, None, 2.0, 1, 4).sign == 1
    assert statistics.Gain(-3.0, 1.0, 2.0, 3, 4).sign == -1


def test_gains_are_paired_by_seed():
    rows = [
        row("standard", 0, {"FGSM": {1.0: [0, 0, 1, 1]}}),
        row("authors", 0, {"FGSM": {1.0: [0, 1, 1, 1, 1, 1]}}),  # two images more
        row("authors", 1, {"FGSM": {1.0: [1, 1, 1, 1]}}),  # no standard run of this seed
    ]
    found = statistics.gain(rows, "resnet20", "authors", "FGSM", (1.0,))
    assert (found.mean, found.count, found.size) == (25.0, 1, 4)
    assert statistics.gain(rows, "resnet20", "authors", "PGD-5", (1.0,)) is None
    assert statistics.gain(rows, "resnet20", "authors", "FGSM", (1.0, 2.0)) is None


def table_of(ours, theirs):
    """200 images, of which as many withstand as given, for attack and epsilon."""
    rows = []
    for arm, shares in (("standard", theirs), ("authors", ours)):
        held = {"PGD-50, BPDA": {1.0: [1] * 200, 2.0: [1] * 200}}
        for attack, epsilon in statistics.NEEDED:
            held.setdefault(attack, {})[epsilon] = [1] * 200
        for (attack, epsilon), count in shares.items():
            held.setdefault(attack, {})[epsilon] = [1] * count + [0] * (200 - count)
        rows.append(row(arm, 0, held))
    return rows


MASKED = {
    ("FGSM", 1.0): 120, ("PGD-5", 1.0): 100, ("PGD-50", 1.0): 90, ("PGD-50, 3 starts", 1.0): 90,
    ("PGD-50, BPDA", 1.0): 10, ("FGSM", 2.0): 80, ("FGSM, BPDA", 1.0): 40,
}  # fmt: skip
PLAIN = {
    ("FGSM", 1.0): 60, ("PGD-5", 1.0): 40, ("PGD-50", 1.0): 38, ("PGD-50, 3 starts", 1.0): 38,
    ("FGSM", 2.0): 50,
}  # fmt: skip


def test_the_words_see_a_claim_and_its_masked_gradients():
    rows = table_of(MASKED, PLAIN)
    text = pages.claims(rows)
    assert "FGSM: +22.5" in text
    assert "**reproduced**" in text
    assert "-14.0" in text  # worst of all: 10 of 200 against 38
    text = pages.masking(rows)
    assert "**masked gradients**: PGD-50 leaves +40.0 points more than PGD-50, BPDA" in text
    assert "easier to attack" in pages.sceptic(rows)
    assert "no defence" in pages.sceptic(rows)


def test_the_words_see_no_difference():
    rows = table_of(PLAIN, PLAIN)
    assert "**not reproduced**" in pages.claims(rows)
    assert "no sign of them" in pages.masking(rows)
    assert "neither harder nor easier" in pages.sceptic(rows)
    better = {key: count + 60 for key, count in PLAIN.items()}
    assert "somewhat harder" in pages.sceptic(table_of(better, PLAIN))


@pytest.mark.parametrize(
    ("mean", "largest", "words"),
    [(9, 10, "reproduced"), (2, 3, "reproduced in part"), (0.5, 2, "reproduced in part"),
     (0.5, 0.7, "not reproduced"), (-4, -1, "not reproduced, the sign is the other")],
)  # fmt: skip
def test_verdicts(mean, largest, words):
    gains = (statistics.Gain(value, None, 1.0, 1, 4) for value in (mean, largest))
    assert pages.verdict(*gains, claimed=15) == words


# the command


def test_the_most_telling_runs_come_first():
    options = robustness.arguments_of(["--data", "x"])
    planned = robustness.plan(options)
    assert [arm for _, _, arm in planned[:4]] == list(models.ARMS)
    assert {run[:2] for run in planned[:4]} == {("resnet20", 0)}
    assert len(set(planned)) == len(planned) == 3 * 3 * 4


def test_the_command_writes_its_page_and_goes_on_where_it_stopped(tmp_path, task, capsys):
    where = ["--data", "x", "--quick", "--out", str(tmp_path), "--runs", str(tmp_path / "runs")]
    given = [*where, "--networks", "resnet20", "--arms", "standard", "authors"]
    robustness.main(given)
    first = json.loads((tmp_path / "robustness.json").read_text())["rows"]
    assert [row["arm"] for row in first] == ["standard", "authors"]
    assert "PGD-10, transfer" in first[1]["held"]
    for title in ("The claim", "Do the layers mask gradients?", "Training", "Budget"):
        assert f"## {title}" in (tmp_path / "robustness.md").read_text()
    assert (tmp_path / "robustness.png").exists()
    robustness.main([*given, "--minutes", "0"])
    assert json.loads((tmp_path / "robustness.json").read_text())["rows"] == first
    robustness.main([*given, "--minutes", "0", "--seeds", "5"])
    assert json.loads((tmp_path / "robustness.json").read_text())["rows"] == []
    assert "blocks are left" in capsys.readouterr().out
