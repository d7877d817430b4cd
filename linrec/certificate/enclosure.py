"""Enclose states: compute in double precision, correct once, and bound the remaining error."""

from collections.abc import Iterator

import torch
from torch import Tensor

from linrec.certificate.exact import (
    INFLATED,
    UNIT,
    Enclosure,
    ExactProduct,
    Product,
    add_up,
    gamma,
    multiply,
    product_in,
    rounded_product,
)
from linrec.certificate.propagation import Propagation
from linrec.certificate.real import RealSystem
from linrec.certificate.sums import Matrices, Term

# Numbers that are worked on at a time, so that intermediate results stay in the cache.
CACHED = 1 << 16


def enclose_states(system: RealSystem, propagation: Propagation, cuts: int) -> Enclosure:
    """Enclose the initial state and the states of all steps, `(*batch, time + 1, n)`.

    The residuals r of any sequence x̂ that begins at the initial state determine its error e:

        r_t = A x̂_{t-1} + B u_t - x̂_t        e_t = x_t - x̂_t = A e_{t-1} + r_t

    The size of e is bounded in some norm, from step to step by a bound on the norm of A. With
    residuals from rounded products, that is enough to certify single precision. With more accurate
    ones, the recurrence of e is run too, and gives ê; then its own residuals are bounded:

        s_t = A ê_{t-1} + r_t - ê_t          f_t = e_t - ê_t = A f_{t-1} + s_t
    """
    start = system.grouped(system.start.unsqueeze(-2))
    if system.inputs.shape[-2] == 0:
        return Enclosure(start, 0 * start, 0 * start).map(system.together)
    zero = torch.zeros_like(start)
    drive = system.inputs
    if system.B is not None:
        drive = multiply(system.B, system.inputs, system.by_step["B"])
    states = torch.cat([start, propagation.solve(system.grouped(drive), start.squeeze(-2))], -2)
    product = product_in(cuts)
    s, error = find_residuals(system, states, product, cuts)
    correction = zero.expand_as(states)
    off = (system.tails["start"], system.doubts["start"]) if "start" in system.tails else None
    if product is not rounded_product:
        A, by_step = system.A, system.by_step["A"]
        first = zero if off is None else system.grouped(off[0].unsqueeze(-2))
        correction = torch.cat([first, propagation.solve(s, first.squeeze(-2))], -2)
        before, after = correction[..., :-1, :], correction[..., 1:, :]
        error = error + gamma(3) * (s.abs() + after.abs())
        moved = rounded_product(A, before, by_step)
        error = error + (3 * moved.error) * moved.size
        s = moved.rest + s - after
        doubt = system.doubt("A")
        if doubt is not None:
            error = error + doubtful(doubt, before, by_step)
    if off is None:
        radius = torch.cat([zero, propagation.carry(s, error)], -2)
    else:  # one step more, that begins where the start may be
        low, doubt = (system.grouped(each.unsqueeze(-2)) for each in off)
        doubt = doubt + (low.abs() if product is rounded_product else 0.0)
        radius = propagation.carry(torch.cat([zero, s], -2), torch.cat([doubt, error], -2))
    return Enclosure(states, correction, radius).map(system.together)


def find_residuals(
    system: RealSystem, states: Tensor, product: Product, cuts: int
) -> tuple[Tensor, Tensor]:
    """Compute r over all steps, `(*batch, k, time, b)`, and bound its rounding errors."""
    if side_by_side(system, cuts) and system.B is not None:
        matrices = Matrices.of([term(system, "A"), term(system, "B")], cuts)
        found = [residuals_of(matrices, system, states, steps) for steps in pieces(system)]
    else:
        found = [residuals(system, states, steps, product) for steps in pieces(system)]
    return join([each[0] for each in found]), join([each[1] for each in found])


def side_by_side(system: RealSystem, cuts: int) -> bool:
    """Say whether `Matrices` multiply: one group of states, matrices that are always the same.

    (More than two cuts need the digits that numbers of different sizes would lose there.)
    """
    return cuts < 3 and system.groups[0] == 1 and not any(system.by_step.values())


def term(system: RealSystem, name: str) -> Term:
    """Return a matrix of a constant system with its tail and doubt."""
    matrix: Tensor = getattr(system, name)
    tail, doubt = system.tails.get(name), system.doubts.get(name)
    if name == "A":
        tail, doubt = (each if each is None else each.squeeze(-3) for each in (tail, doubt))
        return Term(matrix.squeeze(-3), tail, doubt)
    return Term(matrix, tail, doubt)


def join(pieces: list[Tensor]) -> Tensor:
    """Join pieces of time."""
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, -2)


def residuals_of(
    matrices: Matrices, system: RealSystem, states: Tensor, steps: slice
) -> tuple[Tensor, Tensor]:
    """As `residuals`, of a constant system with its matrices side by side."""
    states = states.squeeze(-3)
    before, after = (part[..., steps, :] for part in (states[..., :-1, :], states[..., 1:, :]))
    found = matrices.add_up([before, system.inputs[..., steps, :]])
    # A small difference of nearly equal numbers rounds little.
    off = found.rest if found.part is None else found.part - after
    total = off - after if found.part is None else off + found.rest
    error = found.error + 2 * UNIT * off.abs()
    return total.unsqueeze(-3), (error + 2 * UNIT * total.abs()).unsqueeze(-3)


