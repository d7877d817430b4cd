"""Properties of the outputs and states of any executor."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from linrec._tensors.dtypes import accumulation_dtype, common_dtype
from linrec.executors import Executor, Recurrent, Result
from linrec.resets import with_resets
from linrec.run import final, run
from linrec.testing.case import Case, Comparison

Comparisons = Iterator[Comparison]

STEPS = Recurrent()  # single steps have this executor's error bounds
WIDE = torch.complex128  # the dtype in which products are summed


def agreement(case: Case, executor: Executor) -> Comparisons:
    """Compare outputs and final state with the definition, and check their dtypes."""
    got, allowed = case.whole.run(executor), case.whole.allowed(executor)
    truth = case.whole.truth
    yield Comparison("outputs", got.outputs, truth.outputs, allowed.outputs)
    yield Comparison("final state", got.final_state, truth.final_state, allowed.final_state)
    common = common_dtype(*case.recurrence.leaves().values(), case.inputs)
    yield same("dtype of the outputs", got.outputs.dtype, common)
    yield same("dtype of the final state", got.final_state.dtype, accumulation_dtype(common))


def last_step(case: Case, executor: Executor) -> Comparisons:
    """Compare `final` with the end of `run`."""
    got = final(case.recurrence, case.inputs, case.initial_state, executor=executor)
    truth, allowed = case.whole.truth, case.whole.allowed(executor)
    yield Comparison("final state", got.final_state, truth.final_state, allowed.final_state)
    if case.steps:
        last = truth.outputs[..., -1, :], allowed.outputs[..., -1, :]
        yield Comparison("last outputs", got.outputs, *last)


def streaming(case: Case, executor: Executor) -> Comparisons:
    """Compare single steps with all steps at once."""
    got, (outputs, state) = case.whole.run(executor), case.singly
    truth, allowed = case.whole.truth, case.whole.allowed(executor)
    singly = case.whole.allowed(STEPS)
    for t, output in enumerate(outputs):
        yield Comparison(
            f"outputs of step {t} by itself",
            output,
            got.outputs[..., t, :],
            allowed.outputs[..., t, :] + singly.outputs[..., t, :],
        )
    if state is not None:
        limit = allowed.final_state + singly.final_state
        yield Comparison("state after single steps", state, got.final_state, limit)
    yield Comparison("final state", got.final_state, truth.final_state, allowed.final_state)


def continuation(case: Case, executor: Executor) -> Comparisons:
    """Compare one run with two, the second from the first's final state, copied with gaps.

    A power of two steps is cut into one less and one more than half of it; one step more than a
    power of two is cut into that power and one.
    """
    half, steps = case.steps // 2, case.steps
    cut = half - 1 if half > 1 and steps.bit_count() == 1 else steps // 3
    cut = steps - 1 if steps > 2 and (steps - 1).bit_count() == 1 else cut
    first = case.variant("first part", lambda: case.part(slice(0, cut)))
    before = first.run(executor)
    apart = torch.stack([before.final_state, torch.ones_like(before.final_state)], -1)[..., 0]
    rest = replace(case.part(slice(cut, case.steps)), initial_state=apart)
    after, error = rest.run(executor), first.allowed(executor)
    # Bounds start from the exact state, once for all executors; to first order they are the same.
    exact = first.truth.final_state.to(before.final_state.dtype)
    second = case.variant("second part", lambda: replace(rest, initial_state=exact))
    carried = second.bounds.carried(error.final_state)
    own, truth = second.allowed(executor), case.whole.truth
    joined = torch.cat([before.outputs, after.outputs], -2)
    allowed = torch.cat([error.outputs, own.outputs + carried.outputs], -2)
    yield Comparison("joined outputs", joined, truth.outputs, allowed)
    limit = own.final_state + carried.final_state
    yield Comparison("final state", after.final_state, truth.final_state, limit)


def padding(case: Case, executor: Executor) -> Comparisons:
    """Check that nothing past a sequence's length reaches its outputs or state, not even NaN."""
    if case.lengths is None:
        return
    past = torch.arange(case.steps) >= case.lengths.unsqueeze(-1)
    spoiled = torch.where(past.unsqueeze(-1), torch.nan, case.inputs)
    got = case.with_inputs(spoiled).run(executor)
    allowed = case.allowed(executor)
    yield Comparison("outputs", got.outputs, case.truth.outputs, allowed.outputs)
    yield Comparison("final state", got.final_state, case.truth.final_state, allowed.final_state)
    last = final(
        case.recurrence, spoiled, case.initial_state, lengths=case.lengths, executor=executor
    )
    yield Comparison(
        "final state of `final`", last.final_state, case.truth.final_state, allowed.final_state
    )


