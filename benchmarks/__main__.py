"""`python -m benchmarks NAME [options]` runs one benchmark; `NAME --help` shows its options."""

import importlib
import sys

from benchmarks.common import processes

# name: (module, what the benchmark shows). The last part of a module is the benchmark's name.
BENCHMARKS = {
    "conv": ("convolution.conv", "sparse convolutions against dense torch, layer by layer"),
    "dense": ("convolution.dense", "every kernel of compiled networks on dense maps, by class"),
    "bottlenecks": (
        "convolution.bottlenecks",
        "where the time of the CPC convolution goes, by experiment",
    ),
    "memory": ("convolution.memory", "elements, bytes and compression ratio of the formats"),
    "plots": ("convolution.plots", "figures from the results of conv, conv --paper and memory"),
    "networks": ("networks.networks", "whole networks compiled, against the tuned runtimes"),
    "load": ("networks.load", "compiled networks from a file to the first answer"),
    "precision": (
        "networks.precision",
        "whole networks at ieee, tf32 and bf16, against bf16 peers",
    ),
    "train": ("networks.train", "one optimisation step with zeros skipped, against torch"),
    "sparsity": (
        "networks.sparsity",
        "more zeros on purpose: accuracy against density against time",
    ),
    "jpeg": ("jpeg.jpeg", "the JPEG layer against other differentiable JPEGs"),
    "rate": ("jpeg.rate", "bits: estimate against real files, trained tables against libjpeg's"),
    "accuracy": (
        "jpeg.training.accuracy",
        "standard training against JPEG-DL on small image sets",
    ),
    "robustness": (
        "jpeg.protocol.robustness",
        "the JPEG-DL paper's claim on pretrained networks, its attacks and stronger ones",
    ),
    "robustness_small": (
        "jpeg.training.robustness_small",
        "the networks of accuracy under attack, through the JPEG layer and past it",
    ),
    "dct_input": (
        "jpeg.dct_input",
        "quantised DCT coefficients of real files as a network's input, against pixels",
    ),
}
SHARED = ("accuracy", "rate")  # these share their work under torchrun


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in BENCHMARKS:
        wanted = bool(arguments) and arguments[0] not in ("-h", "--help")
        print(f"no benchmark {arguments[0]!r}" if wanted else __doc__)
        print("\n".join(f"  {name:16} {text}" for name, (_, text) in BENCHMARKS.items()))
        return 2 if wanted else 0
    name, *rest = arguments
    module, _ = BENCHMARKS[name]
    with processes.joined():
        if name not in SHARED and processes.place()[1] > 1:
            print(f"{name} runs in one process; under torchrun go {', '.join(SHARED)}")
            return 2
        importlib.import_module(f"benchmarks.{module}").main(rest)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
