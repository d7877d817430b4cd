"""Kernels for devices, with what stands for them elsewhere: they need nothing of linrec."""

from linrec.kernels.elementwise import HAS_TRITON as HAS_TRITON
from linrec.kernels.elementwise import elementwise_gradients as elementwise_gradients
from linrec.kernels.elementwise import elementwise_scan as elementwise_scan
from linrec.kernels.elementwise import serves as serves
