"""Error bounds of executors: the loop, the others, and long and steady runs."""

from linrec.testing.bounds.error_bound import Bounds as Bounds
from linrec.testing.bounds.error_bound import an_executor as an_executor
from linrec.testing.bounds.error_bound import error_bound as error_bound
