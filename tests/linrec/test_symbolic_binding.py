"""Symbolic systems bound to numbers and tensors, trained, drawn, and safe from code in names."""

# Wrong arguments are passed on purpose, and sympy's annotations are narrower than what it does.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportOptionalMemberAccess=false

import copy
import math
import pickle
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sympy
import torch
from torch import Tensor
from typer.testing import CliRunner

import linrec
from linrec.commands import app
from linrec.symbolic import Bounded, LinearRecurrence, StateSpace, from_equations
from linrec.symbolic.torch_lowering import FUNCTIONS, lower
from tests import forked

a, b, c = sympy.symbols("a b c", real=True)
tau, omega, dt = sympy.symbols("tau omega dt", positive=True)
zeta = Bounded("zeta", 0, 1)
t = sympy.Symbol("t")
x, u = sympy.symbols("x u", cls=sympy.Function)
DAMPED = StateSpace([[0, 1], [-(omega**2), -2 * zeta * omega]], [[0], [omega**2]], [[1, 0]])
RICH = LinearRecurrence(
    [[a * b, sympy.exp(-a)], [sympy.sin(b) / 3, 1 / (1 + a**2)]],
    [[1], [sympy.sqrt(2) * b]],
    [[a, 0], [0, sympy.pi]],
    [[0], [sympy.tanh(a)]],
)
LOOP = StateSpace([[a, 1, 0], [0, b, 1], [1, 0, -tau]], [[0], [0], [1]])
# (Made when they are asked for: closed forms take seconds.)
FACTORIES: dict[str, Callable[[], Any]] = {
    "formula": lambda: RICH,
    "diagonal": lambda: LinearRecurrence(sympy.diag(a, b / 2), [[1], [a]], [[1, b]]),
    "blocks": lambda: LinearRecurrence(sympy.diag(*2 * [sympy.Matrix([[a, -b], [b, a]]) / 2])),
    "zoh": lambda: DAMPED.discretize(dt),
    "bilinear": lambda: DAMPED.discretize(dt, "bilinear"),
    "no closed form": lambda: LOOP.discretize(dt),
    "varying": lambda: LinearRecurrence([[t / (t + tau)]], [[1 / (t + tau)]]),
}


@cache
def made(name: str) -> Any:
    return FACTORIES[name]()


def doubles(system: Any, *batch: int) -> dict[str, Tensor]:
    """A value for each parameter, inside of what all of them may be."""
    count = len(system.parameters)
    values = torch.linspace(0.3, 0.8, count * torch.Size(batch).numel(), dtype=torch.float64)
    columns = values.reshape(*batch, count).unbind(-1)
    return {p.name: v for p, v in zip(system.parameters, columns, strict=True)}


def steps_of(system: Any) -> int | None:
    return 5 if getattr(system, "time_varying", False) else None


def outputs(system: Any, values: dict[str, Tensor], inputs: Tensor) -> Tensor:
    return linrec.run(system.bind(values, steps=steps_of(system)), inputs).outputs


@pytest.mark.parametrize("name", FACTORIES)
def test_gradients_reach_the_parameters(name: str) -> None:
    system = made(name)
    values = {key: value.clone().requires_grad_() for key, value in doubles(system).items()}
    inputs = torch.linspace(-1, 1, 5 * system_inputs(system), dtype=torch.float64).reshape(5, -1)

    def run(*tensors: Tensor) -> Tensor:
        return outputs(system, dict(zip(values, tensors, strict=True)), inputs)

    assert torch.autograd.gradcheck(run, tuple(values.values()))
    assert torch.autograd.gradgradcheck(run, tuple(values.values()))


def system_inputs(system: Any) -> int:
    return (system if isinstance(system, LinearRecurrence) else system.system).input_size


@pytest.mark.parametrize("name", FACTORIES)
def test_batched_tensors_bind_a_batch_of_systems(name: str) -> None:
    system = made(name)
    values, steps = doubles(system, 3, 2), steps_of(system)
    batch = system.bind(values, steps=steps)
    assert batch.batch_shape == (3, 2)
    for i in range(3):
        one = system.bind({key: value[i, 1] for key, value in values.items()}, steps=steps)
        for key, leaf in one.leaves().items():
            whole = batch.leaves()[key]
            torch.testing.assert_close(whole[i, 1] if whole.ndim > leaf.ndim else whole, leaf)


