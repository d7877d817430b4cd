"""Plans of recurrences, kept by modules between calls that record no gradient in them."""

from typing import Any, final

import torch
from torch import Tensor

from linrec._call import PreparedCall, prepare_call
from linrec._tensors.autograd import records_gradient
from linrec._tensors.dtypes import accumulation_dtype
from linrec._tensors.known_values import may_keep
from linrec.constraints import BoundParameters
from linrec.executors import Executor, Plan, Result
from linrec.systems import LinearRecurrence

# A recurrence's structure, into which tensors are put.
Template = LinearRecurrence | BoundParameters


@final
class PlanCache:
    """Run recurrences, and keep their plans where no gradient in the system is recorded.

    In training, gradients pass through the plan, and each step makes its own. A plan that is kept
    knows whether it is still valid for a recurrence; an invalid one is made anew. The plans of the
    last few lengths are kept. They are not part of a copy, a pickle or a state dict.

    Args:
        executor: how recurrences are run.
    """

    capacity = 8

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.plans: dict[tuple[Any, ...], Plan] = {}
        self.last: tuple[LinearRecurrence, dict[str, Tensor]] | None = None  # with its leaves

    def recurrence(self, shape: Template, leaves: dict[str, Tensor]) -> LinearRecurrence:
        """Put tensors into a template; the same tensors as last time give the same recurrence.

        A kept recurrence holds the tensors, so it sees later writes into them. Wrappers that end
        with a transform, and results of a graph, are not kept.
        """
        if torch.compiler.is_compiling():
            return shape.with_leaves(leaves)
        if self.last is not None:
            made, its_leaves = self.last
            if all(leaves.get(name) is leaf for name, leaf in its_leaves.items()):
                return made
        made, self.last = shape.with_leaves(leaves), None
        lasting = all(leaf.is_leaf and has_memory(leaf) for leaf in leaves.values())
        its_leaves = made.leaves()
        if lasting and all(leaves.get(name) is leaf for name, leaf in its_leaves.items()):
            self.last = made, its_leaves
        return made

    def clear(self) -> None:
        """Drop everything that is kept."""
        self.plans.clear()
        self.last = None

    def run(
        self,
        recurrence: LinearRecurrence,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Run all steps, as `linrec.run` does."""
        call = prepare_call(recurrence, inputs, initial_state, lengths)
        return call.run(self.executor, self.plan(call, last_only=False), compared=True)

    def final(
        self,
        recurrence: LinearRecurrence,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Result:
        """Run for the last step only, as `linrec.final` does."""
        call = prepare_call(recurrence, inputs, initial_state, lengths)
        return call.run_last(self.executor, self.plan(call, last_only=True), compared=True)

    def plan(self, call: PreparedCall, *, last_only: bool) -> Plan | None:
        """Find or make the plan of a call; None if it has to be made in the call itself."""
        recurrence, length, batch = call.given, call.steps, call.batch_shape
        if not length or torch.compiler.is_compiling():  # a graph should not have side effects
            return None
        tensors = recurrence.tensors()
        if not may_keep(*tensors):
            return None
        dtype, gradient = call.inputs.dtype, records_gradient(call.inputs, call.state)
        key = (length, last_only, gradient, dtype, *batch)
        kept = self.plans.get(key)
        if kept is not None and kept.why_not(recurrence, length) is None:
            return kept
        if dtype != accumulation_dtype(recurrence.dtype) or not all(map(has_memory, tensors)):
            return None
        executor = self.executor.select(
            recurrence, length, batch, last_only=last_only, prepared=True, gradient=gradient
        )
        if executor.why_not(recurrence, length) is not None:
            return None
        plan = self.same(executor, recurrence, length)
        if plan is None:
            # Tensors made in inference mode could not be used in training afterwards.
            with torch.inference_mode(False), torch.no_grad():
                plan = executor.prepare(recurrence, length)
        self.plans.pop(key, None)
        for oldest in list(self.plans)[: -self.capacity + 1]:
            self.plans.pop(oldest, None)
        self.plans[key] = plan
        return plan

    def same(self, executor: Executor, recurrence: LinearRecurrence, length: int) -> Plan | None:
        """Find the plan of a call that differs only in its batch."""
        for plan in list(self.plans.values()):  # another thread may be adding one
            if plan.executor == executor and plan.why_not(recurrence, length) is None:
                return plan
        return None

    def __deepcopy__(self, memo: dict[int, Any]) -> "PlanCache":
        return PlanCache(self.executor)

    def __getstate__(self) -> dict[str, Any]:
        return {"executor": self.executor, "plans": {}, "last": None}


def has_memory(tensor: Tensor) -> bool:
    """Whether a tensor outlives the call: inside vmap and torch.func.grad it is a wrapper."""
    try:
        tensor.data_ptr()
    except RuntimeError:
        return False
    return True
