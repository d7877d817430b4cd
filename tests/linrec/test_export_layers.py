"""Every layer as an ONNX model: the same outputs in each of its forms, in real numbers."""

import os
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch

import linrec
from linrec import nn
from linrec.export import Form, to_onnx, to_program
from linrec.export.comparison import EXECUTORS, Runner, load_onnx, run_form
from linrec.export.onnx import is_complex
from linrec.testing import error_bound
from tests.linrec.layers import LAYERS

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

FULL = bool(os.environ.get("LINREC_FULL"))
MADE: dict[str, Callable[[], nn.RecurrentLayer]] = {name: each[0] for name, each in LAYERS.items()}
# Their recurrence is the same for all inputs: it has a kernel.
CONSTANT = [name for name in MADE if name.startswith(("EMA", "LRU", "S4D", "S5", "LinOSS"))]
STEPS = 20
PAIRS = [
    (name, form)
    for name, form in product(MADE, Form)
    if form in (Form.STEP, Form.SCAN) or name in CONSTANT
]
SOME = [("S5", Form.STEP), ("S4D", Form.CONV), ("Retention", Form.SCAN)]


def outputs_of(running: Runner, form: Form, inputs: torch.Tensor, state: torch.Tensor) -> Any:
    """Run a model of any form from a state of zeros."""
    return run_form(running, form, inputs, None if form in (Form.CONV, Form.FFT) else state)[0]


@pytest.mark.parametrize("name, form", PAIRS if FULL else SOME)
def test_layers_are_models_of_onnx(name: str, form: Form) -> None:
    torch.manual_seed(0)
    layer = MADE[name]().eval()
    before = list(layer.state_dict()), dict(vars(layer)).keys(), layer.executor
    running = load_onnx(to_onnx(layer, form, length=STEPS))
    assert before == (list(layer.state_dict()), dict(vars(layer)).keys(), layer.executor)
    for batch, length in ((1, 1), (3, STEPS)):
        inputs = torch.randn(batch, length, layer.input_size)
        got = outputs_of(running, form, inputs, torch.zeros(batch, layer.state_size))
        with torch.no_grad():
            expected = layer(inputs).outputs
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", Form)
def test_the_recurrence_of_s5_is_within_the_bound_of_its_form(form: Form) -> None:
    """What is exported is the layer's recurrence in real states, without what is read around it."""
    torch.manual_seed(0)
    layer = nn.S5(3, 4).eval()
    layer.D.data.zero_()
    with torch.no_grad():
        real = linrec.real_part(layer.recurrence(torch.zeros(1, 1, 3))[0])
    inputs = torch.randn(2, STEPS, 3)
    program = to_program(layer, form, length=STEPS).module()
    with torch.no_grad():
        if form in (Form.CONV, Form.FFT):
            got = program(inputs)
        elif form is Form.SCAN:
            got = program(inputs, torch.zeros(2, 8))[0]
        else:
            state, each = torch.zeros(2, 8), []
            for input in inputs.unbind(1):
                output, state = program(input, state)
                each.append(output)
            got = torch.stack(each, 1)
    exact = linrec.run(real.to(torch.float64), inputs.double()).outputs
    bound = error_bound(real, inputs, EXECUTORS[form]).outputs
    assert ((got - exact).abs() <= bound).all()


@pytest.mark.parametrize("name", MADE)
@pytest.mark.sampled(2)
def test_steps_have_no_complex_numbers(name: str) -> None:
    program = to_program(MADE[name](), Form.STEP)
    assert not is_complex(program, Form.STEP)


def test_states_of_a_scan_are_the_layers_own() -> None:
    """Real and imaginary parts lie as in the layer, so that both can go on from either's state."""
    for name in ("S5", "S4D", "LRU", "Retention"):
        torch.manual_seed(0)
        layer = MADE[name]()
        inputs = torch.randn(2, 9, layer.input_size)
        with torch.no_grad():
            _, state = layer(inputs, torch.randn(2, layer.state_size))
            program = to_program(layer, Form.STEP).module()
            expected, after = layer.step(inputs[:, 0], state)
            got, theirs = program(inputs[:, 0].contiguous(), state)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(theirs, after, atol=1e-5, rtol=1e-5)


def test_gates_beside_a_kernel_are_a_loop() -> None:
    """In a stack of both, what has a kernel is convolved, and the gates go step by step."""
    torch.manual_seed(0)
    stack = nn.Stack([nn.S5(3, 4), nn.MinGRU(3, 5)]).eval()
    program = to_program(stack, Form.CONV, length=STEPS)
    names = [str(node.target) for node in program.graph.nodes]
    assert any("conv1d" in name for name in names) and "scan" in names
    inputs = torch.randn(4, 11, 3)
    with torch.no_grad():
        torch.testing.assert_close(
            program.module()(inputs), stack(inputs).outputs, atol=1e-5, rtol=1e-5
        )


def test_what_has_no_kernel_is_refused() -> None:
    for name in sorted(set(MADE) - set(CONSTANT)):
        with pytest.raises(ValueError, match="has no kernel"):
            to_program(MADE[name](), Form.CONV, length=STEPS)
