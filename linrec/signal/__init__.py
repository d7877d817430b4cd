"""Filters with the signatures of scipy.signal, differentiable in all their arguments."""

from linrec.signal.delays import lfilter_zi as lfilter_zi
from linrec.signal.delays import lfiltic as lfiltic
from linrec.signal.delays import sosfilt_zi as sosfilt_zi
from linrec.signal.filters import lfilter as lfilter
from linrec.signal.filters import sosfilt as sosfilt

__all__ = [
    "lfilter",
    "lfilter_zi",
    "lfiltic",
    "sosfilt",
    "sosfilt_zi",
]