def residuals(
    system: RealSystem, states: Tensor, steps: slice, product: Product
) -> tuple[Tensor, Tensor]:
    """Compute r over some steps, `(*batch, k, time, b)`, and bound its rounding errors."""
    inputs = system.inputs[..., steps, :]
    last = states[..., :-1, :][..., steps, :]
    numbers = [-states[..., 1:, :][..., steps, :]]
    products, blur = multiply_enclosure(system, "A", steps, last, product)
    if system.B is None:
        numbers.append(system.grouped(inputs))
    else:
        of_inputs, blurred = multiply_enclosure(system, "B", steps, inputs, product)
        products += [each.map(system.grouped) for each in of_inputs]
        blur = blur + (system.grouped(blurred) if isinstance(blurred, Tensor) else blurred)
    high, low, error = add_up(products, numbers)
    total = high + low
    return total, error + blur + 2 * UNIT * total.abs()


def multiply_enclosure(
    system: RealSystem, name: str, steps: slice, vectors: Tensor, product: Product
) -> tuple[list[ExactProduct], Tensor | float]:
    """Multiply by one of the matrices, and by its tail where that matters; bound the rest.

    Returns:
        The products, and the bound.
    """
    matrix, by_step = system.at(name, steps), system.by_step[name]
    assert matrix is not None
    products = [product(matrix, vectors, by_step)]
    if name not in system.doubts:
        return products, 0.0
    tail, doubt = (system.cut(name, of[name], steps) for of in (system.tails, system.doubts))
    assert tail is not None and doubt is not None
    if product is rounded_product:
        doubt = INFLATED * (tail.abs().amax(-1, keepdim=True) + doubt)
    else:
        products.append(rounded_product(tail, vectors, by_step))
    return products, doubtful(doubt, vectors, by_step)


def doubtful(doubt: Tensor, vectors: Tensor, by_step: bool) -> Tensor:
    """Bound the effect on products of doubts, given by entries or in one column for whole rows."""
    sizes = vectors.abs()
    if doubt.shape[-1] != sizes.shape[-1]:
        sizes = sizes.sum(-1, keepdim=True)
    return INFLATED * multiply(doubt, sizes, by_step)


def enclose_outputs(system: RealSystem, states: Enclosure, cuts: int) -> Enclosure:
    """Enclose y = C x + D u, `(*batch, time, p)`, for the states `(*batch, time, n)`.

    One cut means rounded products, and is for states without a correction.
    """
    if side_by_side(system, cuts) and system.C is not None:
        names = ["C"] if system.D is None else ["C", "D"]
        matrices = Matrices.of([term(system, name) for name in names], cuts)
        found = [read_by(matrices, system, states, steps) for steps in pieces(system)]
    else:
        product = product_in(cuts)
        found = [read(system, states, steps, product) for steps in pieces(system)]
    each = zip(*((one.high, one.low, one.radius) for one in found), strict=True)
    return Enclosure(*(join(list(pieces)) for pieces in each))


def read_by(matrices: Matrices, system: RealSystem, states: Enclosure, steps: slice) -> Enclosure:
    """As `read`, of a constant system with its matrices side by side."""
    high, low, radius = (each[..., steps, :] for each in (states.high, states.low, states.radius))
    vectors = [high] if system.D is None else [high, system.inputs[..., steps, :]]
    found = matrices.add_up(vectors, low if len(matrices.pieces) > 1 else None, radius)
    if found.part is None:
        return Enclosure(found.rest, found.rest.new_zeros(()).expand_as(found.rest), found.error)
    return Enclosure(found.part, found.rest, found.error)


def read(system: RealSystem, states: Enclosure, steps: slice, product: Product) -> Enclosure:
    """Enclose the outputs of some steps."""
    high, low, radius = (each[..., steps, :] for each in (states.high, states.low, states.radius))
    products, numbers = [], []
    C, D = system.at("C", steps), system.at("D", steps)
    blur = 0.0
    if C is None:
        numbers.append(high)
    else:
        by_step, doubt = system.by_step["C"], system.doubt("C")
        products, blur = multiply_enclosure(system, "C", steps, high, product)
        radius = radius + gamma(C.shape[-1]) * low.abs()
        sizes = C.abs() if doubt is None else C.abs() + doubt
        if doubt is not None:
            blur = blur + doubtful(doubt, low, by_step)
        low, radius = multiply(C, low, by_step), INFLATED * multiply(sizes, radius, by_step)
    if D is not None:
        of_inputs, blurred = multiply_enclosure(
            system, "D", steps, system.inputs[..., steps, :], product
        )
        products, blur = products + of_inputs, blur + blurred
    if not products:
        return Enclosure(high, low, radius)
    high, tail, error = add_up(products, numbers)
    error = error + blur + radius + 2 * UNIT * (tail.abs() + low.abs())
    return Enclosure(high, tail + low, error)


def pieces(system: RealSystem) -> Iterator[slice]:
    """Cut time into pieces of some numbers each; one piece of no steps if there are none."""
    steps = system.inputs.shape[-2]
    width = max(system.start.numel(), system.inputs[..., :1, :].numel(), 1)
    size = max(CACHED // width, 1)
    for begin in range(0, max(steps, 1), size):
        yield slice(begin, min(begin + size, steps))
