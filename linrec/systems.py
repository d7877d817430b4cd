"""The two values that a user writes down: a linear recurrence, and a continuous-time system."""

from linrec.linear_recurrence import LinearRecurrence as LinearRecurrence
from linrec.state_space import StateSpace as StateSpace
from linrec.varying import Varying as Varying


def check_invariant(system: LinearRecurrence | StateSpace, what: str) -> None:
    """Refuse a time-varying recurrence."""
    if isinstance(system, LinearRecurrence) and system.time_varying:
        raise ValueError(
            f"`{what}` got a time-varying recurrence, which is another system at every step: "
            "expected a time-invariant one. Pass one step of it, `recurrence.at(step)`."
        )
