"""Around the JPEG layer: standard tables, where trained ones start, real files."""

from jsc.jpeg.callbacks import lightning_callback as lightning_callback
from jsc.jpeg.callbacks import log_tables as log_tables
from jsc.jpeg.callbacks import trainer_callback as trainer_callback
from jsc.jpeg.decoded import decoded as decoded
from jsc.jpeg.files import load as load
from jsc.jpeg.files import read_tables as read_tables
from jsc.jpeg.files import save as save
from jsc.jpeg.groups import param_groups as param_groups
from jsc.jpeg.plots import plot_tables as plot_tables
from jsc.jpeg.sensitivity import mean_absolute as mean_absolute
from jsc.jpeg.sensitivity import sensitivity as sensitivity
from jsc.jpeg.tables import from_zigzag as from_zigzag
from jsc.jpeg.tables import quality_tables as quality_tables
from jsc.jpeg.tables import to_zigzag as to_zigzag
