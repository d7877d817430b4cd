"""What is computed from tensors of one device does not depend on which device is the default."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import scipy.signal
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import linrec
import lmu
from linrec import export, memories, signal, symbolic, testing
from linrec.certificate import certify
from linrec.interop import from_scipy, to_scipy
from tests.cases import normal
from tests.linrec.layers import LAYERS

STEPS = 60
NOWHERE = torch.device("meta")  # (a tensor made there by mistake has no values)
INPUTS, SIGNAL = normal(2, STEPS, 1), normal(400, 1)
LENGTHS = torch.tensor([STEPS, 7])
OFFSETS = torch.tensor([0, 5, 5, 40, STEPS])

BUTTER: Any = scipy.signal.butter
PAIR = torch.tensor([2.0, 5.0]).double()
MEMORY = linrec.discretize(memories.leaky_integrator(PAIR[0]), 1.0)
FILTER: Any = from_scipy(scipy.signal.dlti(*BUTTER(6, 0.02)))
TURNS = [BUTTER(6, x)[1][1:] for x in np.linspace(0.05, 0.08, 400)]
SWEPT = linrec.LinearRecurrence(
    linrec.Varying(linrec.Companion(torch.tensor(np.array(TURNS)))), torch.eye(6)[:, :1].double()
)

t, tau, r = sympy.Symbol("t"), sympy.Symbol("tau", positive=True), sympy.Symbol("r", real=True)
omega, zeta = sympy.Symbol("omega"), sympy.Symbol("zeta")
x: Any = sympy.Function("x")(t)
u: Any = sympy.Function("u")(t)
swing: Any = sympy.Eq(x.diff(t, 2), -2 * zeta * omega * x.diff(t) - omega**2 * (x - u))
SWING: Any = symbolic.from_equations(swing)
leaky: Any = sympy.Eq(tau * x.diff(t), u - x)
LEAKY: Any = symbolic.from_equations(leaky)
root: Any = sympy.Eq(x, sympy.sqrt(r) / 3 * x.subs(t, t - 1) + u / (t + 1))
ROOT: Any = symbolic.from_equations(root)
MINGRU, ONLINE = linrec.nn.MinGRU(1, 3).double(), linrec.nn.OnlineLayer(linrec.nn.LRU(1, 3))
SAMPLED = linrec.nn.SampledSystem(memories.legendre(4, PAIR[1])).double()
BOUND = linrec.nn.Recurrence(LEAKY.discretize(0.5), trainable=["tau"], parameters={"tau": 2.0})
NETWORK = linrec.nn.Stack([linrec.nn.Residual(linrec.nn.MinGRU(3, 3))]).eval()
SECTIONS = BUTTER(4, 0.2, output="sos")
UNIT = lmu.LMU(1, 4, order=3, theta=8.0).double()


def assigned() -> Iterable[Tensor]:
    """Assign a tensor to a trained parameter that is kept positive."""
    BOUND.tau = PAIR[1].float()
    return BOUND.tau, BOUND.recurrence.A.to_dense()


def learned() -> Iterable[Tensor]:
    """Take two steps of a layer that learns online."""
    online: Any = ONLINE
    _, state = online.step(INPUTS[:, 0].float())
    outputs, state = online.step(INPUTS[:, 1].float(), state)
    outputs.sum().backward()
    found = [outputs, *(each.grad for each in ONLINE.parameters() if each.grad is not None)]
    ONLINE.zero_grad()
    return found


def matrices(system: linrec.LinearRecurrence | linrec.StateSpace) -> list[Tensor]:
    return system.tensors()


def rounded(small: export.QuantizedRecurrence | export.HalfRecurrence) -> list[Tensor | str]:
    return [small.run(INPUTS[0].float().clamp(-1, 1))[0], export.to_c(small, "small")]


CALLS: dict[str, Callable[[], object]] = {
    "filter": lambda: linrec.run(FILTER, INPUTS, executor=linrec.Chunked()),
    "swept filter by a scan": lambda: linrec.run(SWEPT, SIGNAL, executor=linrec.AssociativeScan()),
    "choice for a swept filter": lambda: str(linrec.explain(SWEPT, 400)),
    "packed": lambda: linrec.run_packed(MEMORY, INPUTS[0], OFFSETS),
    "certificate": lambda: certify(MEMORY, INPUTS).bound,
    "certificate with lengths": lambda: certify(MEMORY, INPUTS, lengths=LENGTHS).bound,
    "linear scan": lambda: linrec.linear_scan(INPUTS.sigmoid(), INPUTS),
    "impulse response": lambda: linrec.impulse_response(FILTER, 9),
    "frequency response": lambda: linrec.frequency_response(FILTER, PAIR / 9),
    "poles": lambda: linrec.poles(FILTER),
    "balanced": lambda: matrices(linrec.balanced_realization(MEMORY).system),
    "contracting": lambda: linrec.contracting_coordinates(FILTER, STEPS).basis.to_dense(),
    "transformed": lambda: matrices(linrec.similarity_transform(MEMORY, [[2.0]])),
    "series": lambda: matrices(linrec.series(MEMORY, FILTER)),
    "parallel": lambda: matrices(linrec.parallel(MEMORY, FILTER)),
    "feedback": lambda: matrices(linrec.feedback(MEMORY, 0.5)),
    "real part": lambda: matrices(linrec.real_part(MEMORY)),
    "adjoint": lambda: matrices(linrec.adjoint(MEMORY)),
    "resets": lambda: matrices(linrec.with_resets(MEMORY, torch.arange(4, device="cpu") == 2)),
    "resets between": lambda: linrec.resets_between(LENGTHS),
    "to scipy": lambda: to_scipy(FILTER).A,
    "leaky integrator": lambda: matrices(memories.leaky_integrator(PAIR)),
    "moving average": lambda: matrices(memories.moving_average(1 / PAIR)),
    "oscillator": lambda: matrices(memories.damped_oscillator(PAIR, 0.1)),
    "second order": lambda: matrices(memories.second_order_filter(PAIR, 1.0, 0.0, 0.1, 0.2)),
    "fourier": lambda: matrices(memories.fourier(2, PAIR)),
    "legendre": lambda: matrices(memories.legendre(3, PAIR)),
    "formula": lambda: matrices(LEAKY.bind(tau=PAIR)),
    "sampled formula": lambda: matrices(LEAKY.discretize(0.5).bind(tau=PAIR)),
    "complex formula": lambda: matrices(ROOT.bind(r=-PAIR, steps=5)),
    "assigned parameter": assigned,
    "trained formula": lambda: BOUND(INPUTS.float()).outputs,
    "MinGRU": lambda: MINGRU(INPUTS)[0],
    "MinGRU with lengths": lambda: MINGRU(INPUTS, lengths=LENGTHS)[0],
    "online": learned,
    "uneven samples": lambda: SAMPLED(INPUTS, dt=1 + INPUTS[..., 0].square()).outputs,
    "uneven step": lambda: SAMPLED.step(INPUTS[:, 0], dt=PAIR).outputs,
    "stream": lambda: linrec.Stream(MINGRU).push(INPUTS[0]),
    "LMU": lambda: UNIT(INPUTS)[0],
    "decoder": lambda: lmu.decoder(3, PAIR / 5),
    "whole numbers": lambda: rounded(export.quantize(MEMORY, steps=STEPS)),
    "half weights": lambda: rounded(export.quantize_weights(MEMORY, steps=STEPS)),
    "C": lambda: export.to_c(MEMORY),
    "C of a layer": lambda: export.to_c(MINGRU),
    "C of a network": lambda: export.to_c(NETWORK),
    "program": lambda: export.to_program(MINGRU, form="scan").graph_module.code,
    "comparison": lambda: str(export.compare(export.to_c(MEMORY), MEMORY, "step", "c")),
    "lfilter": lambda: signal.lfilter([0.1, 0.2], [1.0, -PAIR[0] / 9], INPUTS, axis=-2),
    "lfilter of lists": lambda: signal.lfilter([0.1, 0.2], [1.0, -0.5], INPUTS, axis=-2),
    "lfilter from rest": lambda: signal.lfilter_zi([0.1, 0.2], [1.0, -PAIR[0] / 9]),
    "sections": lambda: signal.sosfilt(SECTIONS, INPUTS, axis=-2),
    "sections from rest": lambda: signal.sosfilt_zi(torch.tensor(SECTIONS, device="cpu")),
    "kit": lambda: str(testing.check_recurrence(MEMORY, examples=3)),
    "kit of a module": lambda: str(testing.check_module(MINGRU, examples=3)),
}


STRATEGIES: dict[str, Callable[[], st.SearchStrategy]] = {
    "tensors": lambda: testing.tensors((2, 3), torch.float64),
    "complex tensors": lambda: testing.tensors((40, 3), torch.complex64),
    "recurrences": testing.recurrences,
    "inputs": lambda: testing.inputs_for(MEMORY),
    "states": lambda: testing.initial_states_for(MEMORY),
    "lengths": lambda: testing.lengths(INPUTS),
    "filters": testing.engineering_systems,
}


def flatten(found: object) -> list[object]:
    if isinstance(found, list | tuple):
        return [each for part in found for each in flatten(part)]
    return [found]


@pytest.mark.parametrize("name", CALLS)
def test_another_default_device_does_not_matter(name: str) -> None:
    expected = flatten(CALLS[name]())
    assert expected
    with NOWHERE:
        got = flatten(CALLS[name]())
    for mine, theirs in zip(got, expected, strict=True):
        if isinstance(theirs, Tensor):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
        else:
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", LAYERS)
def test_another_default_device_does_not_matter_to_layers(name: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name][0]().double()
    inputs = normal(2, STEPS, layer.input_size)

    def found() -> list[Tensor]:
        outputs, state = layer(inputs, lengths=LENGTHS)
        stepped, _ = layer.step(inputs[:, 0], state)
        last, _ = layer.final(inputs)
        outputs.square().sum().backward()
        gradients = [each.grad for each in layer.parameters() if each.grad is not None]
        layer.zero_grad()
        return [outputs, state, stepped, last, *gradients]

    expected = found()
    with NOWHERE:
        got = found()
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_systems_are_drawn_on_the_cpu(strategy: str) -> None:
    drawn: list[torch.device] = []

    @settings(max_examples=20, database=None, derandomize=True)
    @given(st.data())
    def draw(data: st.DataObject) -> None:
        with NOWHERE:
            value = data.draw(STRATEGIES[strategy]())
        if value is not None:
            drawn.append(value.device)

    draw()
    assert {each.type for each in drawn} == {"cpu"}


PLAIN: dict[str, Callable[[Tensor], linrec.LinearRecurrence | linrec.StateSpace]] = {
    "B": lambda given: linrec.LinearRecurrence(given, [[1.0], [0.0]]),
    "C": lambda given: linrec.LinearRecurrence(linrec.Diagonal(given[0]), C=[[1.0, 0.0]]),
    "D": lambda given: linrec.StateSpace(given, None, D=[[1.0, 0.0], [0.0, 1.0]]),
    "A": lambda given: linrec.StateSpace([[1.0, 0.0], [0.0, 1.0]], given),
    "within a list": lambda given: linrec.StateSpace([[given[0, 0], 0.0], [0.0, 1.0]], None),
    "oscillator": lambda given: memories.damped_oscillator(given, 0.1),
    "second order": lambda given: memories.second_order_filter(1.0, 0.5, given, 0.0, 0.1),
    "fourier": lambda given: memories.fourier(2, given.abs()),
    "legendre": lambda given: memories.legendre(2, given),
    "leaky": lambda given: memories.leaky_integrator(given),
    "formula": lambda given: SWING.bind(omega=given, zeta=0.1),
    "feedback": lambda given: linrec.feedback(
        linrec.StateSpace(given, None), torch.eye(2, device=NOWHERE)
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_numbers_beside_tensors_go_to_their_device(name: str) -> None:
    system = PLAIN[name](torch.eye(2, device=NOWHERE) / 2)
    assert {each.device.type for each in system.tensors()} == {"meta"}


def test_numbers_alone_go_to_the_default_device() -> None:
    with NOWHERE:
        made = [
            linrec.LinearRecurrence([[0.5]], [[1.0]]),
            memories.damped_oscillator(1.0, 0.1),
            SWING.bind(omega=2.0, zeta=0.1),
            symbolic.LinearRecurrence([[sympy.Rational(1, 2)]]).bind(),
        ]
    assert {each.device.type for system in made for each in system.tensors()} == {"meta"}
