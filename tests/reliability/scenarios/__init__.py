"""What the threads of `races` do. Small integers, so that every right result is one bit pattern."""

from tests.reliability.scenarios import functions, layers, networks
from tests.reliability.scenarios.table import SCENARIOS

__all__ = ["SCENARIOS", "functions", "layers", "networks"]
