"""How kernels run: the instruction set (environment variable JSC_ISA) and the number of threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from jsc._kernels import cpu

ISA_NAMES = ("base", "avx2", "avx512")

# Below this many element operations a parallel region costs more than it saves
# (waking two threads takes some 5 us, in which one core does about this much).
SERIAL_WORK = 16_384


def _isa_from_environment() -> int:
    best = cpu.supported_isa()
    name = os.environ.get("JSC_ISA", "")
    if not name:
        return best
    if name not in ISA_NAMES:
        raise ValueError(
            f"JSC_ISA={name!r} is not one of {', '.join(ISA_NAMES)}; unset it to take the widest"
        )
    level = ISA_NAMES.index(name)
    if level > best:
        raise ValueError(
            f"JSC_ISA={name} but this CPU supports {ISA_NAMES[best]} at most; unset it"
        )
    return level


# Read when the first kernel asks: a wrong JSC_ISA is then an error of that call, in one sentence,
# and not a traceback of `import jsc`, which would keep `python -m jsc doctor` from reporting it.
_isa: int | None = None
_amx = not os.environ.get("JSC_ISA") and cpu.supported_amx()
_bf16 = not os.environ.get("JSC_ISA") and cpu.supported_bf16()
_forked = False


def _after_fork() -> None:
    # libgomp's thread pool does not survive a fork: a parallel region in the child hangs for ever,
    # torch's own (our operators use those too) as well as ours. DataLoader workers do the same.
    global _forked
    _forked = True
    torch.set_num_threads(1)


os.register_at_fork(after_in_child=_after_fork)


def isa() -> int:
    """The instruction set kernels are called with: an index into ISA_NAMES.

    Raises ValueError  if JSC_ISA asks for one that does not exist or that this CPU lacks.
    """
    global _isa
    if _isa is None:
        _isa = _isa_from_environment()
    return _isa


def amx() -> bool:
    """Whether kernels may use AMX tiles: the CPU has them, and JSC_ISA does not ask for less."""
    return _amx and isa() == 2


def bf16() -> bool:
    """Whether kernels may use AVX-512's products of bfloat16: the CPU has them, and JSC_ISA does
    not ask for less."""
    return _bf16 and isa() == 2


def isa_name() -> str:
    """What kernels run with: an entry of ISA_NAMES, with "+amx" where there are tiles, or "+bf16"
    where there are products of bfloat16 without them."""
    return ISA_NAMES[isa()] + ("+amx" if amx() else "+bf16" if bf16() else "")


@contextmanager
def use_isa(name: str) -> Iterator[None]:
    """Run kernels on a lower instruction set for a while (for tests; not thread-safe)."""
    global _isa
    before = isa()
    level = ISA_NAMES.index(name)
    if level > cpu.supported_isa():
        raise ValueError(f"this CPU has no {name}")
    _isa = level
    try:
        yield
    finally:
        _isa = before


def num_threads(work: int) -> int:
    """Threads for a kernel that does `work` element operations: torch's number, or 1 when the work
    is small, in a forked child, or inside the parallel region of another library."""
    if _forked or work < SERIAL_WORK or cpu.in_parallel():
        return 1
    return torch.get_num_threads()
