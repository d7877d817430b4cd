"""Gradients in full precision, where the program allows products in TF32 or bfloat16."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack

import torch
from torch import Tensor
from torch.autograd.graph import Node

from linrec._tensors.full_precision import are_coarse, exact_products


def keep_digits(results: Iterable[Tensor], given: Callable[[], Iterable[Tensor | None]]) -> None:
    """Make autograd compute the gradients of results with all digits, back to the arguments.

    Forward products are computed with all digits (`full_precision`), but autograd computes the
    gradients' products later, under the program's settings. So each of its nodes between the
    arguments and the results changes the settings for itself; the program's own nodes before and
    after keep theirs. (Nodes made by a differentiated backward pass are not reached.)

    Args:
        results: outputs and states of a run.
        given: lists the arguments of the run; nodes behind them belong to the program. (Only called
            where the program allows fewer digits.)
    """
    found = [each for each in results if each.requires_grad]
    if not found or torch.compiler.is_compiling() or not are_coarse(found[0].device.type):
        return
    # (This check has no public name; torch's own `Function.apply` makes it in every call.)
    if torch._C._are_functorch_transforms_active():  # pyright: ignore[reportPrivateUsage]  # as said
        return
    device = found[0].device.type
    done = {each.grad_fn for each in given() if each is not None and each.grad_fn is not None}
    waiting = [each.grad_fn for each in found]
    while waiting:
        node = waiting.pop()
        if node is None or node in done or node.name().endswith("AccumulateGrad"):
            continue
        done.add(node)
        compute_exactly(node, device)
        waiting.extend(before for before, _ in node.next_functions)


def compute_exactly(node: Node, device: str) -> None:
    """Make an autograd node compute its products in float32."""
    stack = ExitStack()

    def before(gradients: object) -> None:
        stack.enter_context(exact_products(device, False))

    def after(computed: object, gradients: object) -> None:
        stack.close()

    node.register_prehook(before)  # type: ignore[arg-type]  # torch takes hooks that return nothing
    node.register_hook(after)  # type: ignore[arg-type]  # as above
