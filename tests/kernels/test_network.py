"""The instructions of a network program, one at a time, against torch in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from network_maps import NOWHERE, Maps, act, close

CHANNELS = (1, 3, 8, 19, 70, 133)
SPECIAL = (math.nan, math.inf, -math.inf)


@pytest.fixture(params=[1, 2, 3], ids=lambda n: f"{n} threads")
def maps(request, isa):
    return Maps(isa, request.param)


def image(channels, size=(7, 10), special=False, batch=2):
    """Random numbers, some of them not finite."""
    x = torch.randn(batch, channels, *size)
    if special:
        for i, number in enumerate(SPECIAL):
            x[0, i % channels, i + 1, 2 * i + 1] = number
    return x


def pool_fields(maps, x, out_shape, kernel, stride, padding, dilation=(1, 1), **more):
    N, C, H, W = out_shape
    out, _ = maps.place((N, H, W, C), around=3)
    return {
        "x": maps.put(x), "out": out,
        "Kh": kernel[0], "Kw": kernel[1], "Sh": stride[0], "Sw": stride[1],
        "Ph": padding[0], "Pw": padding[1], "Dh": dilation[0], "Dw": dilation[1], "average": 0,
        "count_padding": 0, "divisor": 0, "act": act(), **more,
    }  # fmt: skip


WINDOWS = [  # kernel, stride, padding, dilation, ceil_mode
    ((3, 3), (2, 2), (1, 1), (1, 1), False),
    ((3, 3), (2, 2), (0, 0), (1, 1), True),
    ((3, 3), (1, 1), (1, 1), (1, 1), False),
    ((2, 2), (2, 2), (0, 0), (1, 1), True),
    ((2, 2), (2, 2), (1, 1), (1, 1), True),
    ((3, 2), (2, 3), (1, 0), (2, 1), False),
    ((5, 4), (3, 1), (2, 2), (1, 1), True),
    ((2, 2), (1, 1), (1, 1), (7, 9), False),
    ((1, 1), (2, 2), (0, 0), (1, 1), False),
]


@pytest.mark.parametrize("special", [False, True], ids=["finite", "special"])
@pytest.mark.parametrize("window", WINDOWS)
def test_max_pool(maps, window, special):
    kernel, stride, padding, dilation, ceil_mode = window
    for channels in CHANNELS:
        x = image(channels, (9, 12), special)
        exact = F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)
        ours = maps.run(
            "pool", pool_fields(maps, x, exact.shape, kernel, stride, padding, dilation)
        )
        torch.testing.assert_close(ours, exact, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("special", [False, True], ids=["finite", "special"])
@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("window", [w for w in WINDOWS if w[3] == (1, 1)])
def test_average_pool(maps, window, count_include_pad, special):
    kernel, stride, padding, _, ceil_mode = window
    for channels in CHANNELS:
        x = image(channels, special=special)
        exact = F.avg_pool2d(x.double(), kernel, stride, padding, ceil_mode, count_include_pad)
        more = {"average": 1, "count_padding": int(count_include_pad)}
        ours = maps.run("pool", pool_fields(maps, x, exact.shape, kernel, stride, padding, **more))
        close(ours, exact)


def test_average_pool_with_a_divisor_and_an_activation(maps):
    x = image(21)
    exact = F.silu(F.avg_pool2d(x.double(), 3, 2, 1, divisor_override=7))
    fields = pool_fields(
        maps, x, exact.shape, (3, 3), (2, 2), (1, 1), average=1, divisor=7, act=act("silu")
    )
    close(maps.run("pool", fields), exact)


def test_max_pool_with_bounds(maps):
    x = image(21, special=True)
    exact = F.max_pool2d(x, 3, 2, 1).clamp(0.25, 0.5)
    fields = pool_fields(maps, x, exact.shape, (3, 3), (2, 2), (1, 1), act=act("clamp", 0.25, 0.5))
    torch.testing.assert_close(maps.run("pool", fields), exact, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("special", [False, True], ids=["finite", "special"])
@pytest.mark.parametrize("size", [(1, 1), (3, 4), (7, 10), (9, 13)])
@pytest.mark.parametrize("average", [0, 1], ids=["max", "average"])
def test_adaptive_pool(maps, average, size, special):
    for channels in CHANNELS:
        x = image(channels, special=special)
        exact = (
            F.adaptive_avg_pool2d(x.double(), size) if average else F.adaptive_max_pool2d(x, size)
        )
        out, _ = maps.place((2, *size, channels))
        fields = {"x": maps.put(x), "out": out, "average": average, "act": act()}
        close(maps.run("adaptive_pool", fields), exact, 2e-6 if average else 0)


def test_mean_of_a_large_map(isa, num_threads):
    maps = Maps(isa, num_threads, 1 << 19)
    x = torch.rand(1, 20, 112, 112) + 1
    out, _ = maps.place((1, 1, 1, 20))
    fields = {"x": maps.put(x), "out": out, "average": 1, "act": act()}
    close(maps.run("adaptive_pool", fields), x.double().mean((2, 3), keepdim=True), 5e-7)


OPERATIONS = {
    "identity": lambda x, b: x + 0 * b, "add": torch.add, "sub": torch.sub, "mul": torch.mul,
    "div": torch.div, "max": torch.maximum, "min": torch.minimum,
}  # fmt: skip
OPERANDS = ("none", "map", "pixel", "channel", "vector", "scalar")


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
        "op": [*OPERATIONS, "affine"].index(op), "operand": OPERANDS.index(operand),
        "scale": vector, "shift": 0, "scalar": scalar, "act": act(), **more,
    }  # fmt: skip


def operand_of(kind, x):
    N, C, H, W = x.shape
    shapes = {
        "map": (N, C, H, W), "pixel": (N, C, 1, 1), "channel": (N, 1, H, W), "vector": (1, C, 1, 1),
        "scalar": (1, 1, 1, 1),
    }  # fmt: skip
    return torch.randn(shapes[kind])


@pytest.mark.parametrize("around", [0, 5], ids=["dense", "slice"])
@pytest.mark.parametrize("special", [False, True], ids=["finite", "special"])
@pytest.mark.parametrize("operand", OPERANDS[1:])
@pytest.mark.parametrize("op", [o for o in OPERATIONS if o != "identity"])
def test_elementwise(maps, op, operand, special, around):
    for channels in CHANNELS:
        x = image(channels, special=special)
        b = operand_of(operand, x)
        if special and operand == "map":
            b[1, 0, 0, 0] = math.nan
        fields = elementwise_fields(maps, x, op, operand, b, around)
        exact = OPERATIONS[op](x, b)  # one operation, rounded once
        ours = maps.run("elementwise", fields)
        torch.testing.assert_close(ours, exact, rtol=0, atol=0, equal_nan=True)


def test_affine(maps):
    for channels in CHANNELS:
        x, scale, shift = (
            image(channels, special=True),
            torch.randn(channels),
            torch.randn(channels),
        )
        fields = elementwise_fields(
            maps, x, "affine", "none", None, scale=maps.constant(scale), shift=maps.constant(shift),
            act=act("clamp", 0.0, math.inf),
        )  # fmt: skip
        exact = x.double() * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
        close(maps.run("elementwise", fields), exact.relu())


ACTIVATIONS = {
    "none": ((), lambda x: x),
    "clamp": ((-0.5, 1.25), lambda x: x.clamp(-0.5, 1.25)),
    "leaky": ((0.1,), lambda x: F.leaky_relu(x, 0.1)),
    "elu": ((1.5,), lambda x: F.elu(x, 1.5)),
    "sigmoid": ((), torch.sigmoid),
    "silu": ((), F.silu),
    "hard_sigmoid": ((), F.hardsigmoid),
    "hard_swish": ((), F.hardswish),
    "tanh": ((), torch.tanh),
    "gelu": ((), F.gelu),
    "gelu_tanh": ((), lambda x: F.gelu(x, approximate="tanh")),
    "threshold": ((0.75, -0.5), lambda x: F.threshold(x, 0.75, -0.5)),
}


@pytest.mark.parametrize("around", [0, 5], ids=["dense", "slice"])
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations(maps, kind, around):
    numbers, function = ACTIVATIONS[kind]
    x = 4 * image(19)
    x[0, 2, 1, 1] = math.nan
    fields = elementwise_fields(maps, x, "identity", "none", None, around, act=act(kind, *numbers))
    close(maps.run("elementwise", fields), function(x.double()))
    b = operand_of("map", x)
    fields = elementwise_fields(maps, x, "add", "map", b, around, act=act(kind, *numbers))
    close(maps.run("elementwise", fields), function((x + b).double()))


@pytest.mark.parametrize(
    "inputs", [(1, 1, 1), (1, 1, 37), (3, 5, 29), (2, 3, 7), (1, 1, 2048)], ids=str
)
@pytest.mark.parametrize("K", [1, 7, 10, 24, 100])
@pytest.mark.parametrize("N", [1, 2, 5])
def test_linear(maps, N, K, inputs):
    H, W, C = inputs
    x, weight, shift = torch.randn(N, C, H, W), torch.randn(K, C * H * W), torch.randn(K)
    out, _ = maps.place((N, 1, 1, K))
    fields = {
        "x": maps.put(x, around=0, rows=0), "out": out, "inputs": C * H * W,
        "weight": maps.constant(weight), "shift": maps.constant(shift), "act": act("silu"),
    }  # fmt: skip
    rows = x.permute(0, 2, 3, 1).flatten(1).double()
    exact = F.silu(F.linear(rows, weight.double(), shift.double()))
    ours = maps.run("linear", fields)[:, :, 0, 0]
    close(ours, exact)
    for n in range(N):  # a row alone has the same bits
        one, _ = maps.place((1, 1, 1, K))
        source = maps.put(x[n : n + 1], around=0)
        alone = maps.run("linear", {**fields, "x": source, "out": one})[:, :, 0, 0]
        assert torch.equal(alone[0], ours[n])


def test_linear_of_rows_beyond_the_cache(isa, num_threads):
    maps = Maps(isa, num_threads, 1 << 19)
    x, weight = torch.randn(64, 3000, 1, 1), torch.randn(19, 3000)
    out, _ = maps.place((64, 1, 1, 19))
    fields = {
        "x": maps.put(x, around=0), "out": out, "inputs": 3000, "weight": maps.constant(weight),
        "shift": 0, "act": act(),
    }  # fmt: skip
    ours = maps.run("linear", fields)[:, :, 0, 0]
    close(ours, x.flatten(1).double() @ weight.double().T)
    one, _ = maps.place((1, 1, 1, 19))
    source = {**fields["x"], "N": 1, "offset": fields["x"]["offset"] + 7 * fields["x"]["image"]}
    assert torch.equal(maps.run("linear", {**fields, "x": source, "out": one})[0, :, 0, 0], ours[7])


def normalise_fields(maps, x, kind, around=5, **more):
    N, C, H, W = x.shape
    out, _ = maps.place((N, H, W, C), around=around)
    return {
        "x": maps.put(x, around=around), "out": out,
        "kind": ("lrn", "softmax", "layer").index(kind), "size": 0, "alpha": 0.0, "beta": 0.0,
        "k": 0.0, "eps": 0.0, "weight": 0, "shift": 0, **more,
    }  # fmt: skip


@pytest.mark.parametrize("special", [False, True], ids=["finite", "special"])
@pytest.mark.parametrize("beta", [0.75, 0.5, 1.3])
@pytest.mark.parametrize("size", [1, 2, 5, 8, 150])
def test_local_response_norm(maps, size, beta, special):
    for channels in CHANNELS:
        x = 3 * image(channels, (5, 7), special)
        fields = normalise_fields(maps, x, "lrn", size=size, alpha=0.7, beta=beta, k=1.5)
        exact = F.local_response_norm(x.double(), size, 0.7, beta, 1.5)
        close(maps.run("normalise", fields), exact)


def test_local_response_norm_of_huge_and_tiny_numbers(maps):
    x = torch.randn(2, 24, 3, 5) * torch.tensor([1e-15, 1e-3, 1.0, 1e3, 1e15]).view(1, 1, 1, 5)
    for k in (1.0, 1e-20):
        fields = normalise_fields(maps, x, "lrn", size=5, alpha=1e-2, beta=0.6, k=k)
        exact = F.local_response_norm(x.double(), 5, 1e-2, 0.6, k)
        ours = maps.run("normalise", fields)
        assert ((ours - exact).abs() <= 2e-5 * exact.abs()).all()


def test_local_response_norm_of_zero_divided_by_zero(maps):
    x = torch.zeros(1, 9, 1, 2)
    fields = normalise_fields(maps, x, "lrn", size=5, alpha=1.0, beta=0.6, k=0.0)
    assert maps.run("normalise", fields).isnan().all()


@pytest.mark.parametrize("special", [False, True], ids=["finite", "special"])
@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_softmax(maps, scale, special):
    for channels in CHANNELS:
        x = scale * image(channels, (5, 7), special)
        fields = normalise_fields(maps, x, "softmax")
        close(maps.run("normalise", fields), F.softmax(x.double(), 1), 1e-6)


def test_softmax_gives_a_masked_channel_nothing(maps):
    x = image(19, (3, 4))
    x[:, 5:18] = -math.inf
    out = maps.run("normalise", normalise_fields(maps, x, "softmax"))
    assert (out[:, 5:18] == 0).all()
    close(out, F.softmax(x.double(), 1))


@pytest.mark.parametrize("special", [False, True], ids=["finite", "special"])
@pytest.mark.parametrize("affine", [False, True])
def test_layer_norm(maps, affine, special):
    for channels in CHANNELS:
        x = image(channels, (5, 7), special) + 30
        weight, shift = (torch.randn(channels), torch.randn(channels)) if affine else (None, None)
        fields = normalise_fields(
            maps, x, "layer", eps=1e-3, weight=maps.constant(weight), shift=maps.constant(shift)
        )
        exact = F.layer_norm(
            x.double().permute(0, 2, 3, 1),
            (channels,),
            *(t if t is None else t.double() for t in (weight, shift)),
            1e-3,
        )
        close(maps.run("normalise", fields), exact.permute(0, 3, 1, 2), 1e-5)


@pytest.mark.parametrize("kind", ["softmax", "layer"])
def test_normalisation_in_place(maps, kind):
    x = image(70)
    fields = normalise_fields(maps, x, kind, eps=1e-5)
    apart = maps.run("normalise", fields)
    assert torch.equal(maps.run("normalise", {**fields, "out": fields["x"]}), apart)


COPIES = [  # N, H, W, C
    (2, 7, 9, 1), (2, 6, 11, 2), (2, 9, 21, 3), (1, 5, 33, 4), (2, 7, 7, 12), (1, 3, 5, 70),
    (2, 12, 31, 19), (1, 33, 65, 3),
]  # fmt: skip
LAYOUTS = {
    "planar": {"planar": True, "around": 0},
    "planar slice": {"planar": True, "around": 3, "rows": 2},
    "last": {"around": 0},
    "last slice": {"around": 5},
}


@pytest.mark.parametrize("border", [(0, 0, 0, 0), (1, 2, 3, 1), (0, 3, 0, 0)], ids=str)
@pytest.mark.parametrize("to", LAYOUTS)
@pytest.mark.parametrize("source", LAYOUTS)
def test_copy(maps, source, to, border):
    top, left, bottom, right = border
    for N, H, W, C in COPIES:
        x = image(C, (H, W), batch=N)
        out, _ = maps.place((N, H + top + bottom, W + left + right, C), **LAYOUTS[to])
        fields = {
            "x": maps.put(x, **LAYOUTS[source]), "out": out, "top": top, "left": left, "fill": -1.5,
            "order": 0,
        }  # fmt: skip
        exact = F.pad(x, (left, right, top, bottom), value=-1.5)
        assert torch.equal(maps.run("copy", fields), exact)


def copy_in_order(maps, x, order, **options):
    N, _, H, W = x.shape
    out, _ = maps.place((N, H, W, len(order)), **options)
    numbers = maps.constant(torch.tensor(order, dtype=torch.int32))
    fields = {
        "x": maps.put(x, **options),
        "out": out,
        "top": 0,
        "left": 0,
        "fill": 7.0,
        "order": numbers,
    }
    return maps.run("copy", fields)


@pytest.mark.parametrize("around", [0, 5], ids=["dense", "slice"])
@pytest.mark.parametrize(
    ("groups", "members"), [(2, 58), (3, 20), (4, 17), (29, 2), (12, 3), (8, 8), (1, 9), (2, 2)]
)
def test_channel_shuffle(maps, groups, members, around):
    x = image(groups * members, (5, 6))
    order = [(c % groups) * members + c // groups for c in range(groups * members)]
    exact = F.channel_shuffle(x, groups)
    assert torch.equal(copy_in_order(maps, x, order, around=around), exact)


def test_copy_in_any_order(maps):
    x = image(11)
    order = [3, -1, 10, 0, 0, -1, 7, 2]
    exact = torch.stack([x[:, c] if c >= 0 else torch.full_like(x[:, 0], 7.0) for c in order], 1)
    assert torch.equal(copy_in_order(maps, x, order), exact)
    assert torch.equal(copy_in_order(maps, x, order, planar=True), exact)


@pytest.mark.parametrize(("r", "C"), [(2, 5), (3, 1), (2, 3)])
def test_pixel_shuffle_is_a_copy_for_each_row_of_it(maps, r, C):
    x = image(C * r * r, (4, 5))
    N, H, W = 2, 4, 5
    out, _ = maps.place((N, H * r, W * r, C), around=0)
    for i in range(r):
        order = torch.tensor(
            [c * r * r + i * r + j for j in range(r) for c in range(C)], dtype=torch.int32
        )
        rows = {
            **out, "offset": out["offset"] + i * out["row"], "H": H, "W": W, "C": r * C,
            "row": r * out["row"], "pixel": r * C,
        }  # fmt: skip
        fields = {
            "x": maps.put(x),
            "out": rows,
            "top": 0,
            "left": 0,
            "fill": 0.0,
            "order": maps.constant(order),
        }
        part = maps.run("copy", fields)
        maps.view(rows).copy_(part)
    assert torch.equal(maps.view(out), F.pixel_shuffle(x, r))


def resize_fields(maps, x, size, mode, align_corners=False, scales=(0.0, 0.0)):
    out, _ = maps.place((x.shape[0], *size, x.shape[1]))
    return {
        "x": maps.put(x), "out": out, "bilinear": int(mode == "bilinear"),
        "align_corners": int(align_corners), "scale_h": scales[0], "scale_w": scales[1],
    }  # fmt: skip


@pytest.mark.parametrize("size", [(7, 10), (14, 20), (21, 15), (3, 4), (1, 1), (8, 23)], ids=str)
def test_nearest(maps, size):
    for channels in CHANNELS:
        x = image(channels, special=True)
        exact = F.interpolate(x, size)
        ours = maps.run("resize", resize_fields(maps, x, size, "nearest"))
        torch.testing.assert_close(ours, exact, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("scale", [0.3, 0.7, 1.1, 2.0, 2.7, 3.3])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_resize_by_a_scale(maps, mode, scale):
    x = image(3, (13, 17))
    options = {"recompute_scale_factor": False, "mode": mode}
    exact = F.interpolate(x.double(), scale_factor=scale, **options)
    if mode == "nearest":  # which pixel is nearest is a question of rounding
        exact = F.interpolate(x, scale_factor=scale, **options)
    fields = resize_fields(maps, x, exact.shape[2:], mode, scales=(scale, scale))
    close(maps.run("resize", fields), exact, 0 if mode == "nearest" else 4e-6)


def test_nearest_finds_the_same_pixel_for_many_sizes(isa):
    maps = Maps(isa, 1)
    for size in range(1, 40):
        for to in range(1, 90, 3):
            x = torch.arange(size, dtype=torch.float32).view(1, 1, 1, size)
            maps.used = 7
            ours = maps.run("resize", resize_fields(maps, x, (1, to), "nearest"))
            assert torch.equal(ours, F.interpolate(x, (1, to)))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(7, 10), (14, 20), (21, 15), (3, 4), (1, 1), (8, 23)], ids=str)
def test_bilinear(maps, size, align_corners):
    for channels in CHANNELS:
        x = image(channels)
        exact = F.interpolate(x.double(), size, mode="bilinear", align_corners=align_corners)
        close(
            maps.run("resize", resize_fields(maps, x, size, "bilinear", align_corners)), exact, 4e-6
        )


@pytest.mark.parametrize("size", [(7, 10), (14, 20), (3, 4)], ids=str)
def test_bilinear_keeps_what_is_not_finite(maps, size):
    x = image(19, special=True)
    exact = F.interpolate(x, size, mode="bilinear")
    close(maps.run("resize", resize_fields(maps, x, size, "bilinear")), exact, 4e-6)
