from typing import Any

def convolve(
    x: int, out: int, weight: Any, bias: Any, offset: Any, scratch: Any, *sizes: Any
) -> bool: ...
