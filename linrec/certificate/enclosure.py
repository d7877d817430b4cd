"""Enclose states: compute in double precision, correct once, and bound the remaining error."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from linrec.certificate.exact import (
    INFLATED,
    UNIT,
    ExactProduct,
    add_up,
    exact_product,
    gamma,
    multiply,
    rounded_product,
)
from linrec.certificate.real import RealSystem
from linrec.certificate.ways import Way

# From a matrix, vectors, and whether the matrix changes from step to step.
Product = Callable[[Tensor, Tensor, bool], ExactProduct]

# So many numbers are worked on at a time: what is computed of them stays in the cache.
CACHED = 1 << 16


@dataclass(frozen=True, eq=False)
class Enclosure:
    """Where exact numbers are: high + low, up to `radius`, all of one shape."""

    high: Tensor
    low: Tensor
    radius: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> "Enclosure":
        """Do the same to all three."""
        return Enclosure(function(self.high), function(self.low), function(self.radius))


def enclose_states(system: RealSystem, way: Way, precise: bool) -> Enclosure:
    """Enclose the initial state and the states of all steps, `(*batch, time + 1, n)`.

    Of any sequence x̂ that begins at the initial state, the residuals r say how far it is off:

        r_t = A x̂_{t-1} + B u_t - x̂_t        e_t = x_t - x̂_t = A e_{t-1} + r_t

    The size of e is bounded in some norm, which is carried on by a bound on the norm of A. That is
    enough to tell single precision from the truth. To be precise, the recurrence of e is run too,
    and gives ê; its own residuals are bounded then:

        s_t = A ê_{t-1} + r_t - ê_t          f_t = e_t - ê_t = A f_{t-1} + s_t
    """
    start = system.grouped(system.start.unsqueeze(-2))
    if system.inputs.shape[-2] == 0:
        return Enclosure(start, 0 * start, 0 * start).map(system.together)
    zero = torch.zeros_like(start)
    drive = system.inputs
    if system.B is not None:
        drive = multiply(system.B, system.inputs, system.by_step["B"])
    states = torch.cat([start, way.solve(system.grouped(drive), start.squeeze(-2))], -2)
    product = exact_product if precise else rounded_product
    found = [residuals(system, states, steps, product) for steps in pieces(system)]
    s, error = (torch.cat(each, -2) for each in zip(*found, strict=True))
    A, by_step = system.A, system.by_step["A"]
    if system.uncertainty is not None:
        doubtful = multiply(system.uncertainty, states[..., :-1, :].abs(), by_step)
        error = error + INFLATED * doubtful
    correction = zero.expand_as(states)
    if precise:
        correction = torch.cat([zero, way.solve(s, zero.squeeze(-2))], -2)
        before, after = correction[..., :-1, :], correction[..., 1:, :]
        error = error + gamma(3) * (s.abs() + after.abs())
        moved = rounded_product(A, before, by_step)
        error = error + (3 * moved.error) * moved.size
        s = moved.rest + s - after
        if system.doubt is not None:
            error = error + INFLATED * multiply(system.doubt, before.abs(), by_step)
    radius = torch.cat([zero, way.carry(s, error)], -2)
    return Enclosure(states, correction, radius).map(system.together)


def residuals(
    system: RealSystem, states: Tensor, steps: slice, product: Product
) -> tuple[Tensor, Tensor]:
    """Compute r over some steps, `(*batch, k, time, b)`, and bound its rounding errors."""
    A, B = system.at("A", steps), system.at("B", steps)
    assert A is not None
    inputs = system.inputs[..., steps, :]
    last = states[..., :-1, :][..., steps, :]
    now = states[..., 1:, :][..., steps, :]
    products, numbers = [product(A, last, system.by_step["A"])], [-now]
    if B is None:
        numbers.append(system.grouped(inputs))
    else:
        products.append(product(B, inputs, system.by_step["B"]).map(system.grouped))
    tail = system.at("tail", steps)
    if tail is not None:
        products.append(rounded_product(tail, last, system.by_step["A"]))
    high, low, error = add_up(products, numbers)
    total = high + low
    return total, error + 2 * UNIT * total.abs()


def enclose_outputs(system: RealSystem, states: Enclosure, precise: bool) -> Enclosure:
    """Enclose y = C x + D u, `(*batch, time, p)`."""
    product = exact_product if precise else rounded_product
    found = [read(system, states, steps, product) for steps in pieces(system)]
    each = zip(*((one.high, one.low, one.radius) for one in found), strict=True)
    return Enclosure(*(torch.cat(pieces, -2) for pieces in each))


def read(system: RealSystem, states: Enclosure, steps: slice, product: Product) -> Enclosure:
    """Enclose the outputs of some steps."""
    high, low, radius = (
        each[..., 1:, :][..., steps, :] for each in (states.high, states.low, states.radius)
    )
    products, numbers = [], []
    C, D = system.at("C", steps), system.at("D", steps)
    if C is None:
        numbers.append(high)
    else:
        by_step = system.by_step["C"]
        products.append(product(C, high, by_step))
        radius = radius + gamma(C.shape[-1]) * low.abs()
        low, radius = multiply(C, low, by_step), INFLATED * multiply(C.abs(), radius, by_step)
    if D is not None:
        products.append(product(D, system.inputs[..., steps, :], system.by_step["D"]))
    if not products:
        return Enclosure(high, low, radius)
    high, tail, error = add_up(products, numbers)
    error = error + radius + 2 * UNIT * (tail.abs() + low.abs())
    return Enclosure(high, tail + low, error)


def pieces(system: RealSystem) -> Iterator[slice]:
    """Cut time into pieces of some numbers each; one piece of no steps if there are none."""
    steps = system.inputs.shape[-2]
    width = max(system.start.numel(), system.inputs[..., :1, :].numel(), 1)
    size = max(CACHED // width, 1)
    for begin in range(0, max(steps, 1), size):
        yield slice(begin, min(begin + size, steps))
