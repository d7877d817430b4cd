"""Checks of arguments that should be systems."""

from linrec.systems.linear_recurrence import LinearRecurrence
from linrec.systems.state_space import StateSpace

OF_OTHERS = (
    "Of a module, call it or pass its `recurrence`; of matrices, `LinearRecurrence(A, B, C, D)`."
)


def require_recurrence(recurrence: object, name: str = "recurrence") -> None:
    """Refuse anything but a LinearRecurrence; of a StateSpace the numbers would be wrong."""
    if not isinstance(recurrence, LinearRecurrence):
        raise TypeError(
            f"`{name}` is of type {type(recurrence).__name__}: expected a LinearRecurrence. Of a "
            f"StateSpace, pass `discretize(system, dt)`. {OF_OTHERS}"
        )


def require_system(system: object, name: str = "system") -> None:
    """Refuse anything but a LinearRecurrence or a StateSpace."""
    if not isinstance(system, LinearRecurrence | StateSpace):
        raise TypeError(
            f"`{name}` is of type {type(system).__name__}: expected a LinearRecurrence or a "
            f"StateSpace. {OF_OTHERS}"
        )


def check_invariant(system: LinearRecurrence | StateSpace, what: str) -> None:
    """Refuse time-varying recurrences, and anything that is not a system."""
    require_system(system)
    if isinstance(system, LinearRecurrence) and system.time_varying:
        raise ValueError(
            f"`{what}` got a time-varying recurrence, which is another system at every step: "
            "expected a time-invariant one. Pass one step of it, `recurrence.at(step)`."
        )
