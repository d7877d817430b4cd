"""The papers' tables with our recorded results in them."""

from lmu.experiments.tables.page import fill_page_tables as fill_page_tables
from lmu.experiments.tables.results import Results as Results
from lmu.experiments.tables.results import read_records as read_records
from lmu.experiments.tables.results import result_tables as result_tables
from lmu.experiments.tables.speedups import read_measured as read_measured
from lmu.experiments.tables.speedups import speedup_tables as speedup_tables
