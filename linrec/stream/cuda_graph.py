"""A step as a CUDA graph, which is recorded once and launched for each sample."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from linrec._tensors.full_precision import full_precision
from linrec.stream.frozen_copy import Held

# Runs before a graph is recorded, in which libraries do their one-time setup.
WARM_UP = 3

Found = TypeVar("Found")


def why_not(held: Held) -> str | None:
    """Say why there is no graph of a step; None if there is one."""
    if held.device.type != "cuda":
        return f"the stream is on {held.device}, where nothing is launched: only CUDA has graphs"
    if held.varying:
        return "the recurrence varies in time, and the matrices of a step come with its sample"
    return None


def record(
    device: torch.device | str, work: Callable[[], Found], *, threads: bool = False
) -> tuple[Found, Callable[[], object]]:
    """Record the work that a function launches on a GPU.

    Args:
        device: the GPU.
        work: reads and writes tensors that stay at the same addresses, and never waits for the GPU.
        threads: whether other threads launch work too, as those of a backward pass do; then what
            may not be recorded is refused in all threads. False: in this one alone, so that others
            may go on with work of their own.

    Returns:
        What `work` returned, and a function that recomputes it in place. Random numbers are drawn
        anew each time.

    References:
        PyTorch documentation, CUDA semantics, "CUDA Graphs" (on running the work before).
    """
    refused = "global" if threads else "thread_local"
    with torch.cuda.device(device):
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                work()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode=refused):
            found = work()

    def replay() -> None:
        with torch.cuda.device(device):
            graph.replay()

    return found, replay


class CapturedStep:
    """One step with sample, state and outputs at fixed addresses.

    Args:
        held: the system to step.
        state (*streams, n): where the streams are.
        streams: the axes of the streams.
    """

    def __init__(self, held: Held, state: Tensor, streams: torch.Size) -> None:
        shape = (*streams, held.input_size)
        self.sample = torch.zeros(shape, dtype=held.dtype, device=held.device)
        self.state = state.clone()
        fast = held.fast_step()

        def advance() -> Tensor:
            with torch.no_grad(), full_precision(self.sample):
                if fast is not None:
                    outputs, after = fast(self.sample, self.state)
                else:
                    outputs, after = held.step(self.sample, self.state, None)
                self.state.copy_(after)
                return outputs

        self.outputs, self.replay = record(held.device, advance)
        self.state.copy_(state)  # (it has moved on while it was recorded)

    def fits(self, state: Tensor) -> bool:
        """Whether the tensors have the right size for a state."""
        return self.state.shape == state.shape

    def __call__(self, sample: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Compute outputs, in memory of their own, and the next state.

        Args:
            sample (*streams, m): u.
            state (*streams, n): x. The state that the previous step returned is not copied.
        """
        if state is not self.state:
            self.state.copy_(state)
        self.sample.copy_(sample)
        self.replay()
        return self.outputs.clone(), self.state
