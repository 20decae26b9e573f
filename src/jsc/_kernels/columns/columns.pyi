from typing import Any

def rooms(plan: Any) -> tuple[int, int, int]: ...
def encode(
    x: int, channels_last: bool, N: int, C: int, plan: Any, start: Any, word: Any, DA: Any, IN: Any,
    rows: Any, scratch: Any, isa: int, num_threads: int,
) -> None: ...  # fmt: skip
def decode(
    DA: Any, IN: Any, ptr: Any, offset: Any, word_offset: Any, row: Any, plan: Any, start: Any,
    word: Any, x: Any, valid: Any, num_threads: int,
) -> None: ...  # fmt: skip
def gather(regions: Any, offset: Any, stream: Any, num_threads: int) -> None: ...

class Convolution:
    def __init__(self, is_double: bool, fields: dict[str, int], plan: Any, isa: int) -> None: ...
    def scratch_bytes(self, num_threads: int) -> int: ...
    def __call__(
        self, x: int, channels_last: bool, out: int, scratch: int, num_threads: int
    ) -> None: ...
