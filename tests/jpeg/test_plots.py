"""Heat maps, and `python -m jsc tables`."""

import json
import sys

import pytest
import torch

import jsc
from jsc._extras import MissingExtraError
from jsc.cli.main import main
from jsc.jpeg import plot_tables, quality_tables


@pytest.mark.parametrize("count", [1, 2, 3])
def test_plot_tables_into_a_file(count, tmp_path):
    pytest.importorskip("matplotlib")
    plot_tables(torch.rand(count, 8, 8) * 100, tmp_path / "t.png", title="random")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path):
    file = tmp_path / "t.txt"
    file.write_text("mine")
    with pytest.raises(ValueError, match="Format 'txt' is not supported"):
        plot_tables(torch.ones(1, 8, 8), file)
    assert file.read_text() == "mine"
    plot_tables(torch.ones(1, 8, 8), str(tmp_path / "t"))
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 2


def test_plot_tables_into_axes():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.subplots(1, 2)
    plot_tables(quality_tables(75), list(axes))
    texts = [text.get_text() for text in axes[0].texts]
    assert texts == [f"{step:.0f}" for step in quality_tables(75)[0].flatten().tolist()]
    plot_tables(torch.ones(1, 8, 8), axes[0])  # one value only
    for made in (figure.subplots(1, 2), figure.subplots(2, 1, squeeze=False)):  # arrays of them
        plot_tables(quality_tables(75), made)
        assert made.flat[1].get_title() == "Cb, Cr"
    with pytest.raises(ValueError, match="2 Axes"):
        plot_tables(quality_tables(75), axes[0])
    with pytest.raises(ValueError, match=r"\(2, 8, 8\)"):
        plot_tables(torch.ones(8, 8), axes[0])


def test_plot_tables_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"jsc-torch\[plots\]"):
        plot_tables(quality_tables(75), "t.png")


def test_tables_of_a_quality(tmp_path, capsys):
    out, text, figures = tmp_path / "t.json", tmp_path / "t.txt", tmp_path / "all.json"
    assert main(["tables", "--quality", "75", "--export", str(out), "--json", str(figures)]) == 0
    assert "8  6  5  8 12 20 26 31" in capsys.readouterr().out
    wanted = quality_tables(75).long().tolist()
    assert list(json.loads(out.read_text()).values()) == wanted
    assert json.loads(figures.read_text())["tables"] == wanted
    assert main(["tables", "--quality", "75", "--export", str(text)]) == 0
    lines = [line for line in text.read_text().splitlines() if not line.startswith("#")]
    rows = [[int(word) for word in line.split()] for line in lines]
    assert rows == wanted[0] + wanted[1]


def test_tables_of_a_file(tmp_path, capsys):
    pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    tables = torch.randint(1, 256, (2, 8, 8))
    jsc.jpeg.save(tmp_path / "a.jpg", torch.rand(3, 8, 8), tables)
    plot, out = tmp_path / "a.png", tmp_path / "a.json"
    arguments = ["tables", str(tmp_path / "a.jpg"), "--plot", str(plot), "--export", str(out)]
    assert main(arguments) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert list(json.loads(out.read_text()).values()) == tables.tolist()
    jsc.jpeg.save(tmp_path / "g.jpg", torch.rand(1, 8, 8), tables)
    assert main(["tables", str(tmp_path / "g.jpg")]) == 0
    assert "Cb" not in capsys.readouterr().out.split("g.jpg")[1]


