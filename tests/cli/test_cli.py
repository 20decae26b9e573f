"""The command line: exit codes, files, and a demo that repeats itself bit for bit."""

import json
import subprocess
import sys

import pytest
import torch

import jsc
from jsc import _installation
from jsc.cli import demo, doctor, extras
from jsc.cli.main import main
from jsc.cli.states import load_state
from jsc.tuning import Plan

# Small networks are really tuned here, and torch alone may be faster.
pytestmark = pytest.mark.filterwarnings("ignore:torch alone takes:jsc.PlanWarning")

NET = """
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
"""


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "tiny_net.py"
    path.write_text(NET)
    return f"{path}:make"


def test_as_a_module():
    result = subprocess.run(
        [sys.executable, "-m", "jsc", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("jsc ")


@pytest.mark.parametrize("command", ["", "benchmark", "demo", "doctor", "tables", "tune"])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([*command.split(), "--help"])
    assert exit_.value.code == 0
    assert "usage: python -m jsc" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [[], ["dance"], ["doctor", "--threads", "0"], ["doctor", "--threads", "5000"], ["tune"]],
)
def test_wrong_use(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_doctor(tmp_path, capsys):
    file = tmp_path / "doctor.json"
    assert main(["doctor", "--json", str(file)]) == 0
    output = capsys.readouterr().out
    assert output.splitlines()[-1].startswith("All is well")
    found = json.loads(file.read_text())
    assert found["problems"] == []
    assert len(found["openmp_runtimes"]) == 1
    assert {test["isa"] for test in found["self_test"]} == set(found["isa_available"])


def test_doctor_without_threadpoolctl(monkeypatch):
    known = _installation.openmp_runtimes()
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert _installation.openmp_runtimes() == known


def test_doctor_finds_faults(monkeypatch, capsys):
    runtimes = ["/a/libgomp.so", "/b/libiomp5.so"]
    monkeypatch.setattr(_installation, "openmp_runtimes", lambda: runtimes)
    assert main(["doctor"]) == 1
    captured = capsys.readouterr()
    assert "2 OpenMP runtimes" in captured.err
    assert captured.out.splitlines()[-1].startswith("1 problem found")


@pytest.mark.parametrize(
    ("name", "wrong", "kernel"),
    [
        ("conv2d", lambda x, *rest, **options: x, "conv2d"),
        ("jpeg", lambda x, q, **options: x + 0 * q.sum(), "jpeg"),
        ("local_contrast", lambda x: 2 * x, "local_contrast"),
        ("compile_network", lambda model, x, **options: torch.relu, "compiled network"),
    ],
)
def test_self_test_can_fail(name, wrong, kernel, monkeypatch):
    monkeypatch.setattr(f"jsc.cli.selftest.{name}", wrong)
    errors = {test["kernel"]: test["error"] for test in doctor.examine()["self_test"]}
    assert {k for k, error in errors.items() if error} == {k for k in errors if kernel in k}


def test_self_test_knows_a_wrong_gradient(monkeypatch):
    def detached(x, q, **options):
        return jsc.functional.jpeg(x, q.detach(), **options) + 0 * q.sum()

    monkeypatch.setattr("jsc.cli.selftest.jpeg", detached)
    errors = [t["error"] for t in doctor.examine()["self_test"] if t["kernel"] == "jpeg"]
    assert all(error.startswith("wrong by") for error in errors)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_weights_that_are_damaged_missing_or_a_folder_are_refused_in_words(tmp_path, name):
    damaged = tmp_path / name
    damaged.write_bytes(b"\x80 no weights")
    with pytest.raises(ValueError, match=f"{name} holds no state_dict"):
        load_state(damaged)
    with pytest.raises(FileNotFoundError):
        load_state(tmp_path / f"missing-{name}")
    (tmp_path / "folder" / name).mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        load_state(tmp_path / "folder" / name)


def test_tune(net, tmp_path, capsys):
    sample, weights, out = tmp_path / "x.pt", tmp_path / "w.pt", tmp_path / "plan.json"
    torch.save(torch.rand(2, 3, 12, 12), sample)
    state = {f"{i}.{k}": torch.ones(8, c, 3, 3) if k == "weight" else torch.ones(8)
             for i, c in ((0, 3), (2, 8)) for k in ("weight", "bias")}  # fmt: skip
    torch.save({"state_dict": state}, weights)
    arguments = ["tune", net, "--sample", str(sample), "--weights", str(weights), "--budget", "1"]
    assert main([*arguments, "--out", str(out), "--markdown"]) == 0
    assert Plan.load(out).layers[1].density == 1.0  # all-ones weights leave no zero
    output = capsys.readouterr().out
    assert output.startswith("| layer |")
    assert "of 2 convolutions changed" in output.splitlines()[-1]


def test_tune_on_a_shape_says_what_that_is_worth(net, capsys):
    assert main(["tune", net, "--sample", "2,3,12,12", "--budget", "1", "--methods", "cpc"]) == 0
    assert "random numbers" in capsys.readouterr().err


def refused(arguments, message, capsys):
    """Exit code 2, one line that says why, and nothing done before."""
    assert main([str(a) for a in arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


@pytest.mark.parametrize("name", ["b.pt", "b.npy"])
@pytest.mark.parametrize("content", [b"", b"x", b"\x80 no sample"])
def test_samples_that_are_damaged(net, name, content, tmp_path, capsys):
    (tmp_path / name).write_bytes(content)
    refused(["tune", net, "--sample", tmp_path / name], f"{name} holds no sample", capsys)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ("2,4,12,12", "MODEL does not run on the sample: RuntimeError: "),
        ("12", "MODEL does not run on the sample: "),
        ("1,3,1,1", "MODEL does not run on the sample: "),
        ("99999999,99999999,99999999", "no memory holds a sample"),
        (f"{10**30},3,8,8", "no memory holds a sample"),
    ],
)
def test_samples_that_the_model_does_not_take(net, sample, message, capsys):
    refused(["tune", net, "--sample", sample], message, capsys)


def test_weights_of_another_model(net, tmp_path, capsys):
    for state in ({}, {"0.weight": torch.ones(2)}, {f"{i}.weight": i for i in range(99)}):
        torch.save(state, tmp_path / "w.pt")
        arguments = ["tune", net, "--sample", "1,3,8,8", "--weights", tmp_path / "w.pt"]
        refused(arguments, "the weights of w.pt are not those of MODEL", capsys)


@pytest.mark.parametrize("seed", [str(10**20), "-1"])
def test_seeds_that_there_are_not(seed, capsys):
    refused(["demo", "--quick", "--seed", seed], "--seed must be from 0", capsys)


@pytest.mark.parametrize("option", ["--json", "--plot", "--out"])
def test_outputs_are_refused_before_the_work(net, option, tmp_path, capsys):
    command = ["tune", net, "--sample", "1,3,8,8"] if option == "--out" else ["demo", "--quick"]
    refused([*command, option, tmp_path / "none" / "a.png"], f"{option}: there is no fol", capsys)
    refused([*command, option, tmp_path], "is a folder", capsys)


def test_a_plot_without_matplotlib_is_refused_before_the_work(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    refused(["demo", "--quick", "--plot", tmp_path / "a.png"], "jsc-torch[plots]", capsys)


@pytest.mark.parametrize(
    ("model", "sample", "message"),
    [
        ("net.py", "1,3,8,8", "FILE.py:NAME"),
        ("none.py:make", "1,3,8,8", "no file none.py"),
        ("no_such_package:make", "1,3,8,8", "no_such_package"),
        ("NET", "none.pt", "none.pt"),
        ("NET:", "1,3,8,8", "FILE.py:NAME"),
        ("math:pi", "1,3,8,8", "'float' object is not callable"),
        ("collections:OrderedDict", "1,3,8,8", "must give an nn.Module"),
    ],
)
def test_tune_errors(net, model, sample, message, capsys):
    assert main(["tune", model.replace("NET", net), "--sample", sample]) == 2
    assert message in capsys.readouterr().err


def test_missing_extra(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["demo", "--quick"]) == 2
    assert "pip install 'jsc-torch[demo]'" in capsys.readouterr().err


def test_need_returns_the_module():
    assert extras.need("json", "json", "none", "this test") is json


def test_demo_repeats_itself(tmp_path, capsys, monkeypatch):
    # scikit-learn would bring a second OpenMP runtime: its files are read, it is not imported.
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    plot = tmp_path / "demo.png"
    for file in files:
        assert main(["demo", "--quick", "--json", str(file), "--plot", str(plot)]) == 0
        assert capsys.readouterr().out.splitlines()[-1].startswith("Done in ")
    first, second = (json.loads(file.read_text()) for file in files)
    for key in ("plain", "jpeg", "tables_before", "tables_after"):
        assert first[key] == second[key]
    assert first["tables_before"] != first["tables_after"]
    assert first["agreement"] == 1.0
    assert min(first["compiled"].values()) > 0
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_demo_on_a_folder(tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        (tmp_path / name).mkdir()
        for i in range(8):
            image.new("RGB", (40 + i, 30), colour).save(tmp_path / name / f"{i}.png")
    assert main(["demo", "--quick", "--data", str(tmp_path), "--seed", "1"]) == 0
    output = capsys.readouterr().out
    assert "12 training and 4 test images, 2 classes" in output


def test_pictures_are_turned_as_they_were_taken(tmp_path):
    image = pytest.importorskip("PIL.Image")
    picture = image.new("RGB", (6, 4))
    picture.putpixel((0, 0), (255, 0, 0))
    turned = picture.getexif()
    turned[0x0112] = 6  # a quarter to the right
    picture.save(tmp_path / "a.png", exif=turned)
    found = extras.picture(tmp_path / "a.png", "RGB", "--data")
    assert found.size == (4, 6)
    assert found.getpixel((3, 0)) == (255, 0, 0)
    (tmp_path / "b.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"--data: .*b\.png cannot be read"):
        extras.picture(tmp_path / "b.png", "RGB", "--data")


def test_demo_folder_errors(tmp_path, capsys):
    assert main(["demo", "--data", str(tmp_path / "none")]) == 2
    assert "no folder" in capsys.readouterr().err
    assert main(["demo", "--data", str(tmp_path)]) == 2
    assert "two classes" in capsys.readouterr().err


def test_demo_arguments(capsys):
    assert main(["demo", "--quick", "--epochs", "0"]) == 2
    assert "--epochs" in capsys.readouterr().err
    assert demo.HELP
