"""The speed-up of parallel training: the time of one epoch, step by step and all at once."""

from lmu.experiments.speedup.cases import CASES as CASES
from lmu.experiments.speedup.cases import LENGTHS as LENGTHS
from lmu.experiments.speedup.cases import Case as Case
from lmu.experiments.speedup.cases import Way as Way
from lmu.experiments.speedup.cases import over_length as over_length
from lmu.experiments.speedup.timing import Speedups as Speedups
from lmu.experiments.speedup.timing import Timing as Timing
from lmu.experiments.speedup.timing import measure as measure