def test_tables_of_a_state(tmp_path, capsys):
    layer = jsc.nn.JPEG(torch.rand(2, 8, 8) * 20 + 0.1)
    model = torch.nn.Sequential(layer, torch.nn.Linear(2, 2))
    path, out = tmp_path / "m.pt", tmp_path / "m.json"
    torch.save({"state_dict": model.state_dict()}, path)
    assert main(["tables", str(path), "--export", str(out)]) == 0
    assert list(json.loads(out.read_text()).values()) == layer.quant_tables().tolist()
    assert "rounded" in capsys.readouterr().out
    torch.save(layer.tables.detach(), path)
    assert main(["tables", str(path)]) == 0
    torch.save(torch.nn.Sequential(layer, jsc.nn.JPEG()).state_dict(), path)
    assert main(["tables", str(path)]) == 2
    assert "--key: 0.tables, 1.tables" in capsys.readouterr().err
    assert main(["tables", str(path), "--key", "1.tables"]) == 0
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    assert main(["tables", str(tmp_path / "m.safetensors")]) == 0


def test_tables_of_several_rounds(tmp_path, capsys):
    layer, out = jsc.nn.JPEG(torch.rand(3, 2, 8, 8) * 20 + 1), tmp_path / "m.json"
    torch.save(layer.state_dict(), tmp_path / "m.pt")
    assert main(["tables", str(tmp_path / "m.pt"), "--export", str(out)]) == 0
    assert list(json.loads(out.read_text()).values()) == layer.quant_tables().tolist()
    torch.save(layer.tables.detach()[:0], tmp_path / "m.pt")  # no round
    assert main(["tables", str(tmp_path / "m.pt")]) == 2


@pytest.mark.parametrize("step", [float("nan"), float("inf")])
def test_tables_that_are_not_finite_are_not_exported(step, tmp_path, capsys):
    torch.save(torch.full((2, 8, 8), step), tmp_path / "t.pt")
    for suffix in ("json", "txt"):
        out = tmp_path / f"t.{suffix}"
        assert main(["tables", str(tmp_path / "t.pt"), "--export", str(out)]) == 2
        assert "NaN or infinity" in capsys.readouterr().err
        assert not out.exists()


def test_how_cjpeg_reads_them(tmp_path, monkeypatch, capsys):
    out = tmp_path / "some tables.txt"
    assert main(["tables", "--quality", "75", "--export", str(out)]) == 0
    assert f"cjpeg -qtables '{out}' -sample 1x1" in capsys.readouterr().out
    monkeypatch.setattr("jsc.cli.tables.read_tables", lambda path: torch.ones(3, 8, 8).long())
    (tmp_path / "three.jpg").touch()
    assert main(["tables", str(tmp_path / "three.jpg"), "--export", str(out)]) == 0
    assert f"cjpeg -qtables '{out}' -qslots 0,1,2 -sample 1x1" in capsys.readouterr().out


def test_a_failed_export_leaves_the_old_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    for option, name in (("--export", "t.txt"), ("--json", "t.json")):
        (tmp_path / name).write_text("kept")
        assert main(["tables", "--quality", "75", option, str(tmp_path / name)]) == 2
        assert (tmp_path / name).read_text() == "kept"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either FILE or --quality"),
        (["a.jpg", "--quality", "5"], "either FILE or --quality"),
        (["none.jpg"], "no file"),
        (["--quality", "0"], "1 to 100"),
        (["--quality", "5", "--export", "t.xml"], ".json or .txt"),
        (["--quality", "5", "--export", "none/t.txt"], "no folder none"),
        (["--quality", "5", "--plot", "."], ". is a folder"),
        (["--quality", "5", "--key", "tables"], "--key names an entry"),
        (["TEXT.jpg", "--key", "tables"], "--key names an entry"),
        (["TEXT.md"], "neither a JPEG"),
        (["TEXT.jpg"], "no JPEG file"),
        (["TEXT.pt"], "no state_dict"),
        (["EMPTY.pt"], "no entry 'tables'"),
    ],
)
def test_tables_errors(arguments, message, tmp_path, capsys):
    pytest.importorskip("PIL.Image")
    for suffix in ("md", "jpg", "pt"):
        (tmp_path / f"TEXT.{suffix}").write_text("text")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "EMPTY.pt")
    given = [str(tmp_path / a) if a.startswith(("TEXT", "EMPTY")) else a for a in arguments]
    assert main(["tables", *given]) == 2
    assert message in capsys.readouterr().err
