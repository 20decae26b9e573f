"""Writes docs/models.md: every model of a list through `python -m jsc benchmark`.

    python scripts/models.py [--seconds 3] [--only timm:resnet18 ...] [--torch-compile]

Needs timm, torchvision and transformers. Each model runs in a process of its own, and its figures
are kept as JSON in a folder; those that are there are not made again (delete them, or --again), and
the page has all of them. --torch-compile takes a minute more for each model. With --seconds 0 the
times are "-": a machine that does something else has none to give.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from jsc._installation import cpu_name

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
it. *Times*, ms: medians of calls in turn, batch 1 ({machine}); *torch*
has channels-last maps, and torch.compile (default mode) was not timed where there is a "-". *Speed*
is over the faster of the two. A model that is off by more than 1e-2, as torch is, is not timed.

{summary}

| speed | model | jsc | torch | torch.compile | native | convolutions | error | torch's | input |
| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |
"""


def file_of(model: str, folder: Path) -> Path:
    return folder / f"{model.replace(':', '-')}.json"


def make(model: str, options: argparse.Namespace) -> None:
    """Keeps what the command says of a model in the folder."""
    file, seconds = file_of(model, options.folder), options.seconds
    if options.again or not file.exists():
        print(model, flush=True)
        file.unlink(missing_ok=True)
        budget = "20" if seconds else "0"
        command = [sys.executable, "-W", "ignore", "-m", "jsc", "benchmark", model]
        command += ["--seconds", str(seconds), "--budget", budget, "--json", str(file)]
        command += ["--torch-compile"] if options.torch_compile else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not file.exists():
            reason = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
            file.write_text(json.dumps({"model": model, "problem": reason[:300]}) + "\n")


def speed(found: dict[str, Any]) -> float | None:
    """Over the faster of torch and torch.compile."""
    times = {r["name"]: r["median_ms"] for r in found.get("contenders", ())}
    others = [times.get(name) for name in ("torch channels-last", "torch.compile")]
    best = min((t for t in others if t), default=None)
    return best / times["jsc"] if best and times.get("jsc") else None


def summary(found: list[dict[str, Any]]) -> str:
    """A sentence over all models that were timed."""
    gains = {f["model"]: gain for f in found if (gain := speed(f))}
    if not gains:
        return "No model was timed."
    mean = statistics.geometric_mean(gains.values())
    slower = [f"{model} ({gain:.2f})" for model, gain in gains.items() if gain < 1]
    return (
        f"{len(gains)} of {len(found)} models were timed: {mean:.2f} times as fast in the mean "
        f"(geometric), least {min(gains.values()):.2f}, most {max(gains.values()):.2f}.\n"
        f"Slower: {', '.join(slower) or 'none'}."
    )


def row(found: dict[str, Any]) -> str:
    """A line of the table."""
    if "problem" in found:
        return f"| - | {found['model']}: {found['problem'].replace('|', '/')} | | | | | | | | |"
    rows = {r["name"]: r for r in found["contenders"]}
    ours, plain, last = rows["jsc"], rows["torch"], rows["torch channels-last"]
    inductor = rows.get("torch.compile", {}).get("median_ms")
    cells = [f"{t:.1f}" if t else "-" for t in (ours["median_ms"], last["median_ms"], inductor)]
    gain = speed(found)
    errors = ["-" if r["error"] is None else f"{r['error']:.1e}" for r in (ours, plain)]
    parts = [
        f"{gain:.2f}x" if gain else "-", found["model"], *cells,
        f"{100 * found['native_share']:.0f} %", str(found["convolutions"]), *errors,
        "x".join(map(str, found["shape"][1:])),
    ]  # fmt: skip
    return f"| {' | '.join(parts)} |"


def page(found: list[dict[str, Any]]) -> str:
    """The whole document."""
    timed = [f for f in found if "contenders" in f and f["contenders"][0]["median_ms"]]
    machine = (
        f"{cpu_name()}, {timed[0]['threads']} threads, torch {timed[0]['torch']}"
        if timed
        else "not measured"
    )
    head = HEAD.format(machine=machine, summary=summary(found))
    return head + "\n".join(row(f) for f in found) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each contender")
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="make these alone")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "models")
    parser.add_argument("--torch-compile", action="store_true", help="time that too")
    parser.add_argument("--again", action="store_true", help="also those that are there")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for model in options.only or MODELS:
        make(model, options)
    files = [file_of(model, options.folder) for model in MODELS]
    found = [dict(json.loads(file.read_text())) for file in files if file.exists()]
    (ROOT / "docs" / "models.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
