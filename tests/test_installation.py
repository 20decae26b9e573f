"""The name and the version of the distribution, show_versions, logging, and the sdist."""

from __future__ import annotations

import ast
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import jsc
from jsc import _installation, _version

ROOT = Path(__file__).parents[1]
PACKAGE = Path(jsc.__file__).parent


# ---- name and version ----------------------------------------------------------------------------


def test_the_version_stands_in_one_place():
    metadata = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in metadata
    assert 'attr = "jsc._version.__version__"' in metadata
    for file in ("pyproject.toml", "CITATION.cff", "setup.py"):
        assert not re.search(r"^version\s*[:=]\s*[\"\d]", (ROOT / file).read_text(), re.MULTILINE)
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?(\.dev\d+)?", jsc.__version__)


def test_the_name_is_that_of_the_metadata():
    metadata = (ROOT / "pyproject.toml").read_text()
    (name,) = re.findall(r'^name = "([^"]+)"', metadata, re.MULTILINE)
    assert name == _version.DISTRIBUTION
    # An extra that is made of others names the distribution.
    assert set(re.findall(r'"([\w-]+)\[', metadata)) == {name}
    extras = re.findall(r"^(\w+) = \[", metadata.split("optional-dependencies]")[1], re.MULTILINE)
    assert "demo" in extras


def test_nobody_is_told_to_install_another_project():
    """`jsc` on the package index is not this one."""
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*")]
    files += [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*"), ROOT / "Makefile"]
    wrong = re.compile(r"pip install ['\"]?jsc(?!-torch)\b")
    texts = {p: p.read_text() for p in files if p.suffix in (".md", ".py", ".sh", "")
             and p.is_file()}  # fmt: skip
    assert not [path for path, text in texts.items() if wrong.search(text)]


# ---- show_versions -------------------------------------------------------------------------------


def test_show_versions(capsys, monkeypatch):
    monkeypatch.setenv("JSC_NOTHING", "7")
    assert jsc.show_versions() is None
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert shown["jsc"] == jsc.__version__
    assert shown["torch"] == str(torch.__version__)
    assert shown["python"] == sys.version.split()[0]
    assert shown["threads"].startswith(str(torch.get_num_threads()))
    assert re.match(r"(GCC|Clang|clang) ", shown["compiler"])
    assert shown["instructions"].split("; ")[0].split()[0] in ("base", "avx2", "avx512")
    assert shown["processor"] == _installation.cpu_name()
    assert "JSC_NOTHING=7" in shown["environment"]


X86 = "processor\t: 0\nmodel name\t: Some   CPU @ 2 GHz\nprocessor\t: 1\nmodel name\t: Some   CPU\n"
ARM = "processor\t: {}\nCPU implementer\t: 0x41\nCPU part\t: {}\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (X86, "Some CPU @ 2 GHz"),
        (ARM.format(0, "0xd0c") + ARM.format(1, "0xd0c"), "arm, designer 0x41, cores 0xd0c"),
        (ARM.format(0, "0xd05") + ARM.format(1, "0xd0b"), "arm, designer 0x41, cores 0xd05 0xd0b"),
        ("processor\t: 0\n", "arm"),
    ],
)
def test_the_processors_name(text, name, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path, **_: text)
    monkeypatch.setattr(_installation.platform, "machine", lambda: "arm")
    monkeypatch.setattr(_installation.platform, "processor", lambda: "")
    assert _installation.cpu_name() == name


def test_a_report_can_be_written_as_json():
    found = json.loads(json.dumps(_installation.installation()))
    assert found["isa_error"] == ""


