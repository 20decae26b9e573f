from typing import Any

def taps(Kw: int, Sw: int, Dw: int) -> int: ...
def tile_columns(Kw: int, Sw: int, Dw: int, Ow: int) -> int: ...
def encode(x: Any, mask: Any, isa: int, num_threads: int) -> None: ...
def convolve(
    x: Any, mask: Any, weight: Any, bias: Any, tile: Any, out: Any,
    V: int, band_rows: int, Sh: int, Sw: int, Ph: int, Pw: int, Dh: int, Dw: int,
    isa: int, num_threads: int,
) -> None: ...  # fmt: skip
