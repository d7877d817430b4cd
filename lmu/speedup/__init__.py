"""The speed-up of parallel training: the time of one epoch, step by step and all at once."""

from lmu.speedup.cases import CASES as CASES
from lmu.speedup.cases import LENGTHS as LENGTHS
from lmu.speedup.cases import Case as Case
from lmu.speedup.cases import Way as Way
from lmu.speedup.cases import over_length as over_length
from lmu.speedup.timing import Speedups as Speedups
from lmu.speedup.timing import Timing as Timing
from lmu.speedup.timing import measure as measure
