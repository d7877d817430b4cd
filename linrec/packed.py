"""Packed sequences, one after the other in one row, run as separate sequences."""

import torch
from torch import Tensor

from linrec._tensors.annotated import to_list, unique
from linrec._tensors.arguments import check_tensor, to_tensor
from linrec._tensors.known_values import has_values
from linrec._tensors.shapes import check_axes, show
from linrec.executors import Executor, Result
from linrec.planner import Auto
from linrec.run import run
from linrec.systems import LinearRecurrence, require_recurrence


def run_packed(
    recurrence: LinearRecurrence,
    inputs: Tensor,
    offsets: Tensor,
    initial_states: Tensor | None = None,
    *,
    executor: Executor = Auto(),
) -> Result:
    """Run sequences that are packed one after another in time, as for attention kernels.

        sequence i is inputs[offsets[i] : offsets[i + 1]]

    Each begins with its own initial state and ends with its own final state; nothing leaks from one
    to another. Sequences of similar lengths (within a factor of 2) are run as one padded batch, so
    that the padding computed never exceeds the data. A time-invariant system stays time-invariant,
    whereas `with_resets`, which gives the same outputs, makes a dense A for every step.

    Args:
        recurrence: the system; a time-varying one has a step for each of `inputs`.
        inputs (total, m): u of all sequences.
        offsets (sequences + 1): where each begins, and the end: from 0 to `total`, never
            decreasing. Known as `cu_seqlens`.
        initial_states (sequences, n): the state before the first step of each. None: zeros.
        executor: how each batch is run; `Auto` chooses for each.

    Returns:
        `outputs (total, p)`, packed as the inputs are, and `final_state (sequences, n)`, the state
        at the end of each sequence (of one without steps, its initial state).

    Raises:
        ValueError: the offsets do not fit the inputs, or the recurrence has batch axes.
        TypeError: the offsets are not whole numbers.
        RuntimeError: in a compiled graph, where the values of the offsets are unknown.

    Example:
        >>> import torch, linrec
        >>> count = linrec.LinearRecurrence(A=[[1.0]], B=[[1.0]])
        >>> outputs, ends = linrec.run_packed(count, torch.ones(5, 1), torch.tensor([0, 2, 5]))
        >>> outputs.flatten(), ends.flatten()
        (tensor([1., 2., 1., 2., 3.]), tensor([2., 3.]))
    """
    require_recurrence(recurrence)
    check_axes("inputs", check_tensor("inputs", inputs), 2, "(total, m)")
    starts, lengths = check_offsets(offsets, inputs)
    if inputs.ndim > 2 or recurrence.batch_shape:
        raise ValueError(
            f"`inputs` has shape {show(inputs.shape)} and the recurrence the batch axes "
            f"{show(recurrence.batch_shape)}: expected one row of inputs, (total, m), and one "
            "system. Call once for each system of a bank."
        )
    if recurrence.steps not in (None, len(inputs)):
        raise ValueError(
            f"The recurrence has {recurrence.steps} steps and `inputs` {len(inputs)}: expected as "
            "many."
        )
    count, states = len(lengths), recurrence.state_size
    if initial_states is not None and check_tensor("initial_states", initial_states).shape != (
        count,
        states,
    ):
        raise ValueError(
            f"`initial_states` has shape {show(initial_states.shape)}: expected "
            f"{(count, states)}, a state for each sequence."
        )
    places: list[Tensor] = []
    outputs: list[Tensor] = []
    rows: list[Tensor] = []
    finals: list[Tensor] = []
    sizes = torch.where(lengths > 0, (lengths - 1).clamp(min=1).log2().long() + 1, 0)
    for size in unique(sizes):
        of_size = (sizes == size).nonzero().squeeze(-1)
        longest = int(lengths[of_size].max())
        steps = torch.arange(longest, device=lengths.device)
        own = steps < lengths[of_size].unsqueeze(-1)
        index = torch.where(own, starts[of_size].unsqueeze(-1) + steps, 0).to(inputs.device)
        result = run(
            at_steps(recurrence, index),
            inputs[index],
            None if initial_states is None else initial_states[of_size.to(inputs.device)],
            lengths=lengths[of_size].to(inputs.device),
            executor=executor,
        )
        own = own.to(inputs.device)
        places.append(index[own])
        outputs.append(result.outputs[own])
        rows.append(of_size)
        finals.append(result.final_state)
    if not count:
        empty = run(recurrence.at(0), inputs[:0])
        return Result(empty.outputs, empty.final_state.new_zeros(0, states))
    # Each step belongs to one sequence: the order is a permutation.
    order, row_order = torch.cat(places).argsort(), torch.cat(rows).argsort().to(inputs.device)
    return Result(torch.cat(outputs)[order], torch.cat(finals)[row_order])


def at_steps(recurrence: LinearRecurrence, index: Tensor) -> LinearRecurrence:
    """Take the matrices of some steps, `index (sequences, time)`, of a time-varying system."""
    if not recurrence.time_varying:
        return recurrence

    def take(leaf: Tensor, core: int) -> Tensor:
        same = recurrence.steps != 1 and leaf.shape[-core - 1] == 1  # for all steps
        return leaf if same else leaf[index]

    return recurrence.map_batched(take)


def check_offsets(offsets: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Check that offsets go from 0 to the end; return the start and the length of each sequence."""
    given = to_tensor("offsets", offsets)
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise TypeError(
            f"`offsets` has dtype {given.dtype}: expected whole numbers, (sequences + 1). Of "
            "lengths: `torch.nn.functional.pad(lengths.cumsum(0), (1, 0))`."
        )
    if not has_values(given):
        raise RuntimeError(
            "`offsets` cannot be looked at here, as in a graph that is being compiled: expected "
            "numbers. Pass `resets=` to `linrec.run` there."
        )
    given = given.detach().cpu().long()
    falling = given.ndim == 1 and len(given) and bool((given.diff() < 0).any())
    if given.ndim != 1 or not len(given) or given[0] != 0 or given[-1] != len(inputs) or falling:
        shown = to_list(given) if given.numel() <= 8 else f"of shape {show(given.shape)}"
        raise ValueError(
            f"`offsets` is {shown}: expected one row of numbers from 0 to {len(inputs)}, the "
            "number of steps of `inputs`, none less than the one before."
        )
    return given[:-1], given.diff()
