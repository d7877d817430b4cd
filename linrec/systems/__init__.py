"""The two kinds of system that users define: linear recurrences and continuous-time systems."""

from linrec.systems.checks import check_invariant as check_invariant
from linrec.systems.checks import require_recurrence as require_recurrence
from linrec.systems.checks import require_system as require_system
from linrec.systems.linear_recurrence import LinearRecurrence as LinearRecurrence
from linrec.systems.state_space import StateSpace as StateSpace
from linrec.systems.varying import Varying as Varying
