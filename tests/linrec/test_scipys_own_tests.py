"""scipy's tests of its filters and systems pass when linrec answers (see `answered_by_linrec`).

Extended precision, objects and calls of whole numbers alone are handed on to scipy, as are systems
without states: torch, or a recurrence, has none of these.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SUITES = {
    "filters": (
        ("test_signaltools",),
        # Two tests ask for scipy's words of refusal (bad_zi_shape, invalid_params), the second also
        # that whole numbers and a filter for each sequence are refused, which linrec takes.
        "(LinearFilterFloat64 or LinearFilterFloat32 or LinearFilterComplex128 or LFilterZI"
        " or TestSOSFilt) and not (FiltFilt or invalid_params or bad_zi_shape)",
    ),
    "systems": (
        ("test_cont2discrete", "test_dltisys", "test_ltisys"),
        "C2D or C2d or DLTI or Dlti or dfreqresp or Lsim or StateSpaceDisc",
    ),
}

ANSWERED = {"filters": 900, "systems": 80}  # calls; with scipy 1.17 there are 1,036 and 96


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["recurrent", "toeplitz", "scan", "chunked", "auto"])
@pytest.mark.parametrize("suite", SUITES)
def test_they_pass(suite: str, executor: str, tmp_path: Path) -> None:
    modules, chosen = SUITES[suite]
    command = [sys.executable, "-m", "pytest", "-p", "tests.linrec.answered_by_linrec"]
    command += ["-p", "no:cacheprovider", "-q", "-k", chosen, "--pyargs"]
    command += [f"scipy.signal.tests.{module}" for module in modules]
    environment = os.environ | {"LINREC_EXECUTOR": executor, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-4000:]
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed and int(passed[1]) > 20
    answered = re.search(r"(\d+) answered by linrec", ran.stdout)
    assert answered and int(answered[1]) > ANSWERED[suite]
