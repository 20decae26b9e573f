from typing import Any

MOST_REACH: int

def scratch_numbers(width: int, reach: int, backward: bool) -> int: ...
def forward(
    x: Any, taps: Any, constants: Any, y: Any, scratch: Any, isa: int, num_threads: int
) -> None: ...
def backward(
    g: Any, x: Any, taps: Any, constants: Any, dx: Any, scratch: Any, isa: int, num_threads: int
) -> None: ...
