"""Writes docs/models.md: every model of a list through `python -m jsc benchmark`.

    python scripts/models.py [--seconds 3] [--only timm:resnet18 ...] [--folder build/models]

Needs timm, torchvision and transformers. Each model runs in a process of its own, and its figures
are kept as JSON in the folder; those that are there are not made again (delete them, or --again).
With --seconds 0 the times are "-": a machine that does something else has none to give.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TIMM = (
    "resnet18 resnet50 resnext50_32x4d seresnet18 skresnet18 eca_resnet33ts "
    "resnest14d res2net50_14w_8s resnetv2_50 regnety_004 "
    "nfnet_f0 efficientnet_b0 tf_efficientnetv2_b0 mobilenetv3_large_100 "
    "mnasnet_small lcnet_050 hardcorenas_a rexnet_100 ghostnet_100 convnext_atto densenet121 dpn68 "
    "vgg11_bn inception_v3 xception41 repvgg_a0 mobileone_s0 fastvit_t8 hrnet_w18_small dla34 "
    "cspdarknet53 vovnet39a selecsls42b tresnet_m poolformer_s12 convmixer_768_32 mixer_s32_224 "
    "edgenext_xx_small mobilevit_xxs efficientformer_l1 levit_128s coatnet_nano_rw_224 "
    "botnet26t_256 pvt_v2_b0 swin_tiny_patch4_window7_224 vit_tiny_patch16_224"
)
TORCHVISION = (
    "alexnet googlenet mobilenet_v3_small shufflenet_v2_x1_0 squeezenet1_1 fcn_resnet50 "
    "deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large"
)
TRANSFORMERS = (
    "ResNetForImageClassification RegNetForImageClassification ConvNextForImageClassification "
    "ConvNextV2ForImageClassification MobileNetV1ForImageClassification "
    "MobileNetV2ForImageClassification PoolFormerForImageClassification CvtForImageClassification "
    "BitForImageClassification ViTForImageClassification MobileViTForImageClassification "
    "SegformerForSemanticSegmentation UperNetForSemanticSegmentation GLPNForDepthEstimation "
    "DetrForObjectDetection"
)
MODELS = [
    *(f"timm:{name}" for name in TIMM.split()),
    *(f"torchvision:{name}" for name in TORCHVISION.split()),
    *(f"transformers:{name}" for name in TRANSFORMERS.split()),
]
HEAD = """# Models

Models of timm, torchvision and transformers through `jsc.compile`, with the weights that they begin
with (nothing is downloaded). This page is written by `python scripts/models.py`; one model alone:
`python -m jsc benchmark timm:resnet18`.

*Native*: the share of operations that run in kernels of jsc; the others run in torch in between.
*Error*: the largest one against the model in float64, over the largest output, and torch's beside
it. *Times*: medians of calls in turn, batch 1, {machine}.

| model | input | convolutions | native | error | torch's | ms | torch channels-last, ms | speed |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""


def figures(model: str, folder: Path, seconds: float, again: bool) -> dict[str, Any]:
    """What the command says of a model, from the folder where it is there."""
    file = folder / f"{model.replace(':', '-')}.json"
    if again or not file.exists():
        print(model, flush=True)
        file.unlink(missing_ok=True)
        budget = "20" if seconds else "0"
        command = [sys.executable, "-W", "ignore", "-m", "jsc", "benchmark", model]
        options = ["--seconds", str(seconds), "--budget", budget, "--json", str(file)]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        if not file.exists():
            reason = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
            file.write_text(json.dumps({"model": model, "problem": reason[:300]}) + "\n")
    return dict(json.loads(file.read_text()))


def row(found: dict[str, Any]) -> str:
    """A line of the table."""
    if "problem" in found:
        return f"| {found['model']} | {found['problem'].replace('|', '/')} | | | | | | | |"
    rows = {r["name"]: r for r in found["contenders"]}
    ours, plain, last = rows["jsc"], rows["torch"], rows["torch channels-last"]
    times = [ours["median_ms"], last["median_ms"]]
    cells = [f"{t:.1f}" if t else "-" for t in times]
    cells.append(f"{times[1] / times[0]:.2f}x" if all(times) else "-")
    errors = ["-" if r["error"] is None else f"{r['error']:.1e}" for r in (ours, plain)]
    shape = "x".join(map(str, found["shape"][1:]))
    return (
        f"| {found['model']} | {shape} | {found['convolutions']} | "
        f"{100 * found['native_share']:.0f} % | {' | '.join([*errors, *cells])} |"
    )


def page(found: list[dict[str, Any]]) -> str:
    """The whole document."""
    timed = [f for f in found if "contenders" in f and f["contenders"][0]["median_ms"]]
    machine = (
        f"{timed[0]['threads']} threads, torch {timed[0]['torch']}" if timed else "not measured"
    )
    return HEAD.format(machine=machine) + "\n".join(row(f) for f in found) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each contender")
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="make these alone")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "models")
    parser.add_argument("--again", action="store_true", help="also those that are there")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    found = [
        figures(m, options.folder, options.seconds, options.again) for m in options.only or MODELS
    ]
    (ROOT / "docs" / "models.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
