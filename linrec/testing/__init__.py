"""The test kit: an exact reference, error bounds, and searches for disagreement."""

from linrec.testing.bounds import error_bound as error_bound
from linrec.testing.check import EXECUTORS as EXECUTORS
from linrec.testing.check import check_case as check_case
from linrec.testing.check import check_executor as check_executor
from linrec.testing.check import check_recurrence as check_recurrence
from linrec.testing.check import check_structure as check_structure
from linrec.testing.engineers_systems import engineering_systems as engineering_systems
from linrec.testing.modules import check_module as check_module
from linrec.testing.reference import exact_reference as exact_reference
from linrec.testing.report import Disagreement as Disagreement
from linrec.testing.report import Report as Report
from linrec.testing.strategies import initial_states_for as initial_states_for
from linrec.testing.strategies import inputs_for as inputs_for
from linrec.testing.strategies import lengths as lengths
from linrec.testing.strategies import recurrences as recurrences
from linrec.testing.strategies import structures as structures
from linrec.testing.strategies import tensors as tensors
from linrec.testing.strategies import transitions as transitions

__all__ = [
    "check_executor",
    "check_module",
    "check_recurrence",
    "check_structure",
    "error_bound",
    "exact_reference",
    "inputs_for",
    "recurrences",
    "structures",
]
