"""The checks of a device (`pytest -m gpu`), run here with the CPU as the device."""

import pytest
import torch

import linrec
from linrec.executors import Executor
from linrec.kernels import elementwise
from linrec.testing import Disagreement, device_checks
from linrec.testing.device_checks import CHECKS, FULL, SMALL, Check
from linrec.testing.on_device import OnDevice, no_waiting


def is_tried_here(name: str) -> bool:
    """With the CPU as the device a few of a kind are enough: they are the same code."""
    if name.startswith(("kit", "linrec.nn")):
        return name in ("kit: Chunked", "linrec.nn.GatedDeltaNet")
    kinds = ("float16", "bfloat16", "float64", "complex64", "complex128")
    return not name.endswith(kinds) or name.endswith("complex64")


@pytest.mark.gpu
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_it_holds_on_a_gpu(check: Check) -> None:
    check.hold("cuda", FULL)


@pytest.mark.parametrize(
    "check", [each for each in CHECKS if is_tried_here(each.name)], ids=lambda check: check.name
)
def test_it_holds_where_the_cpu_is_the_device(check: Check, monkeypatch) -> None:
    # (Kernels have tests of their own, in the interpreter.)
    monkeypatch.setattr(elementwise, "HAS_TRITON", False)
    check.hold("cpu", SMALL)


class Spoilt(Executor):
    """Runs a recurrence, and forgets one of its outputs."""

    def execute(self, recurrence, plan, inputs, state):  # type: ignore[no-untyped-def]
        outputs, state = linrec.run(recurrence, inputs, state, executor=linrec.Recurrent())
        return linrec.Result(outputs.index_fill(-2, torch.tensor(3), 0.0), state)


def test_an_executor_that_is_wrong_on_the_device_is_found() -> None:
    with pytest.raises(Disagreement):
        device_checks.agrees(Spoilt(), torch.float32, "cpu", SMALL)


@pytest.mark.parametrize("what", ["states", "gradient in the decay"])
def test_a_scan_that_is_wrong_on_the_device_is_found(what: str, monkeypatch) -> None:
    monkeypatch.setattr(elementwise, "HAS_TRITON", False)
    if what == "states":
        wrong = lambda *given: elementwise.elementwise_scan(*given) * 1.001  # noqa: E731
        monkeypatch.setattr(device_checks, "elementwise_scan", wrong)
    else:

        def spoilt(*given):  # type: ignore[no-untyped-def]
            found = elementwise.elementwise_gradients(*given)
            return found if given[0].dtype == torch.float64 else (1.01 * found[0], *found[1:])

        monkeypatch.setattr(device_checks, "elementwise_gradients", spoilt)
    with pytest.raises(AssertionError, match=what):
        device_checks.scans(torch.float32, "cpu", SMALL)


def test_a_layer_that_is_wrong_on_the_device_is_found(monkeypatch) -> None:
    own = torch.nn.Module.to
    turns: list[object] = []

    def to(module, place):  # type: ignore[no-untyped-def]
        turns.append(place)
        if len(turns) == 2:
            with torch.no_grad():
                next(module.parameters()).mul_(1.001)
        return own(module, place)

    monkeypatch.setattr(torch.nn.Module, "to", to)
    with pytest.raises(AssertionError):
        device_checks.layer_agrees(*device_checks.LAYERS[0], "cpu", SMALL)


def test_nothing_waits_for_the_cpu() -> None:
    with no_waiting("cpu"):
        assert OnDevice(linrec.Chunked(), "cpu").inner == linrec.Chunked()
