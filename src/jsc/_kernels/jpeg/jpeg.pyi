from typing import Any

CHUNK_BLOCKS: int

def forward(x: Any, colours: Any, tables: Any, y: Any, isa: int, num_threads: int) -> None: ...
def backward(
    g: Any,
    x: Any,
    colours: Any,
    tables: Any,
    dx: Any,
    partial: Any,
    dq: Any,
    dkappa: Any,
    wanted: int,
    isa: int,
    num_threads: int,
) -> None: ...