def test_show_versions_with_a_wrong_instruction_set():
    """What a report of a fault needs is printed even if the fault is the user's."""
    import os

    run = subprocess.run(
        [sys.executable, "-c", "import jsc; jsc.show_versions()"],
        env={**os.environ, "JSC_ISA": "dance"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "JSC_ISA='dance' is not one of" in run.stdout


def test_the_doctor_has_no_copy():
    text = (PACKAGE / "cli" / "doctor.py").read_text()
    assert "from jsc._installation import described, installation, table" in text
    assert "__version__" not in text


# ---- logging -------------------------------------------------------------------------------------


def network() -> torch.nn.Module:
    convolutions = [torch.nn.Conv2d(c, 8, 3, padding=1) for c in (3, 8)]
    return torch.nn.Sequential(convolutions[0], torch.nn.ReLU(), convolutions[1]).eval()


def test_a_program_that_says_nothing_hears_nothing():
    handlers = logging.getLogger("jsc").handlers
    assert any(isinstance(handler, logging.NullHandler) for handler in handlers)
    assert logging.getLogger("jsc").level == logging.NOTSET


@pytest.mark.filterwarnings("ignore:torch alone takes:jsc.PlanWarning")
def test_tune_and_compile_say_what_they_chose(caplog):
    model, x = network(), torch.rand(1, 3, 12, 12)
    with caplog.at_level("INFO", logger="jsc"):
        plan = jsc.tune(model, x, budget_s=1, progress=False)
        jsc.compile(model, x, budget=0)
    assert {(r.name, r.levelname) for r in caplog.records} == {("jsc", "INFO")}
    said = [record.getMessage() for record in caplog.records]
    for layer in plan.layers:
        assert f"jsc.tune: {layer.name}: {layer.method} ({layer.reason})" in said
    assert "jsc.compile: CompiledNetwork(Sequential)" in said[-1]
    assert "grouped" in said[-1]


def test_library_code_prints_nothing():
    """Besides the command line, the progress that was asked for, and show_versions."""
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0]
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        printing = any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls)
        assert not printing or room in ("cli", "_progress.py", "_installation.py"), path


# ---- another build of the kernels ----------------------------------------------------------------


def test_a_variant_keeps_nothing_that_is_gone(tmp_path):
    """scripts/variant.sh, twice; between the two a module, a kernel and a folder are removed."""
    for name in ("a.py", "b.py", "one.pyx", "two.pyx", "old/c.py", "old/three.pyx"):
        (tmp_path / "src" / "jsc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / "jsc" / name).touch()
    (tmp_path / "setup.py").write_text(
        "from pathlib import Path\n"
        "for source in Path('src').rglob('*.pyx'):\n"
        "    source.with_name(source.stem + '.cpython-x.so').touch()\n"
    )
    command = ["sh", str(ROOT / "scripts" / "variant.sh"), sys.executable, "build/debug"]
    made = tmp_path / "build" / "debug" / "src" / "jsc"
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (made / "old" / "three.cpython-x.so").exists()
    for name in ("b.py", "two.pyx", "old/c.py", "old/three.pyx"):
        (tmp_path / "src" / "jsc" / name).unlink()
    subprocess.run(command, cwd=tmp_path, check=True)
    left = {path.name for path in made.rglob("*") if path.is_file()}
    assert left == {"a.py", "one.pyx", "one.cpython-x.so"}


# ---- the sdist -----------------------------------------------------------------------------------


def test_the_sdist_has_every_tracked_file():
    """MANIFEST.in against what git tracks; in an sdist there is no git, and all is there."""
    from setuptools._distutils.filelist import FileList

    run = ["git", "ls-files"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode or not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    tracked = {name for name in done.stdout.splitlines() if (ROOT / name).exists()}
    files = FileList()
    files.allfiles = sorted(tracked)
    for line in (ROOT / "MANIFEST.in").read_text().splitlines():
        files.process_template_line(line)
    # setuptools adds these itself.
    own = {"MANIFEST.in", "README.md", "pyproject.toml", "setup.py"}
    own |= {name for name in tracked if name.startswith("src/") and name.endswith(".py")}
    assert tracked - set(files.files) - own == {".ci/run"}
