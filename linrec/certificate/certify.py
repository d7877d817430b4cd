"""`certify`: rigorous bounds on the distance of a run's numbers from the exact ones."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from linrec._call import PreparedCall, prepare_call
from linrec._tensors.arguments import check_tensor
from linrec._tensors.dtypes import double_dtype
from linrec._tensors.full_precision import full_precision
from linrec._tensors.shapes import show
from linrec.certificate.chunks import ChunkedSystem, in_chunks
from linrec.certificate.enclosure import enclose_outputs, enclose_states
from linrec.certificate.exact import (
    INFLATED,
    UNIT,
    Enclosure,
    product_in,
)
from linrec.certificate.propagation import Propagation, choose_propagation
from linrec.certificate.real import RealSystem, real_system, whole
from linrec.executors import Chunked, Executor, Result
from linrec.planner import Auto
from linrec.run import run
from linrec.systems import LinearRecurrence


class Cuts(NamedTuple):
    """The number of cuts in which products are computed: of matrices, for states, for outputs."""

    of_matrices: int
    of_states: int
    of_outputs: int


# The cheapest first. The next is tried if most bounds come from uncertainty rather than from the
# error itself. Products in two cuts are accurate to about 2^-70 of the largest, in three to 2^-90,
# in four to 2^-110; in one they are rounded. Errors of matrices and of states are propagated in a
# norm that overestimates; errors of outputs count once. Chunks have fewer states in between, so
# less is propagated, and one cut less is enough.
SINGLE = (Cuts(3, 1, 1),)
BETWEEN_CHUNKS = Cuts(4, 2, 2)
DOUBLE = (BETWEEN_CHUNKS, Cuts(4, 3, 2), Cuts(4, 3, 3))


@dataclass(frozen=True, eq=False)
class Certificate:
    """Rigorous bounds on the errors of one run, in the shapes that `run` returns.

    Attributes:
        result: the certified numbers.
        bound: |result - exact| is at most this, entry by entry; infinite where nothing is certain.
        centre: more accurate numbers than the result, in double precision.
        radius: |centre - exact| is at most this.
    """

    result: Result
    bound: Result
    centre: Result
    radius: Result


def certify(
    recurrence: LinearRecurrence,
    inputs: Tensor,
    initial_state: Tensor | None = None,
    *,
    result: Result | Tensor | None = None,
    lengths: Tensor | None = None,
    executor: Executor = Auto(),
) -> Certificate:
    """Bound the error of every number of a run rigorously, whichever program computed it.

        |outputs - exact| ≤ bound.outputs        |final_state - exact| ≤ bound.final_state

    "Exact" is the result of exact arithmetic on the floating-point numbers of recurrence, inputs
    and initial state (for a structure other than linrec's, on its `to_dense` in double precision).
    Every rounding on the way to the bound is counted. States are computed in double precision and
    corrected by the recurrence of their residuals; a norm in which A hardly grows bounds the
    remaining error (docs/numerics.md has the derivation). Most bounds are close to the error
    itself.

    Args:
        recurrence: the system.
        inputs (*batch, time, m): u.
        initial_state (*batch, n): the state before the first step. None: zeros.
        result: the result to certify: that of `run`, or outputs `(*batch, time, p)` alone, from any
            program; their final state is then taken from the centre. None: the recurrence is run.
        lengths (*batch): the number of steps of each right-padded sequence.
        executor: how it runs if no result is given.

    Returns:
        The result and its bounds, in double precision. They are infinite where exact numbers could
        not be enclosed, for example with inputs that are not finite.

    Raises:
        ValueError, TypeError: as `run` does; or the result has a different shape.

    Numerical error: fully counted, on devices whose double precision follows IEEE 754 with gradual
    underflow (the default of torch).

    Example:
        >>> import torch, linrec
        >>> average = linrec.LinearRecurrence(A=[[0.9]], B=[[0.1]])
        >>> certificate = linrec.certify(average, torch.ones(100, 1))
        >>> bool(certificate.bound.outputs.max() < 1e-6)
        True

    References:
        Rump 2010, Verification methods: rigorous results using floating-point arithmetic.
        Ozaki, Ogita, Oishi and Rump 2012, Error-free transformations of matrix multiplication.
        Lohner 1987, Enclosing the solutions of ordinary initial and boundary value problems.
    """
    check_tensor("inputs", inputs)
    if result is None:
        with torch.no_grad():
            result = run(recurrence, inputs, initial_state, lengths=lengths, executor=executor)
    with torch.inference_mode(), full_precision(inputs):
        call = prepare_call(recurrence, inputs, initial_state, lengths)
        system = real_system(call)
        outputs, chunk = result if isinstance(result, Tensor) else result.outputs, chunk_of(call)
        double = outputs.dtype in (torch.float64, torch.complex128)
        before, chunked, propagation = None, None, None
        for cuts in DOUBLE if double else SINGLE + DOUBLE:
            if cuts.of_matrices != before or propagation is None:
                multiplied = product_in(cuts.of_matrices)
                chunked = in_chunks(system, chunk, multiplied, call.lengths is not None)
                kept = system if chunked is None else chunked.states
                before = cuts.of_matrices
                propagation = choose_propagation(kept, call.inputs.is_complex())
            if chunked is None and cuts == BETWEEN_CHUNKS:
                continue
            found = enclose(call, system, chunked, propagation, cuts)
            certificate, tight = compare(call, *found, result)
            if tight:
                break
    if isinstance(result, Tensor):
        result = Result(result, certificate.result.final_state.clone())
    found = certificate.bound, certificate.centre, certificate.radius  # usable in training again
    return Certificate(result, *(Result(*(each.clone() for each in pair)) for pair in found))


def chunk_of(call: PreparedCall) -> int:
    """Return the number of steps that `Chunked` takes at a time."""
    if call.system.time_varying or not call.steps:
        return 1
    return Chunked().chunk(call.system, call.steps)


def enclose(
    call: PreparedCall,
    system: RealSystem,
    chunked: ChunkedSystem | None,
    propagation: Propagation,
    cuts: Cuts,
) -> tuple[Enclosure, Enclosure]:
    """Enclose outputs and the final state, `(*batch, 1, n)`."""
    if chunked is None:
        states = enclose_states(system, propagation, cuts.of_states)
        after = states.map(lambda each: each[..., 1:, :])
        return enclose_outputs(system, after, cuts.of_outputs), states.at(ends_of(call, states))
    states = enclose_states(chunked.states, propagation, cuts.of_states)
    chunks = chunked.outputs.inputs.shape[-2]
    before = states.map(lambda each: each[..., :chunks, :])
    outputs = enclose_outputs(chunked.outputs, before, cuts.of_outputs)
    outputs = outputs.map(chunked.by_step)
    ends = ends_of(call, states)
    return outputs, end_of_chunks(chunked, system.inputs, states, ends, cuts.of_states)


def compare(
    call: PreparedCall, outputs: Enclosure, end: Enclosure, result: Result | Tensor
) -> tuple[Certificate, bool]:
    """Compare results with enclosures of outputs and final state.

    Returns:
        The certificate, and whether most bounds are at most four times the distance between the
        result and the centre, that is, whether the radius is at most three quarters of the bound.
    """
    enclosed = [restore_form(call, without_padding(call, outputs)), restore_form(call, end)]
    enclosed[1] = enclosed[1].map(lambda each: each.squeeze(-2))
    centre = Result(*(each.high + each.low for each in enclosed))
    radius = (each.radius + 2 * UNIT * (each.high + each.low).abs() for each in enclosed)
    if isinstance(result, Tensor):
        result = Result(result, centre.final_state)
    given = map(check_result, result, enclosed, ("outputs", "final_state"))
    bound = Result(*map(bound_difference, given, enclosed))
    close = enclosed[0].radius <= 0.75 * bound.outputs
    tight = 2 * int(close.sum()) >= close.numel()
    return Certificate(result, bound, centre, Result(*map(certain, radius))), tight


def ends_of(call: PreparedCall, states: Enclosure) -> Tensor:
    """Return the steps of each sequence, `(*batch, 1, 1)`."""
    device = states.high.device
    whole = torch.full((), call.steps, device=device)
    ends = whole if call.lengths is None else call.lengths.to(device)
    return ends.expand(states.high.shape[:-2])[..., None, None]


def end_of_chunks(
    chunked: ChunkedSystem, inputs: Tensor, states: Enclosure, ends: Tensor, cuts: int
) -> Enclosure:
    """Enclose the state at each sequence's own end, some steps after its last whole chunk.

    Args:
        chunked: the system.
        inputs (*batch, time, m): the inputs of single steps.
        states (*batch, chunks + 1, n): the states before and after whole chunks.
        ends (*batch, 1, 1): the ends of the sequences.
        cuts: how products are enclosed.
    """
    size = chunked.chunk
    rest, state = ends % size, states.at(ends // size)
    for level, skip in enumerate(chunked.skips):
        skipped = (rest >> level) % 2 == 1
        if bool(skipped.any()):
            later = enclose_outputs(skip, state, cuts)
            state = later.where(skipped, state)
    place = torch.arange(size, device=inputs.device)[:, None]  # the last of `size` is the end
    times = (ends - size + place).clamp(min=0).expand(*ends.shape[:-2], -1, inputs.shape[-1])
    own = inputs.expand(*ends.shape[:-2], -1, -1).gather(-2, times)
    own = torch.where(place >= size - rest, own, 0.0).flatten(-2).unsqueeze(-2)
    return enclose_outputs(replace(chunked.end, inputs=own), state, cuts)


def restore_form(call: PreparedCall, found: Enclosure) -> Enclosure:
    """Convert an enclosure to the caller's form: complex, copies side by side."""
    if call.inputs.is_complex():
        radius = found.radius.unflatten(-1, (-1, 2)).sum(-1)
        found = Enclosure(whole(found.high, True), whole(found.low, True), radius)
    if call.given.copies == 1:
        return found
    return found.map(lambda each: each.movedim(-3, -2).flatten(-2))


def without_padding(call: PreparedCall, outputs: Enclosure) -> Enclosure:
    """Put zeros, which are exact, past the end of each sequence."""
    return outputs if call.lengths is None else outputs.map(call.zero_padding)


def check_result(given: Tensor, enclosed: Enclosure, name: str) -> Tensor:
    """Check that the numbers to certify have the shape of the reference."""
    given = check_tensor(name, given).detach()
    if given.shape != enclosed.high.shape:
        raise ValueError(
            f"`{name}` has shape {show(given.shape)}: expected {show(enclosed.high.shape)}, as "
            "`run` gives for this recurrence and these inputs."
        )
    return given.to(enclosed.high.device, double_dtype(given.dtype))


def bound_difference(given: Tensor, enclosed: Enclosure) -> Tensor:
    """Bound |given - exact|; two differences round, of complex parts each by itself."""
    off = (given - enclosed.high).sub_(enclosed.low).abs()  # 3u of this, and 2u of low
    return certain(off.add_(enclosed.low.abs(), alpha=4 * UNIT).add_(enclosed.radius))


def certain(bound: Tensor) -> Tensor:
    """Enlarge a bound to cover its own rounding; NaN becomes infinite."""
    return (INFLATED * bound).nan_to_num_(nan=torch.inf, posinf=torch.inf)
