"""The promises of docs/verifying.md, on cases that Hypothesis draws from a fixed seed."""

import os
from collections.abc import Callable

import pytest
import torch

import linrec
import lmu
from linrec.testing import EXECUTORS, check_executor, check_module
from linrec.testing.check import PROPERTIES as EVERY
from linrec.testing.check import cases, search
from linrec.testing.modules import PROPERTIES as MODULE_PROPERTIES
from linrec.testing.operations import PROPERTIES

EXAMPLES = 1000 if os.environ.get("LINREC_FULL") else 9

swing = linrec.LinearRecurrence([[0.9, -0.2], [0.2, 0.9]], [[1.0], [0.0]], [[0.0, 1.0]])

MODULES: dict[str, Callable[[], torch.nn.Module]] = {
    "recurrence": lambda: linrec.nn.Recurrence(swing),
    # (`Auto` runs few steps of a trained system in the very loop that it is compared with.)
    "trained recurrence": lambda: linrec.nn.Recurrence(
        swing, trainable=["A", "B"], executor=linrec.Chunked()
    ),
    "copies": lambda: linrec.nn.Recurrence(linrec.LinearRecurrence(swing.A, copies=2)),
    "layer": lambda: lmu.ParallelLMU(2, 5, channels=2, order=4, theta=10),
    "unit of 2019": lambda: lmu.LMU.original(2, 5, order=4, theta=10),
}


@pytest.mark.parametrize("executor", EXECUTORS, ids=str)
def test_an_executor_keeps_its_promises(executor: linrec.Executor) -> None:
    report = check_executor(executor, examples=EXAMPLES)
    assert set(report.properties) == set(EVERY)  # differences come later, on some cases alone
    assert max(report.shares.values()) > 0  # some of a bound is used: there was something to see
    found = report.comparisons.items()
    # What is reset varies, which not all of them can run.
    reset = executor.why_not(linrec.with_resets(swing, torch.tensor([0, 1]) > 0), 2) is None
    assert all(count or (name == "resets" and not reset) for (name, _), count in found)


def test_structures_are_the_matrices_that_they_stand_for() -> None:
    report = search(cases(), [linrec.Recurrent()], 3 * EXAMPLES, 0, PROPERTIES).raise_first()
    assert set(report.properties) == set(PROPERTIES) and all(report.comparisons.values())


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_one_function(name: str) -> None:
    torch.manual_seed(0)
    report = check_module(MODULES[name](), examples=max(EXAMPLES // 10, 8))
    assert set(report.properties) == set(MODULE_PROPERTIES)
    if name not in ("recurrence", "copies"):  # those have no parameters, and are linear
        assert max(v for (name, _), v in report.shares.items() if name == "second derivatives") > 0
