"""Gradients in full precision, where the program allows products in TF32 or bfloat16."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack

import torch
from torch import Tensor
from torch.autograd.graph import Node

from linrec._tensors.full_precision import are_coarse, exact_products


def keep_digits(results: Iterable[Tensor], given: Callable[[], Iterable[Tensor | None]]) -> None:
    """Have autograd compute the gradients of results with all digits, back to the arguments.

    Forward products are computed so (`full_precision`). Autograd computes those of the gradients
    later, under the settings of the program. Here each of its nodes between the results and what
    was given sets them for itself, and the program's own nodes before and after keep theirs. (Nodes
    that a differentiated backward pass makes are not reached.)

    Args:
        results: outputs and states of a run.
        given: lists the tensors that were given to it; nodes behind them are the program's. (It is
            asked where the program allows fewer digits alone.)
    """
    found = [each for each in results if each.requires_grad]
    if not found or torch.compiler.is_compiling() or not are_coarse(found[0].device.type):
        return
    # (It has no public name; torch's own `Function.apply` asks it in every call.)
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
    """Have a node of autograd compute its products in float32."""
    stack = ExitStack()

    def before(gradients: object) -> None:
        stack.enter_context(exact_products(device, False))

    def after(computed: object, gradients: object) -> None:
        stack.close()

    node.register_prehook(before)  # type: ignore[arg-type]  # torch takes hooks that return nothing
    node.register_hook(after)  # type: ignore[arg-type]  # as above
