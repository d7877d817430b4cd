"""From difference equations to a recurrence: the choice of states, and their updates.

Every equation is shifted in time until its newest unknown is at time t, and the equations are
solved for these unknowns. Then x_i(t) is a sum of older unknowns x_j(t - k), k ≥ 1, and of inputs
u_j(t - k). The state may contain any values that inputs up to u(t) determine: unknown i is held at
t + a_i, its *anchor*, together with as many older values as the equations refer to.
"""

# sympy's annotations are narrower, or wider, than its behaviour.
# pyright: reportOperatorIssue=false

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy
from sympy.core.function import UndefinedFunction

from linrec.symbolic.matrices import Matrix
from linrec.symbolic.polynomials import inverse
from linrec.symbolic.recurrence import LinearRecurrence
from linrec.symbolic.signals import LinearForm, Signal

Rows = dict[UndefinedFunction, dict[Signal, sympy.Expr]]
Anchors = dict[UndefinedFunction, int]


def recurrence(
    equations: Sequence[LinearForm],
    unknowns: Sequence[UndefinedFunction],
    inputs: Sequence[UndefinedFunction],
    outputs: Sequence[LinearForm],
    time: sympy.Symbol,
) -> LinearRecurrence:
    """Make the recurrence that difference equations describe.

    Args:
        equations: as many linear forms as there are unknowns; each of them is zero.
        unknowns: the functions that the equations determine.
        inputs: the given functions.
        outputs: a linear form for each output.
        time: the symbol of time.

    Returns:
        The recurrence; its outputs at step t are the forms at time t.

    Raises:
        ValueError: the equations determine nothing, or an output depends on future inputs.
    """
    rows = solve(equations, unknowns, time)
    newest = find_newest(rows, inputs)
    check_known(rows, newest, outputs, time)
    anchors = choose_anchors(rows, newest, outputs)
    updates = anchor(rows, anchors, time)
    return assemble(updates, anchors, inputs, outputs, time)


def shift_form(form: LinearForm, shift: int, time: sympy.Symbol) -> dict[Signal, sympy.Expr]:
    """Shift a form in time."""
    return {
        Signal(signal.function, signal.shift + shift): coefficient.subs(time, time + shift)
        for signal, coefficient in form.items()
    }


def combine(parts: Sequence[tuple[sympy.Expr, LinearForm]]) -> dict[Signal, sympy.Expr]:
    """Add forms, each times a factor."""
    total: dict[Signal, sympy.Expr] = {}
    for factor, form in parts:
        for signal, coefficient in form.items():
            total[signal] = total.get(signal, sympy.Integer(0)) + factor * coefficient
    lowest = {signal: sympy.cancel(value) for signal, value in total.items()}
    return {signal: value for signal, value in lowest.items() if value != 0}


def solve(
    equations: Sequence[LinearForm], unknowns: Sequence[UndefinedFunction], time: sympy.Symbol
) -> Rows:
    """Solve for the unknowns at t in terms of older values and inputs."""
    aligned = []
    for form in equations:
        shifts = [signal.shift for signal in form if signal.function in unknowns]
        if not shifts:
            raise ValueError(
                "An equation has inputs only: expected one that determines an unknown."
            )
        aligned.append(shift_form(form, -max(shifts), time))
    leading = sympy.Matrix(
        len(aligned), len(unknowns), lambda i, j: aligned[i].get(Signal(unknowns[j]), 0)
    )
    inverted = inverse(leading) if leading.rows == leading.cols else None
    if inverted is None:
        names = ", ".join(f"{unknown}({time})" for unknown in unknowns)
        raise ValueError(
            f"The equations cannot be solved for {names} with older values and inputs: expected "
            "as many independent equations, each of them moved to its newest values."
        )
    now = {Signal(unknown) for unknown in unknowns}
    older = [{s: c for s, c in form.items() if s not in now} for form in aligned]
    return {
        unknown: combine([(-inverted[i, j], form) for j, form in enumerate(older)])
        for i, unknown in enumerate(unknowns)
    }


def find_newest(rows: Rows, inputs: Sequence[UndefinedFunction]) -> Anchors:
    """Find the largest shift at which u(t) determines each unknown; omitted ones have no limit."""
    newest: Anchors = {}
    for _ in range(len(rows) + 1):
        for unknown, row in rows.items():
            limits = [
                -signal.shift + (0 if signal.function in inputs else newest[signal.function])
                for signal in row
                if signal.function in inputs or signal.function in newest
            ]
            if limits:
                newest[unknown] = min(limits)
    return newest


