from typing import Any

ENTRY_SIZE: int

def chunk_rows(period: int) -> int: ...
def prepare(q: Any, kappa: Any, entries: Any, mode: int, window: int, levels: int) -> None: ...
def forward(z: Any, entries: Any, y: Any, isa: int, num_threads: int) -> None: ...
def backward(
    g: Any, z: Any, entries: Any, dz: Any, partial: Any, dq: Any, dkappa: Any,
    isa: int, num_threads: int,
) -> None: ...  # fmt: skip
