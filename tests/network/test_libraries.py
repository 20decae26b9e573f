"""Networks of timm and transformers with random weights, compiled; skipped where one is missing."""

import pytest
import torch

import jsc

pytestmark = pytest.mark.filterwarnings("ignore")  # their own deprecations


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "convnext_atto"])
def test_a_network_of_timm(name, tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model, x = timm.create_model(name, pretrained=False).eval(), torch.rand(2, 3, 64, 64)
    net = jsc.compile(model, x, budget=0.0)
    with torch.inference_mode():
        found, expected = net(x), model(x)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.abs().max().item())
        net.save(tmp_path / "net.jsc")
        assert torch.equal(jsc.load(tmp_path / "net.jsc")(x), found)


def test_tune_of_a_network_of_timm():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model, x = timm.create_model("resnet10t", pretrained=False).eval(), torch.rand(1, 3, 32, 32)
    plan = jsc.tune(model, x, budget_s=1.0, progress=False)
    fast = jsc.apply(model, plan.override({"layer1.0.conv2": "cpc"}))
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), model(x), rtol=1e-3, atol=1e-4)


def networks(transformers):
    resnet = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
    )
    vit = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        image_size=32, patch_size=8, num_labels=3,
    )  # fmt: skip
    return {
        "resnet": transformers.ResNetForImageClassification(resnet),
        "vit": transformers.ViTForImageClassification(vit),
    }


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_a_network_of_transformers(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model, x = networks(transformers)[name].eval(), torch.rand(2, 3, 32, 32)
    net = jsc.compile(model, {"pixel_values": x}, budget=0.0)
    net.save(tmp_path / "net.jsc")
    with torch.inference_mode():
        found, expected = net(pixel_values=x), model(pixel_values=x)
        assert type(found) is type(expected)
        torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
        again = jsc.load(tmp_path / "net.jsc")(pixel_values=x)
        assert torch.equal(again.logits, found.logits)
