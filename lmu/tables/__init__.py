"""The papers' tables with our recorded results beside them."""

from lmu.tables.page import written_into as written_into
from lmu.tables.results import Results as Results
from lmu.tables.results import recorded as recorded
from lmu.tables.results import result_tables as result_tables
from lmu.tables.speedups import measured as measured
from lmu.tables.speedups import speedup_tables as speedup_tables
from lmu.tables.table import Table as Table
from lmu.tables.table import show as show
