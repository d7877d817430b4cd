"""Linear systems of sympy expressions: derived from equations, analysed, bound to numbers."""

from linrec.symbolic.composition import parallel as parallel
from linrec.symbolic.composition import series as series
from linrec.symbolic.equations import from_equations as from_equations
from linrec.symbolic.parameters import Bounded as Bounded
from linrec.symbolic.polynomials import NoClosedForm as NoClosedForm
from linrec.symbolic.recurrence import LinearRecurrence as LinearRecurrence
from linrec.symbolic.state_space import Discretized as Discretized
from linrec.symbolic.state_space import StateSpace as StateSpace

__all__ = [
    "Bounded",
    "LinearRecurrence",
    "StateSpace",
    "from_equations",
    "parallel",
    "series",
]
