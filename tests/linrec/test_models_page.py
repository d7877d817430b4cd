"""docs/models.md is correct: each of its models agrees with a plain loop over its equations."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.linrec.model_loops import LOOPS, Page, in_order

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text()
PARTS = r"^### ([^\n]*)$|^```python\n(.*?)^```$"  # headings of models, and blocks
EPS = 2.0**-52


@functools.cache
def models() -> dict[str, tuple[Page, Tensor]]:
    """Run the page; of each model keep the tensors that there are then, and its outputs.

    Every tensor that is drawn records gradients, so that a loop and the page can be compared in
    those as well.
    """
    torch.manual_seed(0)
    namespace: dict[str, Any] = {}
    found, name = {}, ""
    for match in re.finditer(
        r"^### ([^\n]*)$|^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE
    ):
        if match[1]:
            name = match[1]
            continue
        namespace.pop("outputs", None)
        exec(match[2], namespace)
        if not found and not name:  # the first block: from now on what is drawn records gradients
            namespace["drawn"] = recording(namespace["drawn"])
            namespace["x"].requires_grad_()
        elif "outputs" in namespace:
            held = {key: each for key, each in namespace.items() if isinstance(each, Tensor)}
            found[name] = (SimpleNamespace(**held), held["outputs"])
    return found


def recording(drawn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Draw tensors that record gradients."""
    return lambda *shape: drawn(*shape).requires_grad_()


def test_the_page_and_the_loops_have_the_same_models() -> None:
    assert set(models()) == set(LOOPS) and len(LOOPS) == 21
    anchors = re.findall(r"^\| \[.*?\]\(#(.*?)\)", TEXT, re.MULTILINE)
    assert {name.lower().replace(" ", "-") for name in LOOPS} == set(anchors)


def values_and_gradients(outputs: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1)).double()
    slopes = torch.autograd.grad(
        (weights * outputs).sum(), leaves, allow_unused=True, retain_graph=True
    )
    return [outputs.detach(), *(torch.zeros(()) if each is None else each for each in slopes)]


def furthest(run: Callable[[Page], list[Tensor]], page: Page, base: list[Tensor]) -> list[float]:
    """How far results move with every tensor rounded at random, times the roundings of a path.

    As `linrec.testing.check_module` allows: 50 steps, and sums of at most 10 numbers.
    """
    generator, moved = torch.Generator().manual_seed(0), [0.0] * len(base)
    for _ in range(4):
        noisy = {}
        for name, tensor in vars(page).items():
            noise = torch.randint(-1, 2, tensor.shape, generator=generator)
            noisy[name] = tensor.detach() * (1 + EPS * noise)
        results = run(SimpleNamespace(**noisy))
        pairs = zip(moved, results, base, strict=True)
        moved = [max(far, float((now - was).abs().max())) for far, now, was in pairs]
    return [
        60 * max(far, EPS * float(was.abs().max())) for far, was in zip(moved, base, strict=True)
    ]


@pytest.mark.parametrize("name", LOOPS)
def test_a_model_is_its_plain_loop(name: str) -> None:
    page, outputs = models()[name]

    def gradients_of(outputs: Tensor, page: Page) -> list[Tensor]:
        return values_and_gradients(outputs, [getattr(page, key) for key in names])

    def looped(page: Page) -> list[Tensor]:
        for key in names:
            getattr(page, key).requires_grad_()
        return gradients_of(in_order(LOOPS[name](page)), page)

    loop = in_order(LOOPS[name](page))
    recorded = {key: each for key, each in vars(page).items() if each.requires_grad}
    slopes = torch.autograd.grad(
        loop.sum(), list(recorded.values()), allow_unused=True, retain_graph=True
    )
    # The tensors that the loop reads.
    names = [key for key, slope in zip(recorded, slopes, strict=True) if slope is not None]
    assert names, "the loop depends on nothing of the page"
    wanted = gradients_of(loop, page)
    limits = furthest(looped, page, wanted)
    for limit, one, other in zip(limits, gradients_of(outputs, page), wanted, strict=True):
        assert float((one - other).abs().max()) <= limit
