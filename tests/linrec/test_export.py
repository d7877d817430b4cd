"""Exported programs give the results of their originals, also at other sizes."""

import io
import os
from itertools import pairwise

import pytest
import torch
from torch import nn

import linrec
import lmu
from linrec.export import Form, exported, to_onnx, to_program
from linrec.export.comparison import load_onnx
from tests.cases import data
from tests.linrec.exported import LENGTH, SIZES, largest_share, single

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

FULL = bool(os.environ.get("LINREC_FULL"))
# One node of this kind is what a form is about.
NODES = {Form.STEP: "MatMul", Form.SCAN: "Scan", Form.CONV: "Conv", Form.FFT: "DFT"}
CASES = [
    ("legendre", "AB, 3 copies"),
    *([("dense", "ABCD"), ("companion", "ABC"), ("diagonal", "AD"), ("low rank", "ABCD")] * FULL),
]


def operations(model: bytes) -> list[str]:
    import onnx

    return [node.op_type for node in onnx.load_from_string(model).graph.node]


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("transition, system", CASES)
def test_onnxruntime_computes_the_recurrence_within_its_bound(transition, system, form) -> None:
    recurrence = single(transition, system)
    model = to_onnx(recurrence, form, length=LENGTH)
    assert NODES[form] in operations(model)
    running = load_onnx(model)
    shares = [largest_share(recurrence, form, running, length, batch) for length, batch in SIZES]
    print(f"{transition}, {system}, {form}: {max(shares):.3f} of the bound")  # docs/export.md
    assert max(shares) <= 1


@pytest.mark.parametrize("form", Form)
def test_torchs_programs_compute_it_at_other_sizes(form: Form) -> None:
    recurrence = single("dense", "ABCD")
    content = exported(recurrence, form, "torch", length=LENGTH)
    program = torch.export.load(io.BytesIO(content)).module()

    for length, batch in ((1, 1), (33, 2)):
        assert largest_share(recurrence, form, program, length, batch) <= 1
    if form in (Form.CONV, Form.FFT):
        with pytest.raises(Exception, match="64"):
            program(torch.zeros(2, LENGTH + 1, 1))


MODULES = {
    "memory and layers": lambda: lmu.ParallelLMU(3, 5, channels=2, order=4, theta=8),
    "gates": lambda: linrec.nn.MinGRU(3, 4),
    "gates of two steps": lambda: linrec.nn.TokenShift(linrec.nn.MinGRU(3, 4)),
    "trained window": lambda: lmu.LegendreMemory(3, 4, 8.0, trainable_theta=True),
    "sampled": lambda: linrec.nn.SampledSystem(
        linrec.StateSpace(-torch.rand(2, 2), torch.randn(2, 3)), trainable=["A"]
    ),
    "unit without a module": lambda: lmu.LMU(3, 2, 4, 8, trainable_theta=True),
    "unit of 2019": lambda: lmu.LMU(
        3, channels=2, order=4, theta=8, hidden=nn.RNNCell(8, 5), hidden_to_memory=True
    ),
    "linear unit": lambda: lmu.LMU(
        3, channels=2, order=4, theta=8, hidden=nn.Sequential(nn.Linear(8, 5), nn.Tanh())
    ),
}
# What can be had of which module; all else is refused by a sentence that names what can.
ABLE = {
    "memory and layers": set(Form),
    "trained window": set(Form),
    "sampled": set(Form),
    "unit without a module": set(Form),
    "gates": {Form.STEP, Form.SCAN},
    "gates of two steps": {Form.STEP, Form.SCAN},
    "unit of 2019": {Form.STEP, Form.SCAN},  # a loop over its step
    "linear unit": set(Form),
}
SOME = [
    ("trained window", Form.SCAN),
    ("unit without a module", Form.CONV),
    ("unit of 2019", Form.SCAN),
    ("memory and layers", Form.CONV),
    ("gates", Form.FFT),
    ("gates of two steps", Form.STEP),
    ("gates of two steps", Form.SCAN),
]
PAIRS = [(name, form) for name in MODULES for form in Form]


@pytest.mark.parametrize("name, form", PAIRS if FULL else SOME)
def test_modules_are_exported_or_refused(name: str, form: Form) -> None:
    torch.manual_seed(0)
    module = MODULES[name]()
    if form not in ABLE[name]:
        with pytest.raises(ValueError, match=r"Type the form|type the form"):
            to_onnx(module, form, length=LENGTH)
        return
    running = load_onnx(to_onnx(module, form, length=LENGTH))
    keepers = [each.plans for each in module.modules() if hasattr(each, "plans")]
    assert all(type(each) is linrec.nn.PlanCache for each in keepers)  # as they were
    for batch, length in ((1, 1), (3, 33)):
        inputs, state = torch.randn(batch, length, 3), torch.randn(batch, module.state_size)
        with torch.no_grad():
            if form is Form.STEP:
                expected, got = (
                    module.step(inputs[:, 0], state),
                    running(inputs[:, 0], state),
                )
            elif form is Form.SCAN:
                expected, got = module(inputs, state), running(inputs, state)
            else:
                expected, got = [module(inputs).outputs], running(inputs)
        for mine, theirs in zip(got, expected, strict=False):  # the convolutions give no state
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not FULL, reason="slow: run with LINREC_FULL=1")
@pytest.mark.slow
def test_blocks_of_a_scan_join_to_the_whole() -> None:
    """The state that a model gives is the state to go on from."""
    recurrence = single("dense", "ABCD")
    running = load_onnx(to_onnx(recurrence, "scan"))
    inputs, state = data(recurrence, 50, 2)
    whole = running(inputs, state)
    parts = []
    for start, stop in pairwise((0, 7, 8, 50)):
        outputs, state = running(inputs[:, start:stop].contiguous(), state)
        parts.append(outputs)
    assert torch.equal(torch.cat(parts, 1), whole[0]) and torch.equal(state, whole[1])


def test_what_a_form_cannot_do_is_refused_by_a_sentence() -> None:
    with pytest.raises(TypeError, match=r"`length` is 2\.5: expected a whole number"):
        to_onnx(linrec.nn.MinGRU(3, 4), "scan", length=2.5)  # type: ignore[arg-type]  # on purpose
    average = linrec.LinearRecurrence([[0.5]], [[0.5]])
    spinning = linrec.LinearRecurrence(linrec.Diagonal(torch.tensor([0.5 + 0.5j])))
    refusals = [
        (average, "conv", "onnx", None, "needs a length"),
        (average, "loop", "onnx", None, "expected one of step, scan, conv, fft"),
        (average, "step", "pdf", None, "expected one of onnx, torch, package, c"),
        (average, "scan", "c", None, "type the form `step`"),
        (average, "conv", "onnx", 1, "expected 2 steps or more"),
        (spinning, "step", "onnx", None, "linrec.real_part"),
        (spinning, "conv", "onnx", 8, "is complex"),
        (nn.Linear(3, 4), "step", "onnx", None, "input_size"),
    ]
    for target, form, format, length, message in refusals:
        with pytest.raises(ValueError, match=message):
            exported(target, form, format, length=length)
    with pytest.raises(TypeError, match="discretize"):
        to_program(linrec.StateSpace([[-1.0]], [[1.0]]), "step")  # type: ignore[arg-type]
