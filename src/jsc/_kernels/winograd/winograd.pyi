def pack(
    weight: int, doubles: bool, transformed: int, plain: int, fields: dict[str, int], isa: int,
    num_threads: int,
) -> None: ...  # fmt: skip

class Gradient:
    def __init__(self, fields: dict[str, int], isa: int) -> None: ...
    def scratch_bytes(self, num_threads: int) -> int: ...
    def __call__(
        self, x: int, grad: int, weight_grad: int, steps: tuple[int, ...], scratch: int,
        num_threads: int,
    ) -> bool: ...  # fmt: skip
