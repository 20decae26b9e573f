"""Networks and images of a data folder: modules and preprocessing are those described there."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import __main__ as command_line
from benchmarks.inputs import images, networks

W = {
    "first.w": torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1)),
    "first.b": torch.tensor([0.1, -0.2, 0.3, -0.4]),
    "second.w": torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(2)),
    "bn.weight": torch.tensor([1.0, 0.5, 2.0, 1.5]),
    "bn.bias": torch.tensor([0.0, 1.0, -1.0, 0.5]),
    "bn.running_mean": torch.tensor([0.5, 0.0, -0.5, 1.0]),
    "bn.running_var": torch.tensor([1.0, 4.0, 0.25, 2.0]),
    "fc.w": torch.randn(5, 10, generator=torch.Generator().manual_seed(3)),
}
NODES = [
    # name, op, inputs, the rest
    ("stage.first/3x3", "conv", ["data"],
     {"w": "first.w", "b": "first.b", "k": [3, 3], "s": [2, 2], "p": [0, 0, 1, 1]}),
    ("first/relu", "relu", ["stage.first/3x3"], {}),
    ("stage.second", "conv", ["first/relu"],
     {"w": "second.w", "k": [3, 3], "s": [1, 1], "p": [1, 1, 1, 1]}),
    ("bn", "bn", ["stage.second"], {"prefix": "bn", "eps": 1e-5}),
    ("sum", "add", ["bn", "first/relu"], {}),
    ("both", "concat", ["sum", "first/relu"], {}),
    ("pool", "maxpool", ["both"], {"k": [3, 3], "s": [2, 2], "p": [0, 0, 0, 0], "ceil": True}),
    ("shortcut", "shortcutA", ["pool"], {"pad": [1, 1]}),
    ("mean", "gap", ["shortcut"], {}),
    ("fc", "linear", ["mean"], {"w": "fc.w"}),
]  # fmt: skip
RECIPE = {
    "order": "BGR", "scale": "x/255", "mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 4.0],
    "size": [32, 32],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A data folder with one small network and two small images."""
    from safetensors.torch import save_file

    (tmp_path / "weights").mkdir()
    (tmp_path / "images").mkdir()
    nodes = [{"name": n, "op": op, "in": inputs, **more} for n, op, inputs, more in NODES]
    graph = {"input": [3, 32, 32], "preprocess": RECIPE, "nodes": nodes, "output": "fc"}
    (tmp_path / "weights" / "tiny.json").write_text(json.dumps(graph))
    save_file(W, tmp_path / "weights" / "tiny.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    arrays = {"x_test": pixels, "y_test": np.array([3, 4])}
    np.savez(tmp_path / "images" / "cifar10_lossless.npz", **arrays)
    return tmp_path


def test_a_graph_becomes_plain_modules(folder):
    assert networks.names(folder) == ["tiny"]
    network = networks.load(folder, "tiny")
    x = network.batch(folder, 2)

    first = F.conv2d(F.pad(x, (0, 1, 0, 1)), W["first.w"], W["first.b"], 2).relu()
    norm = [W[f"bn.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
    both = torch.cat(
        (F.batch_norm(F.conv2d(first, W["second.w"], padding=1), *norm) + first, first), 1
    )
    pool = F.max_pool2d(F.pad(both, (0, 1, 0, 1), value=-torch.inf), 3, 2)  # 16 to 8: Caffe's ceil
    mean = F.pad(pool[:, :, ::2, ::2].mean((2, 3)), (1, 1))
    torch.testing.assert_close(network.model(x), F.linear(mean, W["fc.w"]))

    convs = [name for name, m in network.model.named_modules() if type(m) is nn.Conv2d]
    assert convs == ["stage.first_3x3", "stage.second"]
    inputs = networks.conv_inputs(network.model, x)
    assert inputs["stage.first_3x3"].shape == (2, 3, 33, 33)  # uneven padding is a module before it
    torch.testing.assert_close(inputs["stage.second"], first)
    traced = torch.fx.symbolic_trace(network.model)
    assert traced(x).equal(network.model(x))


def test_preprocessing_is_that_of_the_recipe(folder):
    image = images.ImageSet(folder / "images" / "cifar10_lossless.npz")[1]
    x = images.preprocess(image, RECIPE)
    blue, red = image[5, 7, 2] / 255, image[5, 7, 0] / 255
    assert x[0, 5, 7].item() == pytest.approx(blue - 0.1, abs=1e-6)
    assert x[2, 5, 7].item() == pytest.approx((red - 0.3) / 4, abs=1e-6)


@pytest.mark.parametrize(("size", "shown"), [(224, 224), (227, 227), (192, 192), (299, 299)])
def test_large_images_are_cropped_at_the_centre(size, shown):
    pytest.importorskip("PIL")
    image = np.zeros((256, 256, 3), np.uint8)
    image[127:129, 127:129] = 255
    recipe = {**RECIPE, "scale": "none", "mean": [0, 0, 0], "std": [1, 1, 1], "size": [size, size]}
    x = images.preprocess(image, recipe)
    assert x.shape == (3, shown, shown)
    bright = (x[0] > 128).nonzero().double().mean(0)
    assert (bright - (size - 1) / 2).abs().max() <= 0.5


def test_encoded_image_sets_are_decoded(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(1).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    files = []
    for picture in pixels:
        image_module.fromarray(picture).save(tmp_path / "one.png")
        files.append((tmp_path / "one.png").read_bytes())
    np.savez(
        tmp_path / "set.npz", data=np.frombuffer(b"".join(files), np.uint8),
        offsets=np.cumsum([0, *map(len, files)]), labels=np.array([5, 6, 7]),
        split=np.array([0, 1, 1]), header=np.zeros(0, np.uint8),
    )  # fmt: skip
    found = images.ImageSet(tmp_path / "set.npz")
    assert found.labels.tolist() == [6, 7]
    assert np.array_equal(found[1], pixels[2])


def test_every_convolution_of_a_network_is_timed(tmp_path, folder):
    where = ["--data", str(folder), "--out", str(tmp_path)]
    assert command_line.main(["conv", "--quick", "--no-random", "--threads", "1", *where]) == 0
    found = json.loads((tmp_path / "conv.json").read_text())
    assert {row["name"] for row in found["rows"]} == {"stage.first_3x3", "stage.second"}
    assert found["networks"][0]["convolutions"] == 2


def test_the_papers_page_takes_other_networks_too(tmp_path, folder):
    given = ["conv", "--paper", "--quick", "--no-random", "--threads", "1", "--data", str(folder)]
    assert command_line.main([*given, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "paper.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["stage.first_3x3", "stage.second"]
    assert [row["stride"] for row in found["rows"]] == [2, 1]
    assert found["networks"][0]["network"] == "tiny"


def test_unknown_nodes_are_named():
    graph = {"nodes": [{"name": "x", "op": "warp", "in": ["data"]}], "output": "x"}
    with pytest.raises(ValueError, match="warp"):
        networks.build(graph, {})


def test_smooth_images_have_their_size_and_range():
    x = images.smooth(2, 48)
    assert x.shape == (2, 3, 48, 48)
    assert 0.5 < x.abs().max() <= 1


DATA = os.environ.get("JSC_DATA")


@pytest.mark.data
@pytest.mark.skipif(not DATA, reason="JSC_DATA is not set")
def test_trained_networks_keep_their_accuracy():
    """Top-1 over the images accuracy.json was measured on, all of them for the small sets."""
    folder = Path(DATA)
    known = json.loads((folder / "accuracy.json").read_text())
    for name in networks.names(folder):
        if name not in known:
            continue
        network = networks.load(folder, name)
        photos = network.images(folder)
        right = 0
        with torch.inference_mode():
            for start in range(0, known[name]["n"], 50):
                batch = range(start, start + 50)
                x = torch.stack([images.preprocess(photos[i], network.recipe) for i in batch])
                classes = network.model(x).argmax(1).numpy() - network.first_class
                right += (classes == photos.labels[start : start + 50]).sum()
        assert abs(right / known[name]["n"] - known[name]["top1"]) <= 0.005, name
