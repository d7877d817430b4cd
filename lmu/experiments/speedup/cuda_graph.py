"""A training step as a CUDA graph, which is recorded once and then launched as a whole."""

from collections.abc import Callable

import torch

# Steps before the recording, in which libraries do their one-time setup.
WARM_UP = 3


def record(step: Callable[[], object], device: str) -> Callable[[], object]:
    """Record the work that a training step launches on a GPU.

    Args:
        step: takes a step on inputs at fixed addresses, and never waits for the GPU.
        device: the GPU.

    Returns:
        A function that takes the next step. Dropout draws anew in each.

    References:
        PyTorch documentation, CUDA semantics, "Whole-network capture".
    """
    with torch.cuda.device(device):
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                step()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()

    def replay() -> None:
        with torch.cuda.device(device):
            graph.replay()

    return replay
