"""Finished training runs: one line of JSON each, under the run's full configuration.

A benchmark that is started again reads what is there and trains what is missing. The weights lie
beside the lines. Of several processes each writes a file of its own, and reads all of them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import processes

Config = dict[str, Any]


def key(config: Config) -> str:
    """Name of a configuration; the order of its entries does not matter."""
    return hashlib.sha1(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


class Runs:
    """The finished runs in `folder/runs*.jsonl`. A line cut off half way counts as not run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rank, _ = processes.place()
        self.file = folder / (f"runs-{rank}.jsonl" if rank else "runs.jsonl")
        self.found: dict[str, dict[str, Any]] = {}
        for file in sorted(folder.glob("runs*.jsonl")):
            for line in file.read_text().splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    continue
                self.found[record["key"]] = record

    def weights(self, config: Config) -> Path:
        return self.folder / f"{key(config)}.pt"

    def get(self, config: Config) -> dict[str, Any] | None:
        return self.found.get(key(config))

    def add(
        self, config: Config, model: torch.nn.Module | None, result: dict[str, Any]
    ) -> dict[str, Any]:
        """Keep a result, and the weights of `model` where there is one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if model is not None:
            torch.save(model.state_dict(), self.weights(config))
        record = {"key": key(config), "config": config, **result}
        cut = self.file.exists() and not self.file.read_bytes().endswith(b"\n")
        with self.file.open("a") as file:
            file.write("\n" * cut + json.dumps(record) + "\n")
        self.found[record["key"]] = record
        return record
