"""The papers' tables with our recorded results beside them."""

from lmu.experiments.tables.page import written_into as written_into
from lmu.experiments.tables.results import Results as Results
from lmu.experiments.tables.results import recorded as recorded
from lmu.experiments.tables.results import result_tables as result_tables
from lmu.experiments.tables.speedups import measured as measured
from lmu.experiments.tables.speedups import speedup_tables as speedup_tables
