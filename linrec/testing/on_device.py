"""An executor that runs another one on a device, so that the kit can check the device."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from linrec.executors import Executor, Plan, Result
from linrec.run import final, run
from linrec.systems import LinearRecurrence

# Kernels multiply factors of 22 bits (linrec.kernels.chunk_kernels), in up to four products of 16
# or more terms: each adds 8 roundings to the sum's 16 or more.
SLACK = 3.0


@dataclass(frozen=True)
class OnDevice(Executor):
    """An executor that runs another one on a device, moving calls there and results back.

    It makes the promises of the other executor, including gradients. The kit checks it against the
    same bounds, or three times the bounds on CUDA (whose kernels have products of 22 bits).

    Args:
        inner: the other executor.
        device: the device.

    Example:
        >>> import torch, linrec
        >>> from linrec.testing.on_device import OnDevice
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> there = OnDevice(linrec.Chunked(), "cpu")
        >>> linrec.run(average, torch.ones(2, 1), executor=there).outputs.mT
        tensor([[0.5000, 0.7500]])
    """

    inner: Executor
    device: str

    def why_not(self, recurrence: LinearRecurrence, length: int) -> str | None:
        """Return the other executor's reason."""
        return self.inner.why_not(recurrence, length)

    def execute(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Result:
        """Prepare and run all steps on the device."""
        back = inputs.device
        found = run(*self.moved(recurrence, inputs, state), executor=self.inner)
        return Result(found.outputs.to(back), found.final_state.to(back))

    def final_state(
        self, recurrence: LinearRecurrence, plan: Plan, inputs: Tensor, state: Tensor | None
    ) -> Tensor:
        """Compute the last state on the device."""
        found = final(*self.moved(recurrence, inputs, state), executor=self.inner)
        return found.final_state.to(inputs.device)

    def moved(
        self, recurrence: LinearRecurrence, inputs: Tensor, state: Tensor | None
    ) -> tuple[LinearRecurrence, Tensor, Tensor | None]:
        """Move a call to the device."""
        there = recurrence.with_leaves(
            {name: leaf.to(self.device) for name, leaf in recurrence.leaves().items()}
        )
        return there, inputs.to(self.device), None if state is None else state.to(self.device)


def inner_of(executor: Executor) -> tuple[Executor, float]:
    """Return the executor that does the work, and the factor of its bound on the device."""
    if not isinstance(executor, OnDevice):
        return executor, 1.0
    return executor.inner, SLACK if torch.device(executor.device).type == "cuda" else 1.0


@contextmanager
def no_waiting(device: str) -> Iterator[None]:
    """Make it an error to wait for a GPU; elsewhere nothing waits for one."""
    if torch.device(device).type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
