"""A benchmark run as its command, quick and on one thread."""

import json

import pytest

from benchmarks import __main__ as command_line


@pytest.fixture
def run(tmp_path):
    """Run a benchmark into `tmp_path`; the numbers of all that ran there, by name."""

    def run(name, *options):
        given = [name, "--quick", "--threads", "1", "--out", str(tmp_path), *options]
        assert command_line.main(given) == 0
        return {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}

    return run
