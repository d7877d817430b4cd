"""Sizes that a graph leaves open, and loops over them.

`torch.compile` and `torch.export` trace sizes as symbols where they may change from call to call. A
symbol has no value to branch on, count to or hash: code that does so ties the graph to the sizes it
was traced with. This module has checks for open sizes, and a loop that is one node of a graph.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._higher_order_ops import scan

from linrec._tensors.annotated import scan_of_graph

# The value assumed for an open size where a choice depends on sizes.
NOMINAL_STEPS, NOMINAL_BATCH = 1024, 32


def is_open(*sizes: int) -> bool:
    """Whether the graph being traced leaves any of the sizes open."""
    if not torch.compiler.is_compiling():
        return False
    from torch.fx.experimental.symbolic_shapes import has_static_value  # a second of imports

    for size in sizes:  # a plain loop: Dynamo traces no generator into `all`
        if not has_static_value(size):
            return True
    return False


def nominal_size(size: int, nominal: int) -> int:
    """Return a size, or its nominal value if it is left open."""
    return nominal if is_open(size) else size


def loop(
    step: Callable[..., Tensor],
    state: Tensor,
    sequences: Sequence[Tensor],
    constants: Sequence[Tensor] = (),
    *,
    before: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run x_t = step(x_{t-1}, s_t, …, c, …) as one node of a graph, however many steps there are.

    Args:
        step: gives a state `(*batch, n)` from the one before, one step of each sequence, and the
            constants. It may use no other tensor.
        state (*batch, n): the state before the first step.
        sequences (time, …): s, one or more of them, time first.
        constants: c, the same in all steps.
        before: whether to return the states before each step instead of those after it.

    Returns:
        The states `(time, *batch, n)` and the one after the last step, computed by differentiable
        operations. With a gradient all states are stored.
    """
    start = state.clone(memory_format=torch.contiguous_format)

    def body(state: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        # (`contiguous` would leave the stride of an axis of length 1 unchanged.)
        after = step(state, *rest).clone(memory_format=torch.contiguous_format)
        return after, (state if before else after).clone()  # results must not share memory

    if torch.compiler.is_dynamo_compiling():
        last, states = scan(lambda state, now: body(state, *now, *constants), start, (*sequences,))
        return states, last

    # `scan` would compile its function with Dynamo, which compares open sizes with those of
    # functions compiled before: the second export of a program would fail. Inductor allocates the
    # states by the sizes that it is given, and Dynamo, which would give it the open ones, has not
    # seen this graph.
    def step_of_graph(state: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        return body(state, *rest[: len(rest) - len(sizes)])

    sizes = [size for size in start.shape if is_open(size)]
    last, states = scan_of_graph(
        step_of_graph,
        [start],
        [*sequences],
        (*constants, *sizes),
    )
    return states, last


def in_groups(sequence: Tensor, size: int) -> Tensor:
    """Cut `(*batch, time, n)` into groups of steps, `(*batch, groups, size, n)`, and add zeros.

    There are at least three groups, the last two of zeros only: a graph is traced for sizes of two
    or more, and this makes the open size provably so. (With padding and cutting it would have to
    compare sizes without knowing which is larger.)
    """
    zero = sequence.new_zeros(*sequence.shape[:-2], 1, sequence.shape[-1])
    return torch.cat([sequence, zero], -2)[..., group_index(sequence, size), :]


def group_index(sequence: Tensor, size: int) -> Tensor:
    """Number the steps of groups `(groups, size)`; padding steps have the number T."""
    steps = sequence.shape[-2]
    # (Not T // size + 3: torch would not see that this divides 16 times itself.)
    groups = (steps + 3 * size - 1) // size
    first = size * torch.arange(groups, device=sequence.device)
    index = first.unsqueeze(-1) + torch.arange(size, device=sequence.device)
    return index.clamp(max=steps)


def out_of_groups(groups: Tensor, steps: int) -> Tensor:
    """Join groups `(*batch, groups, size, n)` along time, and keep the first `steps` steps."""
    size, index = groups.shape[-2], torch.arange(steps, device=groups.device)
    return groups[..., index // size, index % size, :]


def add_to_first(sequence: Tensor, addition: Tensor, core: int) -> Tensor:
    """Add a tensor to the first step of `(*batch, time, …)`, with `core` axes after time.

    (A graph that joins the first step and the rest would check whether the rest is one step.)
    """
    first = torch.arange(sequence.shape[-core - 1], device=sequence.device) == 0
    return sequence + torch.where(first[(..., *[None] * core)], addition.unsqueeze(-core - 1), 0)
