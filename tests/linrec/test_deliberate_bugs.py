"""The kit finds deliberate bugs, planted one by one, each by the intended property."""

from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.signal import cont2discrete
from torch import Tensor

import linrec
import lmu
from linrec.testing import Disagreement, check_case, check_module, recurrences, shrink
from linrec.testing.check import PROPERTIES, cases, drawn_for, search
from linrec.testing.modules import PROPERTIES as MODULE_PROPERTIES
from linrec.testing.modules import search_module
from linrec.testing.operations import PROPERTIES as OPERATIONS
from tests.linrec import shared_memory, wrong_derivatives
from tests.linrec.corpus import CORPUS
from tests.linrec.deliberate_bugs import BUGS, Bug, patched
from tests.linrec.wrong_executors import WRONG as WRONG_EXECUTORS
from tests.linrec.wrong_executors import PassingInputsOn
from tests.linrec.wrong_modules import WRONG, Leaky, Reset

# That nothing fails before the bug is planted; test_properties.py looks at that at length. The
# search for the bug ends with the first failure.
SOUND, BROKEN = 5, 600


def failures(bug: Bug, executor: linrec.Executor, examples: int) -> list[Disagreement]:
    """Search for what the bug's property finds."""
    properties = {bug.property: (PROPERTIES | OPERATIONS)[bug.property]}
    around = cases(recurrences(bug.drawn))
    return search(around, [executor], examples, 0, properties).failures


@pytest.mark.parametrize("name", BUGS)
@pytest.mark.sampled(2)
def test_a_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug = BUGS[name]
    monkeypatch.setattr(shrink, "ATTEMPTS", 5)  # that it is found matters here, not how small
    sound = linrec.Recurrent() if bug.plant is None else bug.executor
    assert not failures(bug, sound, SOUND), "the unbroken library fails"
    if bug.plant is not None:
        bug.plant(monkeypatch)
    found = failures(bug, bug.executor, BROKEN)
    assert found and found[0].property == bug.property


def bilinear_error() -> float:
    """How far the bilinear transform is from scipy's."""
    A, B = torch.tensor([[-1.0, 2.0], [0.0, -3.0]]).double(), torch.tensor([[0.0], [1.0]]).double()
    C, D = torch.eye(2).double(), torch.zeros(2, 1).double()
    got = linrec.discretize(linrec.StateSpace(A, B, C, D), 0.1, "bilinear").A.to_dense()
    matrices = tuple(matrix.numpy() for matrix in (A, B, C, D))
    expected: Any = cont2discrete(matrices, 0.1, "bilinear")
    return float((got - torch.as_tensor(expected[0])).abs().max())


def test_a_wrong_sign_in_the_bilinear_transform_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bilinear_error() < 1e-15
    transform = "linrec.discretization.discretize.generalized_bilinear"

    def backwards(right):
        def wrong(system, alpha):
            A = system.A.map(lambda leaf, _: -leaf)
            return right(linrec.StateSpace(A, -system.B, system.C, system.D), alpha)

        return wrong

    patched(transform, backwards)(monkeypatch)
    assert bilinear_error() > 0.1


class Wrapped(torch.nn.Module):
    """A layer that streams, whose parts can be replaced by wrong ones."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.input_size = 2
        self.layer = lmu.ParallelLMU(2, 5, channels=2, order=4, theta=10)
        torch.manual_seed(0)
        self.other = lmu.ParallelLMU(2, 5, channels=2, order=4, theta=11)

    def forward(
        self, inputs: Tensor, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.layer(inputs, state, lengths=lengths)

    def step(self, input: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.layer.step(input, state)


class OtherDecay(Wrapped):
    def step(self, input: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.other.step(input, state)


class Forgetful(Wrapped):
    def forward(
        self, inputs: Tensor, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.layer(inputs, None, lengths=lengths)


class Leaking(Wrapped):
    def forward(
        self, inputs: Tensor, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.layer(inputs.nan_to_num(0.0), state)


class AllAsLongAsTheLongest(Wrapped):
    def forward(
        self, inputs: Tensor, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        longest = None if lengths is None else torch.full_like(lengths, int(lengths.max()))
        return self.layer(inputs, state, lengths=longest)


class SpoiledByNoSteps(Wrapped):
    def forward(
        self, inputs: Tensor, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        outputs, after = self.layer(inputs, state, lengths=lengths)
        none = torch.zeros(len(inputs)) if lengths is None else lengths == 0
        return outputs, torch.where(none.bool().unsqueeze(-1), torch.nan, after)


class LosingTheStateAtLast(Wrapped):
    def forward(
        self, inputs: Tensor, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        outputs, after = self.layer(inputs, state, lengths=lengths)
        return outputs, after if state is None else torch.zeros_like(after)


class Unchanged(torch.autograd.Function):
    """Changes nothing, as its parts do."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.clone()


