"""Export of recurrences and modules: as programs of torch, models of ONNX, and C."""

from linrec.export.c import to_c as to_c
from linrec.export.comparison import ExportReport as ExportReport
from linrec.export.comparison import assure as assure
from linrec.export.comparison import compare as compare
from linrec.export.forms import Form as Form
from linrec.export.onnx import to_onnx as to_onnx
from linrec.export.package import to_package as to_package
from linrec.export.program import to_program as to_program
from linrec.export.quantize import QuantizedRecurrence as QuantizedRecurrence
from linrec.export.quantize import quantize as quantize
from linrec.export.quantize_weights import HalfRecurrence as HalfRecurrence
from linrec.export.quantize_weights import quantize_weights as quantize_weights
from linrec.export.writing import Format as Format
from linrec.export.writing import States as States
from linrec.export.writing import Weights as Weights
from linrec.export.writing import exported as exported

__all__ = [
    "compare",
    "quantize",
    "quantize_weights",
    "to_c",
    "to_onnx",
    "to_package",
    "to_program",
]

network_to_c = to_c_integers = to_c_halves = to_c  # the earlier names of its parts
