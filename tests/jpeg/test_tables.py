"""Tables against libjpeg (through Pillow)."""

import io

import pytest
import torch

import jsc
from jsc.jpeg.tables import ZIGZAG


def test_quality_tables_are_libjpegs():
    image = pytest.importorskip("PIL.Image")
    for quality in range(1, 101):
        file = io.BytesIO()
        image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
        file.seek(0)
        written = image.open(file).quantization  # natural order since Pillow 8.3
        found = jsc.jpeg.quality_tables(quality)
        assert found.flatten(1).tolist() == [list(written[0]), list(written[1])], quality
        layer = jsc.nn.JPEG.from_quality(quality)
        assert torch.equal(layer.tables, found)
        assert torch.equal(layer.quant_tables(), found.long())


def test_zigzag():
    assert ZIGZAG[:10] == (0, 1, 8, 16, 9, 2, 3, 10, 17, 24)
    assert sorted(ZIGZAG) == list(range(64))
    tables = torch.arange(128).view(2, 8, 8)
    assert torch.equal(jsc.jpeg.from_zigzag(jsc.jpeg.to_zigzag(tables)), tables)
    with pytest.raises(ValueError, match="8, 8"):
        jsc.jpeg.to_zigzag(torch.zeros(64))
    with pytest.raises(ValueError, match="64"):
        jsc.jpeg.from_zigzag(torch.zeros(63))
