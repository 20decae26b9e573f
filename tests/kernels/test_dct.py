"""The block DCT kernels against SciPy's orthonormal DCT-II."""

import pytest
import scipy.fft
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jsc.ops.dct import BlockDct, BlockIdct

TOLERANCE = {torch.float32: 2e-3, torch.float64: 1e-10}  # grey levels, for coefficients up to 2048


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(0, 3),
    c=st.integers(1, 3),
    rows=st.integers(0, 4),
    columns=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_matches_scipy_and_inverts(isa, num_threads, dtype, n, c, rows, columns, seed):
    x = (
        torch.rand(
            (n, c, 8 * rows, 8 * columns),
            generator=torch.Generator().manual_seed(seed),
            dtype=dtype,
        )
        * 255
    )
    z = BlockDct.apply(x)
    blocks = x.view(n, c, rows, 8, columns, 8).transpose(3, 4)
    if x.numel():
        expected = torch.from_numpy(
            scipy.fft.dctn(blocks.double().numpy(), axes=(-2, -1), norm="ortho")
        )
        torch.testing.assert_close(z.double(), expected, rtol=0, atol=TOLERANCE[dtype])
    torch.testing.assert_close(BlockIdct.apply(z), x, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("shape", [(1, 3, 12, 16), (1, 3, 16, 7), (3, 16, 16), (1, 1, 3, 16, 16)])
def test_the_operator_refuses_what_is_no_whole_blocks(shape):
    with pytest.raises(ValueError, match="multiples of 8"):
        torch.ops.jsc.block_dct(torch.rand(shape))


@pytest.mark.parametrize("shape", [(1, 3, 2, 2, 64), (1, 3, 2, 2, 4, 4), (1, 3, 2, 2, 4, 16)])
def test_the_inverse_refuses_other_blocks(shape):
    with pytest.raises(ValueError, match="rows, columns, 8, 8"):
        torch.ops.jsc.block_idct(torch.rand(shape))


@pytest.mark.parametrize("op", [BlockDct, BlockIdct])
def test_gradients(op):
    shape = (2, 1, 16, 8) if op is BlockDct else (2, 1, 2, 1, 8, 8)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(op.apply, (x,))
    assert torch.autograd.gradgradcheck(op.apply, (x,))