def check_known(
    rows: Rows, newest: Anchors, outputs: Sequence[LinearForm], time: sympy.Symbol
) -> None:
    """Refuse outputs that depend on future inputs."""
    for form in outputs:
        for signal in form:
            latest = newest.get(signal.function, signal.shift) if signal.function in rows else 0
            if signal.shift > latest:
                raise ValueError(
                    f"The output `{signal.at(time)}` depends on inputs after {time}: expected "
                    f"`{Signal(signal.function, latest).at(time)}` or an older one."
                )


def choose_anchors(rows: Rows, newest: Anchors, outputs: Sequence[LinearForm]) -> Anchors:
    """Anchor each unknown at the newest time an output reads, else at the newest known.

    If outputs read x(t) although x(t + 1) is known, the state holds x(t) and the inputs: one state
    per input is fewer than one per unknown.
    """
    anchors: Anchors = {}
    for signal in (signal for form in outputs for signal in form if signal.function in rows):
        anchors[signal.function] = max(signal.shift, anchors.get(signal.function, signal.shift))
    anchors = newest | anchors
    # The values that an anchored one is computed from have to be held too, at that time or later.
    for _ in rows:
        for unknown in [unknown for unknown in rows if unknown in anchors]:
            for signal in (signal for signal in rows[unknown] if signal.function in rows):
                needed = anchors[unknown] + signal.shift
                anchors[signal.function] = max(needed, anchors.get(signal.function, needed))
    return {unknown: anchors.get(unknown, 0) for unknown in rows}


def anchor(rows: Rows, anchors: Anchors, time: sympy.Symbol) -> Rows:
    """Write each unknown at its anchor in terms of anchored unknowns of earlier steps.

    Shifts are relative to the anchor from here on: Signal(x, -1) is x one step before its anchor.
    """
    updates: Rows = {}
    for unknown in sorted(rows, key=lambda unknown: anchors[unknown]):
        parts: list[tuple[sympy.Expr, LinearForm]] = []
        for signal, coefficient in shift_form(rows[unknown], anchors[unknown], time).items():
            counted = Signal(signal.function, signal.shift - anchors.get(signal.function, 0))
            # A signal of the same step has a smaller anchor, and was written before.
            same_step = counted.shift == 0 and signal.function in rows
            meant = updates[signal.function] if same_step else {counted: sympy.Integer(1)}
            parts.append((coefficient, meant))
        updates[unknown] = combine(parts)
    return {unknown: updates[unknown] for unknown in rows}


@dataclass(frozen=True)
class StateLayout:
    """The order of the states: for each signal, its values at this and at earlier steps."""

    depths: Mapping[UndefinedFunction, int]

    def index(self) -> dict[Signal, int]:
        """Number the states; Signal(x, -1) is x one step ago."""
        held = [Signal(name, -age) for name, depth in self.depths.items() for age in range(depth)]
        return {signal: place for place, signal in enumerate(held)}


def assemble(
    updates: Rows,
    anchors: Anchors,
    inputs: Sequence[UndefinedFunction],
    outputs: Sequence[LinearForm],
    time: sympy.Symbol,
) -> LinearRecurrence:
    """Write the matrices."""
    read = [
        {Signal(s.function, s.shift - anchors.get(s.function, 0)): c for s, c in form.items()}
        for form in outputs
    ]
    depths = dict.fromkeys([*updates, *inputs], 0)
    for row in updates.values():
        for signal in row:  # needed from the previous step
            depths[signal.function] = max(depths[signal.function], -signal.shift)
    for form in read:
        for signal in form:  # needed from this step
            through = signal.function in inputs and signal.shift == 0
            depth = 0 if through else 1 - signal.shift
            depths[signal.function] = max(depths[signal.function], depth)
    states = StateLayout(depths).index()
    n, m = max(len(states), 1), len(inputs)  # a gain needs no state, but a system must have one
    A, B = sympy.zeros(n, n), sympy.zeros(n, m)
    C, D = sympy.zeros(len(read), n), sympy.zeros(len(read), m)
    given = {Signal(function): place for place, function in enumerate(inputs)}
    for signal, i in states.items():
        if signal.shift < 0:
            A[i, i - 1] = 1
        elif signal in given:
            B[i, given[signal]] = 1
        else:
            for term, coefficient in updates[signal.function].items():
                if term in given:
                    B[i, given[term]] = coefficient
                else:
                    A[i, states[Signal(term.function, term.shift + 1)]] = coefficient
    for i, form in enumerate(read):
        for term, coefficient in form.items():
            if term in given:
                D[i, given[term]] = coefficient
            else:
                C[i, states[term]] = coefficient
    names = [s.function(time + s.shift + anchors.get(s.function, 0)) for s in states]
    return LinearRecurrence(
        *(Matrix(matrix) for matrix in (A, B, C, D)),
        time=time,
        states=names or None,
        inputs=[function(time) for function in inputs],
    )
