"""Memory of a module's results: writing into one must change nothing else."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from linrec.testing.case import Comparison
from linrec.testing.forms import Trial, is_number, own_tensors, tensors_of, whole

Comparisons = Iterator[Comparison]


def own_memory(trial: Trial) -> Comparisons:
    """Check that outputs and state have their own memory: writing into one changes nothing else.

    "Nothing else" means the other of the two, the inputs, the state before, and the module. A
    later call must not write into them either.
    """
    module, inputs = trial.module, trial.inputs.clone()
    step: Any = module.step
    with torch.no_grad():
        _, between = whole(module, inputs)
        for before in (None, between):
            given = () if before is None else (before,)
            for form, now in ((module, inputs), (step, inputs[:, 0])):
                name = "step" if form is step else "forward"
                outputs, state = form(now, *given)
                results = {"outputs": [outputs], "state": tensors_of(state)}
                others = {"inputs": [now], "state before": tensors_of(before)}
                others["module's own numbers"] = list(own_tensors(module).values())
                for written in results:
                    for what, change in changes(written, results | others):
                        text = f"{what} of `{name}`, once 1 was added to its {written}"
                        yield Comparison(text, change, torch.zeros(()), 0.0)
                kept = [each.clone() for each in (outputs, *tensors_of(state))]
                form(1 - now, *given)
                for mine, copy in zip((outputs, *tensors_of(state)), kept, strict=True):
                    yield Comparison(f"results of `{name}` after another call", mine, copy, 0.0)


def changes(written: str, groups: dict[str, list[Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Add 1 to each tensor of a group and subtract it again; list the changes in the others."""
    watched = [(name, each) for name, group in groups.items() if name != written for each in group]
    kept = [each.clone() for _, each in watched]
    for tensor in groups[written]:
        if not is_number(tensor):
            continue
        before = tensor.clone()
        try:
            tensor.add_(1)
        except RuntimeError:
            continue  # an expanded tensor, which cannot be written into
        moved = [
            (name, (now - copy).detach())
            for (name, now), copy in zip(watched, kept, strict=True)
            if bool(((now != copy) & (copy == copy)).any())
        ]
        tensor.copy_(before)
        yield from moved
