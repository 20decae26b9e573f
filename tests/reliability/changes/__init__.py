"""Every way known to change the weight or the bias of a convolution, as a table.

A change takes a module with a `weight` of (K, C, Kh, Kw) and a `bias`, and leaves other numbers in
it. It returns the module to call from then on, or None where that is the same one. The test of the
table asks that the next evaluation has torch's result on the new numbers.
"""

from tests.reliability.changes import bias_and_copies, memory, optimizers, parameters
from tests.reliability.changes.table import CHANGES

__all__ = ["CHANGES", "bias_and_copies", "memory", "optimizers", "parameters"]
