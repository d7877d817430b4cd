"""The report of a check: the shares of the bounds that were used, and the failures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from linrec._tensors.shapes import broadcast_shapes
from linrec.executors import Executor
from linrec.testing.as_code import IMPORTS, imports_of, written
from linrec.testing.case import Case, Comparison

# The place in a program where the user has to make the module.
MODULE_TO_BE_MADE = "module = ...  # as it was checked\n"


class Disagreement(AssertionError):
    """A result differs from the definition by more than is allowed.

    Attributes:
        property: the name of the property that fails.
        executor: the executor.
        case: the smallest case found, or the smallest inputs of a module.
        code: that case as a program that shows the disagreement.
    """

    def __init__(self, property: str, executor: object, case: Case | Tensor, reason: str) -> None:
        self.property, self.executor, self.case = property, executor, case
        if isinstance(case, Case):
            self.code = program(property, executor, case)
        else:
            self.code = program_of_module(case)
        super().__init__(
            f"{property} does not hold for {executor}: {reason}\n\nTo see it again:\n\n{self.code}"
        )


def program(property: str, executor: object, case: Case) -> str:
    """Write a case as a program that checks one property of one executor."""
    arguments = [
        f"    {written(case.recurrence)},",
        f"    {written(case.inputs)},",
        *(f"    {name}={written(value)}," for name, value in optional(case).items()),
        f"    executor={written(executor)},",
        f'    property="{property}",',
    ]
    call = "\n".join(["linrec.testing.check_case(", *arguments, ")"])
    return f"{imports_of(case.recurrence, executor)}\n{call}\n"


def program_of_module(inputs: Tensor) -> str:
    """Write inputs as a program that checks a module on them; the user fills in the module."""
    call = f"linrec.testing.check_module(module, inputs={written(inputs)})"
    return f"{IMPORTS}\n{MODULE_TO_BE_MADE}{call}\n"


def optional(case: Case) -> dict[str, Tensor]:
    """Collect the optional arguments that a case has."""
    given = {"initial_state": case.initial_state, "lengths": case.lengths}
    return {name: value for name, value in given.items() if value is not None}


@dataclass
class Report:
    """The worst share of its bound that each property used, for each executor.

    Attributes:
        shares: by property and executor, the largest error over its bound; above 1 is a failure.
        examples: by property and executor, the number of cases tried.
        comparisons: by property and executor, the number of comparisons; the table says "none" for
            a property that had nothing to compare.
        failures: the smallest disagreement of each pair that failed.
        extents: the smallest and largest numbers of steps, states and sequences tried.
    """

    shares: dict[tuple[str, Executor], float] = field(default_factory=dict)
    examples: dict[tuple[str, Executor], int] = field(default_factory=dict)
    comparisons: dict[tuple[str, Executor], int] = field(default_factory=dict)
    failures: list[Disagreement] = field(default_factory=list)
    extents: dict[str, tuple[int, int]] = field(default_factory=dict)

    def see(self, **extents: int) -> None:
        """Record the size of a case."""
        for name, size in extents.items():
            least, most = self.extents.get(name, (size, size))
            self.extents[name] = min(least, size), max(most, size)

    @property
    def limits(self) -> str:
        """Describe the sizes tried, which are the limits of the check."""
        tried = max(self.examples.values(), default=0)
        ranges = (
            f"{least} to {most} {name}" if least < most else f"{most} {name}"
            for name, (least, most) in self.extents.items()
        )
        return f"{tried} cases: {', '.join(ranges)}. Beyond that nothing was tried."

    def note(self, property: str, executor: Executor, share: float, compared: int = 1) -> None:
        """Record a share, if it is the largest so far, and its number of comparisons."""
        pair = property, executor
        self.shares[pair] = max(self.shares.get(pair, 0.0), share)
        self.examples[pair] = self.examples.get(pair, 0) + 1
        self.comparisons[pair] = self.comparisons.get(pair, 0) + compared

    def fail(self, pair: tuple[str, Executor], failure: Disagreement) -> None:
        """Record a failure."""
        self.failures.append(failure)
        self.note(*pair, math.inf)

    @property
    def executors(self) -> list[Executor]:
        """The executors, in the order of their first check."""
        return list(dict.fromkeys(executor for _, executor in self.shares))

    @property
    def properties(self) -> list[str]:
        """The properties, in the order of their first check."""
        return list(dict.fromkeys(name for name, _ in self.shares))

    def cell(self, property: str, executor: Executor) -> str:
        """Return a cell of the table: a share in per cent, "fails", "none", or nothing."""
        share = self.shares.get((property, executor))
        if share is None:
            return ""
        if not self.comparisons.get((property, executor)):
            return "none"
        return "fails" if share > 1 else f"{100 * share:.2g} %"

    def raise_first(self) -> "Report":
        """Raise the first failure, if there is one."""
        for failure in self.failures:
            raise failure
        return self

    def __str__(self) -> str:
        rows = [["", *(str(executor).partition("(")[0] for executor in self.executors)]]
        for name in self.properties:
            rows.append([name, *(self.cell(name, each) for each in self.executors)])
        return f"{align(rows)}\n{self.limits}"


def align(rows: Sequence[Sequence[str]]) -> str:
    """Align the columns of a table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def share(comparison: Comparison) -> float:
    """Return the worst difference as a share of its bound; infinite for NaN.

    Two infinities of the same sign are equal, and so are two NaN. If the bound is not finite,
    intermediate results overflow and nothing is promised.
    """
    _, got, expected, allowed = comparison
    if got.shape != broadcast_shapes(got.shape, expected.shape):
        return math.inf
    wide = torch.promote_types(got.dtype, torch.promote_types(expected.dtype, torch.float64))
    got, expected = got.detach().to(wide), expected.detach().to(wide)
    difference = (got - expected).abs()
    limit = as_limit(allowed).expand_as(difference)
    same = (got == expected) | (got.isnan() & expected.isnan())
    shares = torch.where(same, 0, difference / limit)
    shares = torch.where(limit.isfinite(), shares.nan_to_num(nan=math.inf, posinf=math.inf), 0)
    return float(shares.max()) if shares.numel() else 0.0


def as_limit(allowed: Tensor | float) -> Tensor:
    """Convert a bound to a tensor; a number in double precision, whatever the default dtype."""
    if isinstance(allowed, Tensor):
        return allowed
    return torch.tensor(allowed, dtype=torch.float64, device="cpu")


def reason(comparison: Comparison) -> str:
    """Describe the worst failure of a comparison: its place and size."""
    what, got, expected, allowed = comparison
    got = got.detach()
    if got.shape != broadcast_shapes(got.shape, expected.shape):
        return f"{what} of shape {tuple(got.shape)}, expected {tuple(expected.shape)}."
    expected = expected.detach().broadcast_to(got.shape)
    limit = as_limit(allowed).broadcast_to(got.shape)
    over = ((got - expected).abs() / limit).nan_to_num(nan=math.inf)
    place = torch.unravel_index(over.argmax(), got.shape) if got.ndim else ()
    index = tuple(int(axis) for axis in place)
    times = float(over[index])
    return (
        f"{what}{f' at index {list(index)}' if index else ''}: got {got[index].item()}, expected "
        f"{expected[index].item()} within {float(limit[index]):.3g}; {times:.3g} times the bound."
    )
