"""Benchmarks of the executors against the machine's limits and other libraries."""

from linrec.benchmark.calibration import measure_rates as measure_rates
from linrec.benchmark.calibration import store_rates as store_rates
from linrec.benchmark.cases import CASES as CASES
from linrec.benchmark.cases import Case as Case
from linrec.benchmark.peak_memory import peak_bytes as peak_bytes
from linrec.benchmark.regret import Regret as Regret
from linrec.benchmark.timing import medians as medians
