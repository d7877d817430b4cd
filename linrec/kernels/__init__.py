"""Kernels, and fallbacks for machines without them, independent of the rest of linrec."""

from linrec.kernels.cpu_loops import convolutions_for as convolutions_for
from linrec.kernels.cpu_loops import convolves as convolves
from linrec.kernels.cpu_loops import halves_for as halves_for
from linrec.kernels.cpu_loops import has_loops as has_loops
from linrec.kernels.cpu_loops import loops_for as loops_for
from linrec.kernels.cpu_loops import versions_of_loops as versions_of_loops
from linrec.kernels.elementwise import HAS_TRITON as HAS_TRITON
from linrec.kernels.elementwise import elementwise_gradients as elementwise_gradients
from linrec.kernels.elementwise import elementwise_scan as elementwise_scan
from linrec.kernels.elementwise import serves as serves
