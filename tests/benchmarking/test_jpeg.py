"""`jpeg` times every operator."""

from benchmarks.jpeg import jpeg


def test_jpeg_times_every_operator(run):
    rows = run("jpeg")["jpeg"]["rows"]
    timed = {row["operator"] for row in rows if "pass" in row}
    assert {"jsc, exact", jpeg.AUTHORS, "x.clone()"} <= timed
