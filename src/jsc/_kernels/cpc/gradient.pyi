from typing import Any

class Gradient:
    def __init__(self, is_double: bool, fields: dict[str, int], isa: int) -> None: ...
    def scratch_bytes(self, input_wanted: bool, weight_wanted: bool, num_threads: int) -> int: ...
    def __call__(
        self, S: int, D: int, weight: int, weight_steps: dict[str, int],
        input_grad: int, weight_grad: int, weight_grad_steps: dict[str, int],
        scratch: int, num_threads: int,
    ) -> bool: ...  # fmt: skip

pack_sweep: dict[str, Any]
count: dict[str, Any]
