"""The two kinds of system that users define: linear recurrences and continuous-time systems."""

from linrec.systems.linear_recurrence import LinearRecurrence as LinearRecurrence
from linrec.systems.state_space import StateSpace as StateSpace
from linrec.systems.time_invariant import check_invariant as check_invariant
from linrec.systems.varying import Varying as Varying
