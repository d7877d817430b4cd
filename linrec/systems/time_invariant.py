"""The check of functions that accept only time-invariant systems."""

from linrec.systems.linear_recurrence import LinearRecurrence
from linrec.systems.state_space import StateSpace


def check_invariant(system: LinearRecurrence | StateSpace, what: str) -> None:
    """Refuse a time-varying recurrence."""
    if isinstance(system, LinearRecurrence) and system.time_varying:
        raise ValueError(
            f"`{what}` got a time-varying recurrence, which is another system at every step: "
            "expected a time-invariant one. Pass one step of it, `recurrence.at(step)`."
        )
