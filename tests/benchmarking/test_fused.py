"""`fused` runs, and has layers and networks."""


def test_fused_times_layers_and_networks(run):
    found = run("fused")["fused"]
    assert all(row["fused ms"] > 0 for row in found["layers"])
    assert [row["network"] for row in found["networks"]] == ["small ResNet"]