def test_a_number_beside_a_batch_serves_all_of_it() -> None:
    bank = made("zoh").bind(omega=torch.tensor([1.0, 2.0]), zeta=0.5, dt=0.1)
    assert bank.batch_shape == (2,) and bank.dtype == torch.float32 and not bank.time_varying


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_functions_are_evaluated_as_sympy_evaluates_them(function: Any) -> None:
    p, q = sympy.symbols("p q")
    point = {"acosh": 1.7}.get(function.__name__, 0.3)
    expression = function(p, q) if function is sympy.Mod else function(p) + 2 * p**-3 - p**q / 7
    values = [torch.tensor(point, dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64)]
    (got,) = lower([p, q], [expression])(values)
    assert float(got) == pytest.approx(float(expression.subs({p: point, q: 0.2})), rel=1e-14)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: LinearRecurrence([[a]]), linrec.Diagonal),
        (lambda: LinearRecurrence(sympy.diag(a, 0, b)), linrec.Diagonal),
        (lambda: LinearRecurrence(sympy.zeros(2, 2)), linrec.Diagonal),
        (lambda: made("blocks"), linrec.BlockDiagonal),
        (lambda: RICH, linrec.Dense),
        (lambda: LinearRecurrence(sympy.Matrix([[a, 1], [0, b]])), linrec.Dense),
        (lambda: StateSpace(sympy.diag(a, b)).discretize(1), linrec.Diagonal),
        (
            lambda: StateSpace(sympy.diag(*2 * [sympy.Matrix([[0, a], [-b, 0]])])).discretize(1),
            linrec.BlockDiagonal,
        ),
        (lambda: made("varying"), linrec.Diagonal),
    ],
)
def test_structure_is_recognised(make: Callable[[], Any], kind: type) -> None:
    system = make()
    bound = system.bind(doubles(system), steps=steps_of(system))
    assert isinstance(bound.A, kind)
    if system.time_varying:
        assert bound.time_varying and bound.steps == steps_of(system)
        return
    numbers = doubles(system)
    if system.source is None:
        exact = {p: sympy.Float(float(numbers[p.name])) for p in system.parameters}
        expected = torch.tensor(system.A.subs(exact).tolist(), dtype=torch.float64)
    else:
        expected = linrec.discretize(system.source.system.bind(numbers)).A.to_dense()
    torch.testing.assert_close(bound.A.to_dense().double(), expected)


def test_identities_and_zeros_are_left_out() -> None:
    bound = LinearRecurrence([[a, 1], [1, a]]).bind(a=0.5)
    assert bound.B is None and bound.C is None and bound.D is None


def test_what_changes_with_time_is_bound_for_so_many_steps() -> None:
    mean = from_equations(sympy.Eq(x(t), (t * x(t - 1) + u(t)) / (t + 1))).bind(steps=6)
    inputs = torch.tensor([[3.0], [1.0], [2.0], [6.0], [0.0], [6.0]])
    expected = inputs.cumsum(0) / torch.arange(1, 7)[:, None]
    torch.testing.assert_close(linrec.run(mean, inputs).outputs, expected)


def test_the_dtype_is_that_of_the_tensors() -> None:
    system = LinearRecurrence([[sympy.exp(-1 / tau)]])
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert system.bind(tau=torch.tensor(2.0, dtype=dtype)).dtype == dtype
    assert system.bind(tau=2).dtype == torch.get_default_dtype()
    turning = LinearRecurrence([[sympy.exp(sympy.I * omega)]]).bind(omega=0.5)
    assert turning.dtype == torch.complex64
    assert complex(turning.A.to_dense()) == pytest.approx(complex(sympy.exp(0.5j)), rel=1e-6)


