"""Define a linear recurrence once; run it any way; get the same answer."""

from linrec import lengths as lengths
from linrec import memories as memories
from linrec import nn as nn
from linrec._tensors.reused_memory import reuse_memory as reuse_memory
from linrec.certificate import Certificate as Certificate
from linrec.certificate import certify as certify
from linrec.composition import feedback as feedback
from linrec.composition import parallel as parallel
from linrec.composition import series as series
from linrec.coordinates import BalancedRealization as BalancedRealization
from linrec.coordinates import Coordinates as Coordinates
from linrec.coordinates import balanced_realization as balanced_realization
from linrec.coordinates import contracting_coordinates as contracting_coordinates
from linrec.coordinates import similarity_transform as similarity_transform
from linrec.discretization import discretize as discretize
from linrec.executors import AssociativeScan as AssociativeScan
from linrec.executors import Chunked as Chunked
from linrec.executors import Cost as Cost
from linrec.executors import Executor as Executor
from linrec.executors import FFTConvolution as FFTConvolution
from linrec.executors import Plan as Plan
from linrec.executors import Recurrent as Recurrent
from linrec.executors import Result as Result
from linrec.executors import Toeplitz as Toeplitz
from linrec.executors import Workload as Workload
from linrec.log_weights import rescale_weights as rescale_weights
from linrec.packed import run_packed as run_packed
from linrec.planner import Auto as Auto
from linrec.planner import explain as explain
from linrec.real_part import real_part as real_part
from linrec.resets import resets_at as resets_at
from linrec.resets import resets_between as resets_between
from linrec.resets import with_resets as with_resets
from linrec.response import adjoint as adjoint
from linrec.response import frequency_response as frequency_response
from linrec.response import impulse_response as impulse_response
from linrec.response import poles as poles
from linrec.response import step_response as step_response
from linrec.run import final as final
from linrec.run import run as run
from linrec.run import step as step
from linrec.scan import linear_scan as linear_scan
from linrec.stream import Stream as Stream
from linrec.structures import BlockDiagonal as BlockDiagonal
from linrec.structures import Companion as Companion
from linrec.structures import Dense as Dense
from linrec.structures import Diagonal as Diagonal
from linrec.structures import DiagonalPlusLowRank as DiagonalPlusLowRank
from linrec.structures import Structure as Structure
from linrec.systems import LinearRecurrence as LinearRecurrence
from linrec.systems import StateSpace as StateSpace
from linrec.systems import Varying as Varying

__all__ = [
    "AssociativeScan",
    "Auto",
    "BlockDiagonal",
    "Chunked",
    "Companion",
    "Dense",
    "Diagonal",
    "DiagonalPlusLowRank",
    "Executor",
    "FFTConvolution",
    "LinearRecurrence",
    "Recurrent",
    "Result",
    "StateSpace",
    "Stream",
    "Structure",
    "Toeplitz",
    "Varying",
    "adjoint",
    "certify",
    "discretize",
    "explain",
    "feedback",
    "final",
    "frequency_response",
    "impulse_response",
    "linear_scan",
    "parallel",
    "poles",
    "reuse_memory",
    "run",
    "run_packed",
    "series",
    "step",
    "step_response",
]


def __getattr__(name: str) -> object:
    """Import rarely needed modules on first use."""
    import importlib

    if name in ("export", "interop", "signal", "symbolic", "testing"):
        return importlib.import_module(f"linrec.{name}")
    raise AttributeError(f"module 'linrec' has no attribute {name!r}")
