"""A user's program as a type checker sees it; it is never run. Lines with `type: ignore` hold
mistakes that have to be found."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import jsc
from jsc.typing import ImagePadding, MethodName, OnMismatch, Preset, Quantizer, Subsampling


def layers(quantizer: Quantizer, subsampling: Subsampling, padding: ImagePadding) -> nn.Module:
    layer = jsc.nn.JPEG.from_quality(75, mean=(0.485, 0.456, 0.406), std=0.25)
    again: jsc.nn.JPEG = jsc.nn.JPEG(
        layer.quant_tables(), quantizer=quantizer, subsampling=subsampling, padding=padding
    )
    name: Preset = "jpeg-dl"
    jsc.nn.JPEG.preset(name)
    jsc.nn.JPEG(quantizer="sofd")  # type: ignore[arg-type]
    jsc.nn.JPEG(subsampling="4:1:1")  # type: ignore[arg-type]
    jsc.nn.JPEG.preset("jpeg")  # type: ignore[arg-type]
    return nn.Sequential(layer, again, jsc.nn.SoftQuantizer(torch.ones(8, 8)))


def functions(x: Tensor, weight: Tensor, method: MethodName) -> Tensor:
    tables = jsc.jpeg.quality_tables(50)
    bits: Tensor = jsc.functional.jpeg_rate(x, tables, subsampling="4:2:0")
    y = jsc.functional.conv2d(x, weight, padding="same", method=method)
    jsc.functional.conv2d(x, weight, method="cpd")  # type: ignore[arg-type]
    jsc.functional.conv2d(x, weight, padding="some")  # type: ignore[arg-type]
    jsc.functional.jpeg(x, tables, padding="reflect")  # type: ignore[arg-type]
    return y + bits + jsc.functional.block_idct(jsc.functional.block_dct(x)).sum()


def modules() -> nn.Conv2d:
    conv = jsc.nn.SparseConv2d(3, 8, 3, padding=1, padding_mode="reflect", method="cps")
    conv.method = "cpc"
    conv.method = "cpcc"  # type: ignore[assignment]
    jsc.nn.SparseConv2d(3, 8, 3, padding_mode="mirror")  # type: ignore[arg-type]
    jsc.nn.SparseConv2d.from_dense(nn.Conv2d(3, 8, 3), method="")  # type: ignore[arg-type]
    return conv.to_dense()


def stored(x: Tensor) -> int:
    packed = jsc.formats.CPO.encode(x, 3)
    size: int = packed.nbytes
    return size


def tuned(model: nn.Sequential, sample: Tensor, on_mismatch: OnMismatch) -> nn.Sequential:
    plan: jsc.Plan = jsc.tune(model, sample, methods=["cpc", "cps"], budget_s=10)
    plan.override({"0": "dense"}).save("plan.json")
    for choice in plan.layers:
        method: MethodName = choice.method
        print(choice.name, method, choice.gain)
    jsc.tune(model, sample, methods=["spc"])  # type: ignore[list-item]
    jsc.apply(model, plan, on_mismatch="ignore")  # type: ignore[arg-type]
    return jsc.apply(model, plan, on_mismatch=on_mismatch)


def compiled(model: nn.Module, sample: Tensor) -> None:
    net: jsc.CompiledNetwork = jsc.compile(model, sample, budget=5.0)
    with torch.inference_mode():
        net(sample)
    net.refresh(model)
    print(net.profile(sample), net.accuracy)
    jsc.show_versions()
