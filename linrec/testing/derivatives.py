"""Properties of derivatives: compared with the exact gradient and with differences."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck

from linrec.executors import AssociativeScan, Executor, Result
from linrec.response import adjoint
from linrec.run import run
from linrec.testing.case import Case, Comparison, like
from linrec.testing.values import WIDE

Comparisons = Iterator[Comparison]

# The step of differences: the curvature of functions and their rounding errors weigh alike.
STEP = 1e-6

# Differences say little where states may grow beyond this.
TAME = 1e3

# The most numbers of a case for differences, which move each number by itself.
FEW = 256


def gradient_of_inputs(case: Case, executor: Executor) -> Comparisons:
    """Compare the gradient in the inputs with the adjoint recurrence, run backwards in time."""
    batch = case.at_rest.truth.outputs.shape[:-2]
    inputs = case.inputs.expand(*batch, -1, -1).detach().clone().requires_grad_()
    outputs = case.at_rest.with_inputs(inputs).run(executor).outputs
    back = case.backwards
    v = back.inputs.flip(-2)
    limits = back.allowed(executor, gradient_of=case.at_rest)
    truth, allowed = (each.outputs.flip(-2) for each in (back.truth, limits))
    yield Comparison("gradient in the inputs", gradient(outputs, v, inputs), truth, allowed)
    yield Comparison("what a gradient was taken of, afterwards", v, back.inputs.flip(-2), 0.0)


def gradient_of_state(case: Case, executor: Executor) -> Comparisons:
    """Check the gradient in the initial state: ⟨∇⟨y, v⟩, d⟩ = ⟨y(d), v⟩, with y(d) started at d."""
    state = like(case.at_rest.truth.final_state.to(case.inputs.dtype)).requires_grad_()
    silence = torch.zeros_like(case.inputs)
    silent = case.variant("silent", lambda: Case(case.recurrence, silence, state.detach()))
    outputs = replace(silent, initial_state=state).run(executor).outputs
    v = like(outputs)
    found = gradient(outputs, v, state)
    left = (found.conj().to(WIDE) * state.detach().to(WIDE)).sum()
    products = v.conj().to(WIDE) * silent.truth.outputs.to(WIDE)
    # The gradient is a sum over steps and outputs, each as large as the state's share of y(d).
    terms = 2 * (case.steps + 1) * (v.shape[-1] + 1) * eps(v)
    sizes = silent.bounds.largest().outputs
    allowed = (v.abs() * (2 * silent.allowed(executor).outputs + terms * sizes)).sum()
    yield Comparison("gradient in the initial state", left, products.sum(), allowed)


def gradient_of_final_state(case: Case, executor: Executor) -> Comparisons:
    """Compare the gradient of ⟨x_T, w⟩ in the inputs with the adjoint system, fed w at the end."""
    rest, one = case.at_rest, case.recurrence
    w = like(rest.truth.final_state.to(case.inputs.dtype))
    if not case.steps:
        return
    inputs = case.inputs.expand(*w.shape[:-1], -1, -1).detach().clone().requires_grad_()
    found = gradient(rest.with_inputs(inputs).run(executor).final_state, w, inputs)

    def back() -> Case:
        def every_step(leaf: Tensor, core: int) -> Tensor:
            steps, own = case.steps if one.time_varying else -1, leaf.shape[leaf.ndim - core :]
            return leaf.expand(*leaf.shape[: -core - 1], steps, *own) if leaf.ndim > core else leaf

        # (C or D may have been the only ones with a matrix for each step.)
        states = one.rebuilt(one.A, one.B, None, None).map_batched(every_step)
        last = torch.zeros(*w.shape[:-1], case.steps - 1, w.shape[-1], dtype=w.dtype)
        return Case(adjoint(states), torch.cat([w.unsqueeze(-2), last], -2))

    adjoints = case.variant("from the final state", back)
    # The last state is computed by powers, however the executor computes the outputs.
    ways = (executor, AssociativeScan())
    limits = [adjoints.allowed(each, gradient_of=rest).outputs for each in ways]
    allowed = torch.maximum(*limits).flip(-2)
    truth = adjoints.truth.outputs.flip(-2)
    yield Comparison("gradient of the final state in the inputs", found, truth, allowed)


def first_differences(case: Case, executor: Executor) -> Comparisons:
    """Compare first derivatives in all tensors with differences (`gradcheck`)."""
    small = case.small
    if not is_tame(small):
        return
    rounding = largest(small.allowed(executor))
    check = partial(gradcheck, everything(small, executor), leaves_of(small))
    yield by_differences("first derivatives", check, small, rounding, size(small))
    yield from one_at_a_time(small, executor)


def one_at_a_time(case: Case, executor: Executor) -> Comparisons:
    """Check that the gradient in one tensor does not depend on whether others need one."""
    function, leaves = everything(case, executor), leaves_of(case)
    outcome = function(*leaves)
    towards = [like(each.detach()) for each in outcome]
    together = torch.autograd.grad(outcome, leaves, towards, allow_unused=True)
    allowed = 2 * rounding_of_gradients(case, executor)
    for place, (leaf, expected) in enumerate(zip(leaves, together, strict=True)):
        given = [each.detach().requires_grad_(at == place) for at, each in enumerate(leaves)]
        pairs = zip(function(*given), towards, strict=True)
        moved = [(result, v) for result, v in pairs if result.requires_grad]
        found = None
        if moved:
            results, own = zip(*moved, strict=True)
            (found,) = torch.autograd.grad(results, given[place], own, allow_unused=True)
        mine, theirs = (torch.zeros_like(leaf) if g is None else g for g in (found, expected))
        yield Comparison(f"gradient in tensor {place} alone", mine, theirs, allowed)


def rounding_of_gradients(case: Case, executor: Executor) -> float:
    """Return the largest allowed error of a gradient.

    The gradient in A is a sum over steps of adjoint states times states. Its error is the error
    of one times the size of the other, plus a rounding of each product.
    """
    back = case.variant("adjoint", lambda: adjoint_of(case))
    terms = case.steps + 1
    return terms * (
        largest(case.allowed(executor)) * size(back)
        + largest(back.allowed(executor)) * size(case)
        + terms * eps(case.inputs) * size(case) * size(back)
    )


def second_differences(case: Case, executor: Executor) -> Comparisons:
    """Compare second derivatives in all tensors with differences (`gradgradcheck`)."""
    small = case.small
    if not is_tame(small):
        return
    rounding = rounding_of_gradients(small, executor)
    sizes = size(small) * size(small.variant("adjoint", lambda: adjoint_of(small)))
    # Gradients towards fixed outputs are differentiated, so that a case is always the same.
    towards = [like(each).requires_grad_() for each in small.run(executor)]
    check = partial(gradgradcheck, everything(small, executor), leaves_of(small), towards)
    # Undefined gradients were checked with the first derivatives.
    check = partial(check, check_undefined_grad=False)
    yield by_differences("second derivatives", check, small, rounding, sizes)


def everything(case: Case, executor: Executor) -> Callable[..., tuple[Tensor, ...]]:
    """Return a function from matrices, inputs and initial state to outputs and final state."""
    names = case.recurrence.leaves()

    def function(*given: Tensor) -> tuple[Tensor, ...]:
        *leaves, inputs, state = given
        recurrence = case.recurrence.with_leaves(dict(zip(names, leaves, strict=True)))
        return tuple(run(recurrence, inputs, state, executor=executor))

    return function


def leaves_of(case: Case) -> list[Tensor]:
    """List the tensors that results depend on."""
    values = [*case.recurrence.leaves().values(), case.inputs, case.initial_state]
    return [value.detach().clone().requires_grad_() for value in values if value is not None]


def adjoint_of(case: Case) -> Case:
    """Return the adjoint recurrence, fed normal numbers as inputs and as initial state."""
    outputs, final_state = (like(each.to(case.inputs.dtype)) for each in case.truth)
    return Case(adjoint(case.recurrence), outputs.flip(-2), final_state)


def by_differences(
    what: str, check: Callable[..., bool], case: Case, rounding: float, size: float
) -> Comparison:
    """Let torch compare derivatives with differences on a small case, real or complex.

    Args:
        what: a description of the comparison.
        check: torch's comparison, without its tolerances.
        case: the case.
        rounding: the largest error of a value of the function.
        size: the largest value.
    """
    # The error of a difference is the rounding of values over the step, plus the step squared
    # times third derivatives: a product of up to T matrices has T³, as large as the values.
    numbers = sum(each.numel() for each in leaves_of(case))
    limit = rounding * numbers / STEP + STEP**2 * (case.steps + 2) ** 3 * size
    # Sums whose order depends on the place of numbers in memory differ from run to run.
    options = {"eps": STEP, "atol": 4 * limit, "rtol": 1e-5, "nondet_tol": 2 * rounding}
    try:
        check(**options, fast_mode=True)
    except GradcheckError as error:
        text = f"{what}: {' '.join(str(error).split())}"
        return Comparison(text, torch.ones(()), torch.zeros(()), 0.0)
    return Comparison(what, torch.zeros(()), torch.zeros(()), 1.0)


def forward_mode(case: Case, executor: Executor) -> Comparisons:
    """Check that forward and backward derivatives agree: ⟨J d, v⟩ = ⟨d, J* v⟩."""
    small = case.small
    if not is_tame(small):
        return
    leaves = small.recurrence.leaves()

    def outputs(*given: Tensor) -> Tensor:
        recurrence = small.recurrence.with_leaves(dict(zip(leaves, given[:-1], strict=True)))
        return run(recurrence, given[-1], small.initial_state, executor=executor).outputs

    primals = (*(leaf.detach() for leaf in leaves.values()), small.inputs)
    tangents = tuple(like(primal) for primal in primals)
    value, forward, *_ = torch.func.jvp(outputs, primals, tangents)
    v = like(value)
    pull = torch.func.vjp(outputs, *primals)[1]
    left = (forward.conj() * v).sum().real
    right = sum((t.conj() * g).sum().real for t, g in zip(tangents, pull(v), strict=True))
    sizes = size(small) * size(small.variant("adjoint", lambda: adjoint_of(small)))
    count = 4 * (small.steps + 1) ** 2 * (value.numel() + sum(p.numel() for p in primals))
    yield Comparison(
        "⟨J d, v⟩ and ⟨d, J* v⟩", left, torch.as_tensor(right), count * eps(value) * sizes
    )


def vectorized(case: Case, executor: Executor) -> Comparisons:
    """Compare `vmap` over sequences and over systems with the exact results."""
    whole = case.whole
    if not case.inputs.numel():
        return
    truth, allowed = whole.truth, whole.allowed(executor, blind=True)
    stacked = torch.stack([case.inputs, -case.inputs])
    outputs = torch.func.vmap(lambda u: run(case.recurrence, u, executor=executor).outputs)(stacked)
    rest, limit = whole.at_rest.truth.outputs, whole.at_rest.allowed(executor, blind=True).outputs
    yield Comparison("outputs of -u, mapped", outputs[1], -rest, limit)
    leaves = case.recurrence.leaves()

    def one(given: dict[str, Tensor]) -> Result:
        recurrence = case.recurrence.with_leaves(given)
        return run(recurrence, case.inputs, case.initial_state, executor=executor)

    twice = {name: torch.stack([torch.zeros_like(leaf), leaf]) for name, leaf in leaves.items()}
    got = torch.func.vmap(one)(twice)
    yield Comparison("outputs of mapped systems", got.outputs[1], truth.outputs, allowed.outputs)
    yield Comparison(
        "states of mapped systems", got.final_state[1], truth.final_state, allowed.final_state
    )


def largest(allowed: Result) -> float:
    """Return the largest number of outputs and final state."""
    return float(torch.cat([each.flatten() for each in allowed]).max())


def size(case: Case) -> float:
    """Bound the size of all intermediate results and outputs, plus one."""
    return max(float(case.bounds.most.max()), largest(case.bounds.largest())) + 1


def is_tame(case: Case) -> bool:
    """Return whether a case is small and tame enough for differences."""
    numbers = sum(leaf.numel() for leaf in case.recurrence.leaves().values())
    small = 0 < case.steps and numbers + case.inputs.numel() <= FEW
    return small and size(case) <= TAME + 1


def gradient(outputs: Tensor, v: Tensor, given: Tensor) -> Tensor:
    """Return the gradient of Re⟨outputs, v⟩ in a tensor; zeros where it has no influence."""
    if not (outputs.numel() and outputs.requires_grad):
        return torch.zeros_like(given)
    (found,) = torch.autograd.grad(outputs, given, v, allow_unused=True)
    return torch.zeros_like(given) if found is None else found


def eps(tensor: Tensor) -> float:
    """Return the distance from one to the next larger number of a tensor's dtype."""
    return torch.finfo(tensor.dtype).eps
