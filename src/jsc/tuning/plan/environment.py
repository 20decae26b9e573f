"""Where a plan was measured: times hold on the same processor, kernels, threads and libraries,
at the same precision."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from jsc import _config, _precision
from jsc._installation import cpu_name
from jsc._version import __version__


@dataclass(frozen=True)
class Environment:
    """Everything that decides which method is fastest, apart from the network and its input."""

    cpu: str
    isa: str
    threads: int
    torch: str
    jsc: str
    precision: str  # what torch's switch permits convolutions: "ieee", "tf32" or "bf16"

    @classmethod
    def current(cls) -> Environment:
        return cls(
            cpu=cpu_name(),
            isa=_config.isa_name(),
            threads=torch.get_num_threads(),
            torch=str(torch.__version__),
            jsc=__version__,
            precision=_precision.of_convolutions(),
        )

    def differences(self, other: Environment) -> list[str]:
        """One phrase for each entry that differs: "threads 2, here 4"."""
        mine, theirs = asdict(self), asdict(other)
        return [
            f"{key} {mine[key]}, here {theirs[key]}" for key in mine if mine[key] != theirs[key]
        ]

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        lower = "" if self.precision == "ieee" else f", precision {self.precision}"
        return f"{self.cpu}, {self.isa}, {threads}, torch {self.torch}, jsc {self.jsc}{lower}"