REFUSED: dict[str, tuple[Any, str]] = {
    "missing": (lambda: RICH.bind(a=1.0), "no value for b"),
    "unknown": (lambda: RICH.bind(a=1.0, b=1.0, c=1.0), "c, which it does not have"),
    "not positive": (
        lambda: DAMPED.bind(omega=-1.0, zeta=0.5),
        "`omega` is -1.0: expected.*positive",
    ),
    "out of bounds": (
        lambda: DAMPED.bind(omega=1.0, zeta=1.5),
        "expected it to be between 0 and 1",
    ),
    "string": (lambda: RICH.bind(a="1", b=1.0), "is the string '1'"),
    "whole tensor": (lambda: RICH.bind(a=torch.tensor(1), b=1.0), "expected a floating-point"),
    "no steps": (lambda: made("varying").bind(tau=1.0), "expected how many steps"),
    "steps": (lambda: RICH.bind(a=1.0, b=1.0, steps=3), "do not depend on t"),
    "steps of a discretisation": (
        lambda: made("no closed form").bind(a=1.0, b=1.0, tau=1.0, dt=1.0, steps=3),
        "expected None",
    ),
    "batches": (lambda: RICH.bind(a=torch.ones(2), b=torch.ones(3)), "do not broadcast"),
    "function": (
        lambda: LinearRecurrence([[sympy.zeta(a)]]).bind(a=2.0),
        r"`zeta\(a\)` cannot be evaluated",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_values_are_told_why(name: str) -> None:
    bind, message = REFUSED[name]
    with pytest.raises((ValueError, TypeError), match=message):
        bind()


NAMES = ["lambda", "1", "a.b", "__import__('os')._exit(3)", "x) or print(1", "self", "values", ""]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_a_symbol_is_code(name: str) -> None:
    symbol = sympy.Symbol(name)
    bound = LinearRecurrence([[sympy.cos(symbol) / 2]]).bind({symbol: 0.0})
    assert float(bound.A.to_dense()) == 0.5


def damped_module(**keywords: Any) -> linrec.nn.Recurrence:
    start = {"omega": 1.5, "zeta": 0.4, "dt": 0.1}
    return linrec.nn.Recurrence(made("zoh"), parameters=start, **keywords)


def test_training_keeps_to_the_assumptions() -> None:
    module = damped_module(trainable=["omega", "zeta"])
    assert {name for name, _ in module.named_buffers()} == {"dt"}
    optimiser = torch.optim.SGD(module.parameters(), lr=1000.0)
    inputs = torch.ones(20, 1)
    for sign in (1, -1, 1):  # steps that would leave any bounds
        optimiser.zero_grad()
        (sign * (module.omega + module.zeta)).backward()
        optimiser.param_groups[0]["lr"] = 2.0
        optimiser.step()
        assert module.omega.item() > 0 and 0 < module.zeta.item() < 1
    assert module(inputs).outputs.isfinite().all()
    with torch.no_grad():
        module.omega = torch.tensor(2.5)
    assert module.omega.item() == pytest.approx(2.5)


def test_a_module_learns_the_parameters_that_made_its_data() -> None:
    truth = damped_module()
    module = damped_module(trainable=["omega", "zeta"])
    with torch.no_grad():
        module.omega, module.zeta = torch.tensor(1.1), torch.tensor(0.7)
    inputs = torch.randn(4, 60, 1, generator=torch.Generator().manual_seed(0))
    target = truth(inputs).outputs
    optimiser = torch.optim.Adam(module.parameters(), lr=0.1)
    for _ in range(80):
        optimiser.zero_grad()
        torch.nn.functional.mse_loss(module(inputs).outputs, target).backward()
        optimiser.step()
    assert module.omega.item() == pytest.approx(1.5, rel=0.02)
    assert module.zeta.item() == pytest.approx(0.4, rel=0.05)


def test_a_module_can_be_copied_and_saved() -> None:
    module, inputs = damped_module(trainable=["omega"]), torch.randn(2, 9, 1)
    twin, other = copy.deepcopy(module), damped_module(trainable=["omega"])
    with torch.no_grad():
        twin.omega = torch.tensor(0.3)
    assert module.omega.item() == pytest.approx(1.5)
    other.load_state_dict(twin.state_dict())
    torch.testing.assert_close(other(inputs).outputs, twin(inputs).outputs)
    again = pickle.loads(pickle.dumps(made("zoh")))
    assert again == made("zoh") and again.bind(omega=1.0, zeta=0.5, dt=0.1).state_size == 2
    assert "states=2, inputs=1, outputs=1" in repr(module)


def test_parameters_are_named_whole() -> None:
    longer = sympy.Symbol("a_2")
    system = LinearRecurrence(sympy.diag(a, longer))
    module = linrec.nn.Recurrence(system, trainable=["a"], parameters={"a": 0.5, longer: 0.2})
    assert [name for name, _ in module.named_parameters()] == ["a"]


@pytest.mark.parametrize("name", ["shape", "training", "forward", "a.b"])
def test_names_that_a_module_needs_are_refused(name: str) -> None:
    system = LinearRecurrence([[sympy.Symbol(name)]])
    with pytest.raises(ValueError, match="Rename its symbol"):
        linrec.nn.Recurrence(system, parameters={name: 0.5})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: linrec.nn.Recurrence(DAMPED, parameters={}), "is of type StateSpace and"),
        (lambda: linrec.nn.Recurrence(RICH), "no value for a, b"),
        (lambda: damped_module(trainable=["theta"]), r"expected some of \['dt', 'omega', 'zeta'\]"),
        (
            lambda: linrec.nn.Recurrence(
                LinearRecurrence([[sympy.Symbol("q", nonnegative=True)]]),
                parameters={"q": torch.zeros(1)},
            ),
            "not on the border",
        ),
        (
            lambda: linrec.nn.Recurrence(made("varying"), parameters={"tau": 1.0}),
            "how many steps",
        ),
    ],
)
def test_modules_refuse_what_they_cannot_train(make: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_linrec_imports_no_more_of_sympy_than_torch_does() -> None:
    code = """
import sys, torch
before = {name for name in sys.modules if name.partition(".")[0] in ("sympy", "mpmath")}
import linrec, lmu
after = {name for name in sys.modules if name.partition(".")[0] in ("sympy", "mpmath")}
linrec.discretize(linrec.memories.leaky_integrator(3.0))
linrec.memories.fourier(3, 10.0), linrec.memories.hippo_legs(4, 10), linrec.memories.delay_line(4)
used = {name for name in sys.modules if name.partition(".")[0] in ("sympy", "mpmath")}
assert before == after == used, (used - before)
"""
    done = forked.run(code)
    assert done.returncode == 0, done.stderr


def test_the_commands_take_a_symbolic_system_bound_to_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "written_down.py").write_text(
        "import sympy\n"
        "from linrec import symbolic\n"
        "tau = sympy.Symbol('tau', positive=True)\n"
        "continuous = symbolic.StateSpace([[-1 / tau]], [[1 / tau]]).bind(tau=5.0)\n"
        "discrete = symbolic.LinearRecurrence([[tau]], [[1]]).bind(tau=0.5)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    run = CliRunner().invoke
    shown = run(app, ["explain", "written_down.py:discrete"])
    assert shown.exit_code == 0 and "Recurrent" in shown.output
    for words in (["written_down.py:continuous", "--dt", "0.5"], ["written_down.py:discrete"]):
        drawn = run(app, ["plot", *words, "--output", "drawing.png", "--length", "20"])
        assert drawn.exit_code == 0, drawn.output
        assert Path("drawing.png").read_bytes().startswith(b"\x89PNG")
        Path("drawing.png").unlink()
    refused = run(app, ["plot", "written_down.py:discrete", "--output", "drawing.nothing"])
    assert refused.exit_code == 2 and [path.name for path in tmp_path.glob("*draw*")] == []


def test_parameters_can_be_assigned_within_their_range() -> None:
    a, zeta = sympy.Symbol("a", positive=True), Bounded("zeta", 0, 1)
    start = {"a": 1.0, "zeta": 0.5}

    def make() -> linrec.nn.Recurrence:
        family = LinearRecurrence([[zeta]], [[a]])
        return linrec.nn.Recurrence(family, trainable=["a", "zeta"], parameters=start)

    for name, value in (("a", torch.tensor(2.0)), ("a", 2.0), ("zeta", 0.25)):
        module = make()
        setattr(module, name, value)
        assert getattr(module, name).item() == pytest.approx(float(value))
    for name, value in (("a", -3.0), ("a", 0.0), ("zeta", 1.5), ("zeta", 1.0), ("a", math.inf)):
        for kind in (float, torch.tensor):
            module = make()
            with pytest.raises(ValueError, match=f"assigned {value}: expected it to be"):
                setattr(module, name, kind(value))
            assert getattr(module, name).item() == pytest.approx(start[name])