def linearity(case: Case, executor: Executor) -> Comparisons:
    """Check that a sum of inputs gives the sum of outputs, and -2 u gives -2 times the outputs."""
    rest, outputs = case.at_rest, case.at_rest.run(executor).outputs
    allowed = rest.bounds.of(executor).outputs
    even = torch.arange(case.steps).unsqueeze(-1) % 2 == 0
    parts = [
        rest.with_inputs(torch.where(mask, case.inputs, 0)).run(executor).outputs
        for mask in (even, ~even)
    ]
    # Parts that cancel are rounded to the dtype of outputs while larger than their sum.
    last = torch.finfo(outputs.dtype).eps * (parts[0].abs() + parts[1].abs()).to(allowed.dtype)
    limit = 4 * allowed + last
    yield Comparison("outputs of even and odd steps", parts[0] + parts[1], outputs, limit)
    doubled = rest.with_inputs(-2 * case.inputs).run(executor).outputs
    yield Comparison("outputs of -2u", doubled, -2 * outputs, 4 * allowed)


def time_invariance(case: Case, executor: Executor) -> Comparisons:
    """Check that a delay of the inputs by three steps delays the outputs by three steps."""
    if case.recurrence.time_varying:
        return
    rest, inputs = case.at_rest, case.inputs
    silence = inputs.new_zeros(*inputs.shape[:-2], 3, inputs.shape[-1])
    late = rest.variant("late", lambda: rest.with_inputs(torch.cat([silence, inputs], -2)))
    got, bound = late.run(executor).outputs, late.bounds.of(executor).outputs
    yield Comparison(
        "outputs before any input", got[..., :3, :], torch.zeros(()), bound[..., :3, :]
    )
    allowed = bound[..., 3:, :] + rest.bounds.of(executor).outputs
    yield Comparison(
        "outputs three steps later", got[..., 3:, :], rest.run(executor).outputs, allowed
    )


def causality(case: Case, executor: Executor) -> Comparisons:
    """Check that inputs sixteen times as large from the middle on change nothing before it."""
    middle = case.steps // 2
    before = torch.arange(case.steps).unsqueeze(-1) < middle
    changed = torch.where(before, case.inputs, 16 * case.inputs + 1)
    other = case.variant("changed", lambda: case.whole.with_inputs(changed))
    allowed = other.bounds.of(executor).outputs + case.whole.bounds.of(executor).outputs
    early = slice(0, middle)
    yield Comparison(
        "outputs before the change",
        other.run(executor).outputs[..., early, :],
        case.whole.run(executor).outputs[..., early, :],
        allowed[..., early, :],
    )


def independence(case: Case, executor: Executor) -> Comparisons:
    """Check that NaN and infinities stay in their sequences, and are not lost there."""
    truth, allowed = case.whole.truth, case.whole.allowed(executor)
    inputs = case.inputs.expand(*truth.outputs.shape[:-1], -1)
    spoiled = [torch.full_like(inputs, number) for number in (torch.nan, torch.inf)]
    got = case.whole.with_inputs(torch.stack([inputs, *spoiled])).run(executor)
    yield Comparison("outputs beside NaN", got.outputs[0], truth.outputs, allowed.outputs)
    yield Comparison(
        "final state beside NaN", got.final_state[0], truth.final_state, allowed.final_state
    )
    # (A zero of a matrix times NaN is 0 if it is not stored: the loop shows which numbers remain.)
    made = case.whole.with_inputs(torch.stack(spoiled))
    lost = case.variant("not a number", lambda: made).run(STEPS)
    for mine, theirs in zip((each[1:] for each in got), lost, strict=True):
        swallowed = (mine.isfinite() & ~theirs.isfinite()).sum().double()
        yield Comparison("how many NaN or infinities are finite", swallowed, torch.zeros(()), 0.0)


def recording(case: Case, executor: Executor) -> Comparisons:
    """Check results with and without recording of gradients, and in inference mode."""
    whole, allowed = case.whole, case.whole.allowed(executor)
    modes = {
        "while gradients are recorded": torch.enable_grad(),
        "without gradients": torch.no_grad(),
        "in inference mode": torch.inference_mode(),
    }
    for what, mode in modes.items():
        inputs = case.inputs.detach().clone().requires_grad_("recorded" in what)
        with mode:
            call = case.recurrence, inputs, case.initial_state
            outputs, state = (each.detach() for each in run(*call, executor=executor))
        yield Comparison(f"outputs {what}", outputs, whole.truth.outputs, allowed.outputs)
        yield Comparison(f"final state {what}", state, whole.truth.final_state, allowed.final_state)


