"""Tries jsc on every Python that it supports and this machine has, with the oldest and the newest
torch that the metadata allow: the wheel built by that Python, and for each torch an environment
with nothing but the wheel, its test extra and that torch, `python -m jsc doctor`, and a quick part
of the tests, where every warning is an error, deprecations among them.

A Python is looked for as python3.x on the path, among pyenv's, then by `uv python install`.
PYTHONS="3.10 3.13" and TORCHES="oldest" try fewer. Wheels are kept in build/matrix.

    python scripts/matrix.py
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
WHEELS = ROOT / "build" / "matrix"
METADATA = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
TESTS = (
    "tests/test_checks.py", "tests/test_installation.py", "tests/cli", "tests/formats",
    "tests/functional", "tests/nn", "tests/kernels/test_dct.py",
)  # fmt: skip


def torches() -> dict[str, str]:
    """What to ask pip for: the oldest torch of the metadata, and the newest that there is."""
    found = re.search(r'"torch>=([\d.]+),<([\d.]+)"', METADATA)
    assert found is not None
    return {"oldest": f"torch=={found[1]}.*", "newest": f"torch>={found[1]},<{found[2]}"}


def find(version: str) -> str | None:
    """The path of a Python of this version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    known = [shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python")]
    for path in filter(None, known):
        if works(str(path), version):
            return str(path)
    if shutil.which("uv"):
        subprocess.run(["uv", "python", "install", "-q", version], check=False)
        asked = ["uv", "python", "find", version]
        path = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        if path and works(path, version):
            return path
    return None


def works(path: str, version: str) -> bool:
    """Whether this is such a Python, with the headers that a build needs."""
    code = (
        "import os, sys, sysconfig, ensurepip; assert os.path.exists(sysconfig.get_path('include')"
        " + '/Python.h'); print('%d.%d' % sys.version_info[:2])"
    )
    found = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
    return found.stdout.strip() == version


def pip(python: Path, *arguments: str) -> None:
    subprocess.run(
        [str(python), "-m", "pip", "--disable-pip-version-check", "-q", *arguments],
        check=True, cwd=ROOT,
    )  # fmt: skip


def environment(base: str, folder: Path) -> Path:
    subprocess.run([base, "-m", "venv", str(folder)], check=True)
    return folder / "bin" / "python"


def wheel(base: str, version: str) -> Path:
    """The wheel for a Python, built in a copy of what the sdist has."""
    target = WHEELS / version
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as work:
        python = environment(base, Path(work, "env"))
        pip(python, "install", "build")
        command = [str(python), "-m", "build", "--outdir", str(target), str(ROOT)]
        log = Path(work, "log")
        with log.open("w") as output:
            code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
        if code.returncode:
            raise RuntimeError(log.read_text(errors="replace")[-4000:])
    return next(target.glob("*.whl"))


def attempt(base: str, built: Path, torch: str) -> str:
    """Doctor and tests with one torch; the versions that were tried."""
    with tempfile.TemporaryDirectory() as work:
        python = environment(base, Path(work, "env"))
        pip(python, "install", torch)
        pip(python, "install", torch, f"{built}[test]")
        quiet = {**os.environ, "OMP_WAIT_POLICY": "passive"}
        quiet.pop("PYTHONPATH", None)
        for arguments in (["jsc", "doctor"], ["pytest", "-q", "-p", "no:cacheprovider", *TESTS]):
            done = subprocess.run(
                [str(python), "-m", *arguments], cwd=ROOT, env=quiet, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            last = done.stdout.splitlines()[-1:]
            print(f"      {arguments[0]}: {''.join(last)}", flush=True)
            if done.returncode:
                raise RuntimeError(done.stdout[-4000:])
        code = "import torch, numpy; print('torch', torch.__version__, 'numpy', numpy.__version__)"
        command = [str(python), "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    wanted = os.environ.get("PYTHONS", " ".join(VERSIONS)).split()
    asked = os.environ.get("TORCHES", "oldest newest").split()
    missing, failed = [], []
    for version in wanted:
        base = find(version)
        if base is None:
            missing.append(version)
            continue
        print(f"Python {version}: building the wheel (some minutes) ...", flush=True)
        try:
            built = wheel(base, version)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            failed.append(f"Python {version}")
            print(f"   the build failed:\n{error}", flush=True)
            continue
        for name in asked:
            print(f"   {name} torch", flush=True)
            try:
                print(f"      right with {attempt(base, built, torches()[name])}", flush=True)
            except (RuntimeError, subprocess.CalledProcessError) as error:
                failed.append(f"Python {version} with the {name} torch")
                print(f"      failed:\n{error}", flush=True)
    for version in missing:
        print(f"Python {version} was not found and not tried")
    print(f"jsc: failed: {', '.join(failed)}" if failed else "jsc: all that were tried are right")
    return 1 if failed or len(missing) == len(wanted) else 0


if __name__ == "__main__":
    sys.exit(main())
