"""Memory for the tests of single instructions: maps that are slices of wider ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from jsc import _config
from jsc._kernels.network.program import Program, Walk
from jsc.network.emit import ACTIVATIONS, NOWHERE, OPERANDS, OPERATIONS

SENTINEL = 12345.5
NEAR = 4096  # numbers behind the last map that are looked at
CHANNELS = (1, 3, 8, 19, 70, 133)
SPECIAL = (math.nan, math.inf, -math.inf)


def act(kind="none", a=0.0, b=0.0):
    return {"kind": ACTIVATIONS.index(kind), "a": a, "b": b}


def image(channels, size=(7, 10), special=False, batch=2):
    """Random numbers, some of them not finite."""
    x = torch.randn(batch, channels, *size)
    if special:
        for i, number in enumerate(SPECIAL):
            x[0, i % channels, i + 1, 2 * i + 1] = number
    return x


def as_map(arena, m):
    """The memory in numbers of the map."""
    return arena.view(torch.bfloat16) if m["bf16"] else arena


class Maps:
    """Maps in one region; whatever an instruction writes outside its output is found."""

    def __init__(self, isa: str, num_threads: int, numbers: int = 1 << 18):
        self.isa = _config.ISA_NAMES.index(isa)
        self.num_threads = num_threads
        self.arena = torch.full((numbers,), SENTINEL)
        self.used = 7
        self.kept: list[Tensor] = []

    def place(self, shape, planar=False, around=5, rows=0, bf16=False):
        """Room for N x H x W x C numbers, `around` more behind each pixel and `rows` behind each
        row: the fields of the map, and the numbers as a tensor (N, C, H, W)."""
        N, H, W, C = shape
        if planar:
            pixel, row = 1, W + rows
            channel = H * row
            image = C * channel + around
        else:
            channel, pixel = 1, C + around
            row = W * pixel + rows
            image = H * row + rows
        offset = self.used * (2 if bf16 else 1) + (around and 2)
        self.used += N * image + 16
        assert self.used < self.arena.numel()
        fields = {
            "region": 0, "offset": offset, "N": N, "H": H, "W": W, "C": C,
            "image": image, "row": row, "pixel": pixel, "channel": channel,
            "bf16": int(bf16),
        }  # fmt: skip
        return fields, self.view(fields)

    def view(self, m):
        """A map as a tensor (N, C, H, W)."""
        steps = (m["image"], m["channel"], m["row"], m["pixel"])
        return as_map(self.arena, m).as_strided(
            (m["N"], m["C"], m["H"], m["W"]), steps, m["offset"]
        )

    def put(self, x, **options):
        """A tensor (N, C, H, W) as a map."""
        N, C, H, W = x.shape
        fields, view = self.place((N, H, W, C), **options)
        view.copy_(x)
        return fields

    def constant(self, tensor):
        if tensor is None:
            return 0
        self.kept.append(tensor.contiguous())
        return self.kept[-1].data_ptr()

    def run(self, kind, fields, workspace=None):
        """The output (N, C, H, W); everything around it and the workspace must be as it was."""
        program = Program(self.isa)
        index = getattr(program, f"add_{kind}")(fields)
        walk = Walk(program, [[index]])
        scratch = torch.full((walk.scratch_bytes // 4 * self.num_threads + 1,), float("nan"))
        near = self.arena[: self.used + NEAR]  # all of it would take most of the tests' time
        before = near.clone()
        walk.run([self.arena.data_ptr()], scratch.data_ptr(), self.num_threads)
        out = self.view(fields["out"])
        result = out.clone()
        was = as_map(before, fields["out"])
        out.copy_(torch.as_strided(was, out.shape, out.stride(), fields["out"]["offset"]))
        if workspace is not None:
            workspace.fill_(math.nan)
        same = (near == before) | (near.isnan() & before.isnan())
        assert same.all(), "written outside the output"
        return result


def close(ours, exact, tolerance=2e-6):
    """Within `tolerance` of the largest finite number; NaN and infinities are where the exact
    result has them."""
    exact = exact.double()
    ours = ours.double()
    assert torch.equal(ours.isnan(), exact.isnan())
    infinite = exact.isinf()
    assert torch.equal(ours[infinite], exact[infinite])
    finite = exact.isfinite()
    if finite.any():
        scale = exact[finite].abs().max().clamp(min=1e-3)
        assert ours[finite].isfinite().all()
        assert (ours[finite] - exact[finite]).abs().max() <= tolerance * scale


def pool_fields(maps, x, out_shape, kernel, stride, padding, dilation=(1, 1), **more):
    N, C, H, W = out_shape
    out, _ = maps.place((N, H, W, C), around=3)
    return {
        "x": maps.put(x), "out": out,
        "Kh": kernel[0], "Kw": kernel[1], "Sh": stride[0], "Sw": stride[1],
        "Ph": padding[0], "Pw": padding[1], "Dh": dilation[0], "Dw": dilation[1], "average": 0,
        "count_padding": 0, "divisor": 0, "act": act(), **more,
    }  # fmt: skip


def resize_fields(maps, x, size, mode, align_corners=False, scales=(0.0, 0.0)):
    out, _ = maps.place((x.shape[0], *size, x.shape[1]))
    return {
        "x": maps.put(x), "out": out, "bilinear": int(mode == "bilinear"),
        "align_corners": int(align_corners), "scale_h": scales[0], "scale_w": scales[1],
    }  # fmt: skip


def elementwise_fields(maps, x, op, operand, b, around=5, **more):
    N, C, H, W = x.shape
    out, _ = maps.place((N, H, W, C), around=around)
    other, vector, scalar = NOWHERE, 0, 0.0
    if operand in ("map", "pixel", "channel"):
        other = maps.put(b, around=around)
    elif operand == "vector":
        vector = maps.constant(b.flatten())
    elif operand == "scalar":
        scalar = b.item()
    return {
        "x": maps.put(x, around=around), "other": other, "out": out,
        "op": OPERATIONS.index(op), "operand": OPERANDS.index(operand),
        "scale": vector, "shift": 0, "scalar": scalar, "act": act(), **more,
    }  # fmt: skip


def operand_of(kind, x):
    N, C, H, W = x.shape
    shapes = {
        "map": (N, C, H, W), "pixel": (N, C, 1, 1), "channel": (N, 1, H, W), "vector": (1, C, 1, 1),
        "scalar": (1, 1, 1, 1),
    }  # fmt: skip
    return torch.randn(shapes[kind])
