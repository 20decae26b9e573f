from typing import Any

def scratch_bytes(
    W: int, Kh: int, Kw: int, rows: int, group: int, units: int, VL: int, itemsize: int
) -> int: ...

visit: dict[str, Any]
sum_weight: dict[str, Any]
pack_weight: dict[str, Any]
pack_sweep: dict[str, Any]
count: dict[str, Any]
