"""`python -m benchmarks NAME [options]`: run one benchmark; `NAME --help` shows its options."""

import importlib
import sys

NAMES = {
    "conv": "sparse convolutions against dense torch, layer by layer",
    "fused": "CPC layers with what follows them in one pass, and whole networks",
    "bounds": "where the time of the CPC convolution goes, by experiment",
    "memory": "elements, bytes and compression ratio of the formats",
    "train": "one optimisation step with zeros skipped, against torch",
    "jpeg": "the JPEG layer against other differentiable JPEGs",
    "rate": "bits: estimate against real files, trained tables against libjpeg's",
    "accuracy": "standard training against JPEG-DL on small image sets",
    "robustness": "the networks of accuracy under attack, through the JPEG layer and past it",
    "plots": "figures from the results of conv, conv --paper and memory",
}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in NAMES:
        wanted = bool(arguments) and arguments[0] not in ("-h", "--help")
        print(f"no benchmark {arguments[0]!r}" if wanted else __doc__)
        print("\n".join(f"  {name:10} {text}" for name, text in NAMES.items()))
        return 2 if wanted else 0
    name, *rest = arguments
    importlib.import_module(f"benchmarks.{name}").main(rest)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
