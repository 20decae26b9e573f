from typing import Any

def forward(
    x: Any,
    pixels: Any,
    colours: Any,
    tables: Any,
    y: Any,
    scratch: Any,
    v: int,
    u: int,
    zero: bool,
    draws: bool,
    seed: int,
    isa: int,
    num_threads: int,
) -> None: ...
def backward(
    g: Any,
    x: Any,
    pixels: Any,
    colours: Any,
    tables: Any,
    drawn: Any,
    dx: Any,
    partial: Any,
    dq: Any,
    dkappa: Any,
    scratch: Any,
    v: int,
    u: int,
    zero: bool,
    draws: bool,
    seed: int,
    wanted: int,
    isa: int,
    num_threads: int,
) -> None: ...
def scratch_numbers(
    channels: int,
    height: int,
    width: int,
    v: int,
    u: int,
    zero: bool,
    draws: bool,
    rounds: int,
    backward: bool,
    size: int,
) -> int: ...
def gradient_chunks(
    n: int, channels: int, height: int, width: int, v: int, u: int, zero: bool, draws: bool
) -> int: ...
