"""Devices: the CPU's numbers, no waiting, no double precision where there is none, no TF32."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

import linrec
from linrec._tensors import full_precision
from linrec.executors.changed_values import Record
from linrec.planner.costs import rounds_of_blocks

MATMUL = torch.backends.cuda.matmul


def test_every_case_on_devices_that_there_are_not() -> None:
    """(In a process of its own: torch does not forget a device that it was told of.)"""
    kinds = ["simulated", "without-double", "fake"]
    command = [sys.executable, "-m", "tests.linrec.on_a_device", *kinds]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


@pytest.mark.gpu
def test_every_case_on_a_gpu() -> None:
    command = [sys.executable, "-m", "tests.linrec.on_a_device", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def test_products_have_all_their_digits_whatever_the_program_lets_others_have() -> None:
    seen = []

    class Watched(linrec.Recurrent.__base__):  # type: ignore[misc, name-defined]  # the base class
        def execute(
            self, recurrence: object, plan: object, inputs: Tensor, state: object
        ) -> object:
            seen.append((MATMUL.fp32_precision, full_precision.MKLDNN.fp32_precision))
            return linrec.Result(inputs, inputs[..., -1, :])

    recurrence = linrec.LinearRecurrence(torch.eye(2))
    before = torch.get_float32_matmul_precision()
    try:
        for setting in ("high", "medium"):
            torch.set_float32_matmul_precision(setting)
            linrec.run(recurrence, torch.ones(3, 2), executor=Watched())
            assert seen[-1][1] == "ieee"
            with full_precision.exact_products("cuda", False):
                assert MATMUL.fp32_precision == "ieee"
            assert full_precision.are_coarse("cuda") and not full_precision.are_coarse("meta")
            assert MATMUL.fp32_precision == "tf32"  # as it was
            assert torch.get_float32_matmul_precision() == setting
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_setting_is_given_back_after_an_error() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        with pytest.raises(KeyError), full_precision.exact_products("cuda", False):
            raise KeyError
        assert MATMUL.fp32_precision == "tf32"
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_record_on_the_cpu_sees_every_write() -> None:
    tensor = torch.ones(3)
    record = Record({"A": tensor}, {"A": tensor})
    assert record.still({"A": tensor}) and record.still({"A": tensor.clone()})
    tensor.data[0] = 2  # counted by nothing
    assert not record.still({"A": tensor})


def test_linear_scan_on_a_device_has_few_rounds() -> None:
    """A loop over all steps would launch each by itself."""
    for width in (1, 1 << 20):
        assert rounds_of_blocks(65_536, width, "cuda") < 6 * 256
    assert rounds_of_blocks(65_536, 1 << 20, "cpu") == 65_536