def resets(case: Case, executor: Executor) -> Comparisons:
    """Check that the last step before a reset and the initial state change no bit after it."""
    for cut in sorted({0, case.steps // 2}) if case.steps else ():
        yield from reset_at(cut, case, executor)


def reset_at(cut: int, case: Case, executor: Executor) -> Comparisons:
    """Check that a reset at step `cut` forgets the last step before it and the initial state."""
    marks = torch.arange(case.steps) == cut
    if executor.why_not(with_resets(case.recurrence, marks), case.steps) is not None:
        return
    at = torch.arange(case.steps).unsqueeze(-1) == cut - 1
    changed = torch.where(at, 1 - case.inputs, case.inputs)
    state = case.initial_state
    other = None if state is None else 1 - state
    results = [
        run(case.recurrence, inputs, before, resets=marks, executor=executor)
        for inputs, before in ((case.inputs, state), (changed, other))
    ]
    # (An infinite state times zero at the reset is NaN.)
    if not all(part.isfinite().all() for result in results for part in result):
        return
    mine, theirs = results
    late = slice(cut, None)
    yield Comparison(
        "outputs after a reset", theirs.outputs[..., late, :], mine.outputs[..., late, :], 0.0
    )
    yield Comparison("final state after a reset", theirs.final_state, mine.final_state, 0.0)


def adjoint_identity(case: Case, executor: Executor) -> Comparisons:
    """Check ⟨S u, v⟩ = ⟨u, S* v⟩, with S* the adjoint recurrence, run backwards in time."""
    rest = case.at_rest
    outputs = rest.run(executor).outputs
    back = case.backwards
    v = back.inputs.flip(-2)
    backward = back.run(executor).outputs.flip(-2)
    u = case.inputs.expand(backward.shape)
    # The products are summed in double precision, whose own rounding errors are counted below.
    left = (outputs.to(WIDE) * v.conj().to(WIDE)).sum()
    right = (u.to(WIDE) * backward.conj().to(WIDE)).sum()
    allowed = (rest.bounds.of(executor).outputs * v.abs()).sum()
    allowed = allowed + (back.bounds.of(executor).outputs.flip(-2) * u.abs()).sum()
    sizes = (outputs.abs() * v.abs()).sum() + (u.abs() * backward.abs()).sum()
    rounding = (outputs.numel() + u.numel()) * torch.finfo(torch.float64).eps * sizes
    yield Comparison("⟨S u, v⟩ and ⟨u, S* v⟩", left, right, allowed + rounding)


def plans(case: Case, executor: Executor) -> Comparisons:
    """Check that a plan repeatedly gives the results of a call without one.

    With another recurrence, a plan must raise an error or give that recurrence's own results. A
    recurrence whose numbers were changed in place counts as another.
    """
    whole = case.whole
    if not case.inputs.numel():
        return
    plan = executor.prepare(case.recurrence, case.steps)
    call, expected = (case.recurrence, case.inputs, case.initial_state), whole.truth
    # A plan says which executor uses it.
    allowed = whole.allowed(plan.executor)
    for _ in range(2):
        got = run(*call, executor=executor, plan=plan)
        yield Comparison("outputs", got.outputs, expected.outputs, allowed.outputs)
        yield Comparison("final state", got.final_state, expected.final_state, allowed.final_state)
    given = case.recurrence.leaves().items()
    leaves = {name: torch.where(leaf == 0, 1, -leaf) for name, leaf in given}
    other = case.recurrence.with_leaves(leaves)
    own = run(other, case.inputs, case.initial_state, executor=plan.executor)
    mine = case.recurrence.with_leaves({name: leaf.clone() for name, leaf in given})
    run(mine, case.inputs, case.initial_state, executor=plan.executor)
    for name, leaf in mine.leaves().items():
        leaf.copy_(leaves[name])
    changed = run(mine, case.inputs, case.initial_state, executor=plan.executor)
    taken = "" if alike(changed, own) else "taken for what they were"
    yield same("numbers changed in place", taken, "")
    try:
        got = run(other, case.inputs, case.initial_state, executor=executor, plan=plan)
    except ValueError:
        return
    yield same("a plan made for another recurrence", "" if alike(got, own) else "taken", "")


def alike(mine: Result, theirs: Result) -> bool:
    """Return whether two results are the same, NaN included."""
    pairs = zip(mine, theirs, strict=True)
    return all(torch.allclose(*pair, rtol=0, atol=0, equal_nan=True) for pair in pairs)


def untouched(case: Case, executor: Executor) -> Comparisons:
    """Check that a run leaves its inputs, the caller's state and the system unchanged.

    Writing into the results must not change any of these, nor another run the results.
    """
    given = {"the inputs": case.inputs, "the initial state": case.initial_state}
    given |= {f"leaf {name}": leaf for name, leaf in case.recurrence.leaves().items()}
    kept = {name: each.clone() for name, each in given.items() if each is not None}

    def again(inputs: Tensor) -> Result:
        call = case.recurrence, inputs, case.initial_state
        return run(*call, lengths=case.lengths, executor=executor)

    def unlike_before(what: str) -> Comparisons:
        for name, before in kept.items():
            after = given[name]
            assert after is not None
            yield Comparison(f"{name} after {what}", after, before, 0.0)

    results = again(case.inputs)
    yield from unlike_before("a run")
    copies = [each.clone() for each in results]
    again(1 - case.inputs)
    for mine, copy in zip(results, copies, strict=True):
        yield Comparison("results after another run", mine, copy, 0.0)
    for each, copy in zip(results, copies, strict=True):
        each.add_(1)
        yield from unlike_before("its results were overwritten")
        each.copy_(copy)


def same(what: str, got: object, expected: object) -> Comparison:
    """Compare two objects that are not numbers."""
    text = f"{what} ({got}, expected {expected})" if got != expected else what
    return Comparison(text, torch.tensor(float(got != expected)), torch.zeros(()), 0.0)
