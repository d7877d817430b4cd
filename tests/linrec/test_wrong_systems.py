"""What is no system, or one of the wrong kind, is named with what was expected."""

# Wrong arguments are passed on purpose.
# pyright: reportArgumentType=false

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

import linrec
import linrec.testing
import lmu
from linrec import export, interop

RECURRENCE = linrec.LinearRecurrence(A=[[0.5]], B=[[1.0]])
SYSTEM = linrec.StateSpace(A=[[-1.0]], B=[[1.0]])
INPUTS = torch.ones(3, 1)

EXECUTORS = (
    linrec.Recurrent(),
    linrec.FFTConvolution(),
    linrec.Toeplitz(),
    linrec.AssociativeScan(),
    linrec.Chunked(),
    linrec.Auto(),
)

# Functions of a recurrence; of a StateSpace they would take Λ for e^Λ.
OF_RECURRENCES: dict[str, Callable[[Any], object]] = {
    "run": lambda value: linrec.run(value, INPUTS),
    "final": lambda value: linrec.final(value, INPUTS),
    "step": lambda value: linrec.step(value, INPUTS[0]),
    "run_packed": lambda value: linrec.run_packed(value, INPUTS, torch.tensor([0, 3])),
    "certify": lambda value: linrec.certify(value, INPUTS),
    "explain": lambda value: linrec.explain(value, 3),
    "select": lambda value: linrec.Auto().select(value, 3),
    **{f"{each}.prepare": partial(each.prepare, length=3) for each in EXECUTORS},
    "impulse_response": lambda value: linrec.impulse_response(value, 3),
    "step_response": lambda value: linrec.step_response(value, 3),
    "adjoint": linrec.adjoint,
    "with_resets": lambda value: linrec.with_resets(value, torch.zeros(3, dtype=torch.bool)),
    "contracting_coordinates": lambda value: linrec.contracting_coordinates(value, 3),
    "to_pre_update": interop.to_pre_update,
    "quantize": lambda value: export.quantize(value, steps=3),
    "quantize_weights": lambda value: export.quantize_weights(value, steps=3),
    "exact_reference": lambda value: linrec.testing.exact_reference(value, INPUTS),
    "error_bound": lambda value: linrec.testing.error_bound(value, INPUTS, linrec.Recurrent()),
}
OF_BOTH: dict[str, Callable[[Any], object]] = {
    "poles": linrec.poles,
    "frequency_response": lambda value: linrec.frequency_response(value, torch.ones(1)),
    "series": lambda value: linrec.series(value, value),
    "parallel": lambda value: linrec.parallel(value, value),
    "feedback of a gain": lambda value: linrec.feedback(value, 0.5),
    "similarity_transform": lambda value: linrec.similarity_transform(value, [[2.0]]),
    "balanced_realization": linrec.balanced_realization,
    "real_part": linrec.real_part,
    "to_scipy": interop.to_scipy,
}
WRONG: dict[str, Callable[[], object]] = {
    "Recurrence": lambda: linrec.nn.Recurrence(RECURRENCE),
    "LegendreMemory": lambda: lmu.LegendreMemory(1, 4, 8.0),
    "Tensor": lambda: torch.eye(2),
    "tuple": lambda: ([[0.5]], [[1.0]]),
    "NoneType": lambda: None,
}


@pytest.mark.parametrize("name", {**OF_RECURRENCES, **OF_BOTH})
@pytest.mark.parametrize("wrong", WRONG)
def test_no_system(name: str, wrong: str) -> None:
    ask = {**OF_RECURRENCES, **OF_BOTH}[name]
    kinds = "LinearRecurrence" if name in OF_RECURRENCES else "LinearRecurrence or a StateSpace"
    said = f"is of type {wrong}: expected a {kinds}. Of a"
    with pytest.raises(TypeError, match=re.escape(said)):
        ask(WRONG[wrong]())


@pytest.mark.parametrize("name", OF_RECURRENCES)
def test_a_continuous_system_where_a_recurrence_is_expected(name: str) -> None:
    with pytest.raises(TypeError, match=re.escape("is of type StateSpace: expected")) as error:
        OF_RECURRENCES[name](SYSTEM)
    assert "`discretize(system, dt)`" in str(error.value)


@pytest.mark.parametrize("name", {**OF_RECURRENCES, **OF_BOTH})
def test_what_is_advised_is_taken(name: str) -> None:
    module = linrec.nn.Recurrence(linrec.discretize(SYSTEM, 0.1))
    assert {**OF_RECURRENCES, **OF_BOTH}[name](module.recurrence) is not None
