"""`jpeg` times every operator."""

from benchmarks.jpeg import jpeg


def test_jpeg_times_every_operator(run):
    data = run("jpeg")["jpeg"]
    rows = data["rows"]
    assert all(row["default, ms"] > 0 and row["kept, ms"] > 0 for row in data["kept"])
    timed = {row["operator"] for row in rows if "pass" in row}
    assert {"jsc, exact", jpeg.AUTHORS, "x.clone()"} <= timed