class Detached(Unchanged):
    """Has no second derivative."""

    generate_vmap_rule = True

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.detach()


class DifferentiableOnce(Wrapped):
    def forward(
        self, inputs: Tensor, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        outputs, after = self.layer(inputs, state, lengths=lengths)
        return Detached.apply(outputs).square(), after

    def step(self, input: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, after = self.layer.step(input, state)
        return outputs.square(), after


class Doubling(Unchanged):
    """Mapped, it doubles."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor) -> tuple[Tensor, int]:
        return 2 * x, in_dims[0]


class MappedOtherwise(Wrapped):
    def forward(
        self, inputs: Tensor, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        outputs, after = self.layer(inputs, state, lengths=lengths)
        return Doubling.apply(outputs), after


class LookingAhead(Wrapped):
    def forward(
        self, inputs: Tensor, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.layer(inputs - 0.01 * inputs.mean(1, keepdim=True), state)


class Normalizing(Wrapped):
    def forward(
        self, inputs: Tensor, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.layer(inputs - 0.01 * inputs[:, :1].mean(0, keepdim=True), state)


class RememberingOverResets(Wrapped):
    def forward(
        self,
        inputs: Tensor,
        state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        return self.layer(inputs, state, lengths)


MODULES: dict[str, tuple[type[Wrapped], set[str]]] = {
    "a reset is overlooked": (RememberingOverResets, {"resets"}),
    "step has another decay": (OtherDecay, {"streaming"}),
    "forward ignores the state": (Forgetful, {"continuation"}),
    "padding runs on in the state": (Leaking, {"padding"}),
    "every sequence is read as far as the longest": (AllAsLongAsTheLongest, {"padding"}),
    "a sequence of no steps spoils the state": (SpoiledByNoSteps, {"padding"}),
    "a second call ends in another state": (LosingTheStateAtLast, {"continuation"}),
    "there is no second derivative": (DifferentiableOnce, {"second derivatives"}),
    "mapped, it is another": (MappedOtherwise, {"vmap"}),
    "outputs depend on later inputs": (LookingAhead, {"streaming", "causality"}),
    "outputs depend on the batch": (Normalizing, {"streaming", "independence"}),
}


@pytest.mark.parametrize("right", [Wrapped, Leaky, Reset])
def test_a_right_module_is_not_found_wrong(right: type[torch.nn.Module]) -> None:
    report = check_module(right(), examples=9)  # of them four are large
    assert report.extents["steps"][1] >= 1000 and report.extents["sequences"][1] > 64
    assert "Beyond that nothing was tried." in str(report)


WRONG_MODULES = MODULES | WRONG | wrong_derivatives.WRONG | shared_memory.WRONG


@pytest.mark.parametrize("name", WRONG_MODULES)
@pytest.mark.sampled(2)
def test_a_wrong_module_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shrink, "ATTEMPTS", 5)
    wrong, properties = WRONG_MODULES[name]
    for property in properties:  # each finds it by itself
        others = set(MODULE_PROPERTIES) - {property}
        found = search_module(wrong(), None, 30, 0, without=others).failures
        assert found and found[0].property == property


def test_the_bugs_that_others_met_are_in_the_docs_and_planted_here() -> None:
    """Each of ours is found by a test above; what the search met first is in the table."""
    page = (Path(__file__).parents[2] / "docs" / "verifying.md").read_text()
    for each in CORPUS:
        assert f"| {each.bug} | {each.where} | {each.ours} | {each.property} |" in page
        assert each.ours in WRONG | WRONG_EXECUTORS | BUGS


@pytest.mark.parametrize("name", WRONG_EXECUTORS)
@pytest.mark.sampled(2)
def test_an_executor_right_on_small_cases_is_found(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shrink, "ATTEMPTS", 5)
    executor, property = WRONG_EXECUTORS[name]
    drawn, large = drawn_for(None, None, None, 120)
    count, wanted = 15 + len(large), {property: PROPERTIES[property]}
    # (A fault of large numbers alone needs a draw of them, which some seeds have not.)
    for seed in range(6):
        found = search(drawn, [executor], count, seed, wanted, large=large)
        if found.failures:
            break
    else:
        pytest.fail("no seed has a failure")
    assert found.failures[0].property == property


def test_outputs_that_are_the_inputs_themselves_are_found() -> None:
    nothing = linrec.LinearRecurrence(linrec.Diagonal(torch.zeros(2)))
    inputs, property = torch.ones(3, 2), "untouched"
    with pytest.raises(Disagreement, match="the inputs after its results were overwritten"):
        check_case(nothing, inputs, executor=PassingInputsOn(), property=property)
    assert check_case(nothing, inputs, executor=linrec.Recurrent(), property=property) == 0
