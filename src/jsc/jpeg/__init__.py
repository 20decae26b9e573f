"""What surrounds the JPEG layer: standard tables, and where trained ones start from."""

from jsc.jpeg.sensitivity import mean_absolute as mean_absolute
from jsc.jpeg.sensitivity import sensitivity as sensitivity
from jsc.jpeg.tables import from_zigzag as from_zigzag
from jsc.jpeg.tables import quality_tables as quality_tables
from jsc.jpeg.tables import to_zigzag as to_zigzag
