"""Bounds on the errors of executors, a file for each way to run."""

from linrec.testing.bounds.executors import Bounds as Bounds
from linrec.testing.bounds.executors import an_executor as an_executor
from linrec.testing.bounds.executors import error_bound as error_bound
