"""Operators: the one place that talks to `torch.library`, and calls kernels.

Each module of this package does one kernel family, in a fixed order: the CPU implementation
(allocates, then calls the kernel), its shape function, the gradient. Arguments have been checked
above, in `jsc.functional`. The operators `torch.ops.jsc.<name>` are defined here, all of them.
"""

from jsc.ops._library import define

_QUANTISER = "Tensor q, Tensor kappa, int mode, int window, int levels"
_JPEG = (
    "Tensor q, Tensor kappa, Tensor? seed, int mode, int window, int levels, int v, int u, "
    "bool zero, float[] mean, float[] std, float peak, float offset"
)
_CONTRAST = "float deviation, float[] offset, float[] scale, float[] epsilon"
_CONVOLUTION = (
    "SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, SymInt groups, str method, "
    "bool keep=False"
)
_THREE = "(Tensor, Tensor, Tensor)"

for _module, _schemas in {
    "jsc.ops.dct": ("block_dct(Tensor x) -> Tensor", "block_idct(Tensor z) -> Tensor"),
    "jsc.ops.quant": (
        f"soft_quantize(Tensor z, {_QUANTISER}) -> Tensor",
        f"soft_quantize_backward(Tensor g, Tensor z, {_QUANTISER}) -> {_THREE}",
    ),
    "jsc.ops.rate": (
        f"level_entropy(Tensor z, {_QUANTISER}) -> Tensor",
        f"level_entropy_backward(Tensor g, Tensor z, {_QUANTISER}) -> {_THREE}",
    ),
    "jsc.ops.jpeg": (
        f"jpeg(Tensor x, {_JPEG}) -> Tensor",
        f"jpeg_backward(Tensor g, Tensor x, {_JPEG}, int wanted) -> {_THREE}",
    ),
    "jsc.ops.contrast": (
        f"local_contrast(Tensor x, {_CONTRAST}) -> Tensor",
        f"local_contrast_backward(Tensor g, Tensor x, {_CONTRAST}) -> Tensor",
    ),
    "jsc.methods.operator": (
        "conv2d(Tensor input, Tensor weight, Tensor? packed, Tensor? bias, "
        f"{_CONVOLUTION}) -> Tensor",
    ),
}.items():
    for _schema in _schemas:
        define(_schema, _module)
