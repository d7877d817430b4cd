"""`linrec.nn.Recurrence`: its parameters and buffers, its training, and its use with torch."""

# Wrong arguments are passed on purpose, and matrices known to be there are used as such.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false, reportOptionalOperand=false

import copy
import pickle

import pytest
import torch
from torch.autograd import forward_ad

import linrec
from linrec.testing import error_bound, exact_reference
from tests.cases import EXECUTORS, SYSTEMS, TRANSITIONS, data
from tests.linrec.test_agreement import assert_within

MODULES = ["dense", "diagonal complex", "blocks", "low rank", "dense batch"]


@pytest.mark.parametrize("executor", ["recurrent", "toeplitz", "fft", "scan", "chunked-3"])
@pytest.mark.parametrize("system", ["A", "AB", "ABCD, 2 copies"])
@pytest.mark.parametrize("transition", MODULES)
def test_runs_as_the_functions_do(transition: str, system: str, executor: str) -> None:
    recurrence = SYSTEMS[system](TRANSITIONS[transition]())
    way = EXECUTORS[executor]
    module = linrec.nn.Recurrence(recurrence, executor=way)
    inputs, state = data(recurrence, 9, 2)
    lengths = torch.tensor([[3], [9]]) if recurrence.batch_shape else torch.tensor([3, 9])
    for _ in range(2):  # prepared, then kept
        for mine, theirs in (
            (module(inputs, state), linrec.run(recurrence, inputs, state, executor=way)),
            (module.final(inputs, state), linrec.final(recurrence, inputs, state, executor=way)),
            (
                module(inputs, state, lengths),
                linrec.run(recurrence, inputs, state, lengths=lengths, executor=way),
            ),
            (
                module.step(inputs[..., 0, :], state),
                linrec.step(recurrence, inputs[..., 0, :], state),
            ),
        ):
            assert mine.outputs.equal(theirs.outputs)
            assert mine.final_state.equal(theirs.final_state)


@pytest.mark.parametrize("transition", MODULES)
def test_chooses_for_itself(transition: str) -> None:
    """Whatever it chooses, knowing that it keeps its plans, is within the bound."""
    recurrence = SYSTEMS["ABCD"](TRANSITIONS[transition]())
    inputs, state = data(recurrence, 50, 2)
    bound = error_bound(recurrence, inputs, linrec.FFTConvolution(), state)
    got = linrec.nn.Recurrence(recurrence)(inputs, state)
    expected = exact_reference(recurrence, inputs, state)
    assert_within(got.outputs, expected.outputs, bound.outputs)
    assert_within(got.final_state, expected.final_state, bound.final_state)


@pytest.mark.parametrize(
    "trainable, names",
    [
        ([], []),
        (["A"], ["A_diagonal", "A_left", "A_right"]),
        (["A_diagonal", "B"], ["A_diagonal", "B"]),
        ("C", ["C"]),
        (["A", "B", "C", "D"], ["A_diagonal", "A_left", "A_right", "B", "C", "D"]),
    ],
)
def test_trains_what_is_chosen(trainable, names: list[str]) -> None:
    recurrence = SYSTEMS["ABCD"](TRANSITIONS["low rank"]())
    module = linrec.nn.Recurrence(recurrence, trainable=trainable, executor=linrec.Chunked())
    assert sorted(name for name, _ in module.named_parameters()) == names
    assert sorted(module.state_dict()) == sorted(recurrence.leaves())
    inputs, _ = data(recurrence, 6)
    before = {name: leaf.clone() for name, leaf in module.state_dict().items()}
    if names:
        optimizer = torch.optim.SGD(module.parameters(), lr=1e-2)
        for _ in range(2):  # no plan outlives a step
            optimizer.zero_grad()
            module(inputs).outputs.square().sum().backward()
            optimizer.step()
    for name, leaf in module.state_dict().items():
        assert leaf.equal(before[name]) == (name not in names)
    fresh = linrec.run(module.recurrence, inputs, executor=linrec.Chunked()).outputs
    assert module(inputs).outputs.equal(fresh)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\['E'\].*expected some of \['A', 'B'\]"):
        linrec.nn.Recurrence(linrec.LinearRecurrence([[0.5]], [[1.0]]), trainable=["E"])
    with pytest.raises(TypeError, match="or a StateSpace"):
        linrec.nn.Recurrence([[0.5]])  # type: ignore[arg-type]  # tested


def test_loading_and_casting_drop_plans() -> None:
    one = linrec.nn.Recurrence(linrec.LinearRecurrence([[0.5]], [[1.0]]))
    other = linrec.nn.Recurrence(linrec.LinearRecurrence([[0.25]], [[1.0]]))
    inputs = torch.ones(6, 1)
    one(inputs)
    other(inputs)
    one.load_state_dict(other.state_dict())
    assert one(inputs).outputs.equal(other(inputs).outputs)
    one.double()
    assert not one.plans.plans
    assert one(inputs.double()).outputs.dtype == torch.float64
    assert set(one.state_dict()) == {"A", "B"}


def test_copies_and_pickles_without_plans() -> None:
    module = linrec.nn.Recurrence(linrec.LinearRecurrence([[0.5]], [[1.0]]), trainable=["A"])
    inputs = torch.ones(6, 1)
    expected = module(inputs).outputs
    for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert again(inputs).outputs.equal(expected)


def test_plans_made_in_inference_mode_serve_training() -> None:
    module = linrec.nn.Recurrence(linrec.LinearRecurrence([[0.5]], [[1.0]]))
    inputs = torch.ones(6, 1, requires_grad=True)
    with torch.inference_mode():
        module(inputs)
    module(inputs).outputs.sum().backward()
    assert inputs.grad is not None and bool(inputs.grad.all())


@pytest.mark.parametrize("write", [lambda A: A.mul_(0.5), lambda A: A.data.mul_(0.5)])
def test_what_is_trained_keeps_its_plan_while_it_is_evaluated(write) -> None:
    module = linrec.nn.Recurrence(linrec.LinearRecurrence([[0.5]], [[1.0]]), trainable=["A"])
    inputs = torch.randn(6, 1)

    def fresh() -> torch.Tensor:
        return linrec.run(linrec.LinearRecurrence(module.A.detach(), [[1.0]]), inputs).outputs

    for context in (torch.no_grad, torch.inference_mode):
        with context():
            module(inputs)
            (kept,) = module.plans.plans.values()
            module(inputs)
            assert [*module.plans.plans.values()] == [kept]
        module(inputs).outputs.sum().backward()
        assert module.A.grad is not None and bool(module.A.grad)
        module.A.grad = None
        with torch.no_grad():
            write(module.A)
            torch.testing.assert_close(module(inputs).outputs, fresh())


@pytest.mark.parametrize("trainable", [[], ["A", "B"]], ids=["frozen", "trained"])
@pytest.mark.parametrize("executor", EXECUTORS)
def test_tangents_pass_where_plans_are_kept(executor: str, trainable: list[str]) -> None:
    recurrence = linrec.LinearRecurrence(torch.eye(2) * 0.5, torch.ones(2, 1)).to(torch.float64)
    way, inputs = EXECUTORS[executor], torch.randn(7, 1, dtype=torch.float64)
    module = linrec.nn.Recurrence(recurrence, trainable=trainable, executor=way)
    with torch.no_grad():
        module(inputs)
    matrices = {"A": recurrence.A.to_dense(), "B": recurrence.B}

    def outputs(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
        system = linrec.LinearRecurrence(A, B)
        return linrec.run(system, inputs, executor=linrec.Recurrent()).outputs

    for _ in range(2):
        tangents = {name: torch.randn_like(each) for name, each in matrices.items()}
        right = torch.func.jvp(outputs, (*matrices.values(),), (*tangents.values(),))[1]
        with forward_ad.dual_level():
            duals = {
                name: forward_ad.make_dual(matrices[name], tangents[name]) for name in tangents
            }
            for _ in range(2):
                dual = torch.func.functional_call(module, duals, (inputs,)).outputs
                torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, right)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_functional_call_and_vmap_over_systems(executor: str) -> None:
    recurrence = linrec.LinearRecurrence(torch.eye(2) * 0.5, torch.ones(2, 1))
    module = linrec.nn.Recurrence(recurrence, trainable=["A"], executor=EXECUTORS[executor])
    inputs = torch.randn(7, 1)
    module(inputs)
    matrices = torch.randn(3, 2, 2) / 3
    one_by_one = [
        torch.func.functional_call(module, {"A": matrix}, (inputs,)).outputs for matrix in matrices
    ]
    for matrix, got in zip(matrices, one_by_one, strict=True):
        expected = linrec.run(
            linrec.LinearRecurrence(matrix, recurrence.B), inputs, executor=EXECUTORS[executor]
        )
        torch.testing.assert_close(got, expected.outputs)
    mapped = torch.vmap(lambda A: torch.func.functional_call(module, {"A": A}, (inputs,)).outputs)
    kept = dict(module.plans.plans)
    torch.testing.assert_close(mapped(matrices), torch.stack(one_by_one))
    assert module.plans.plans == kept  # nothing of inside vmap is kept
    frozen = linrec.nn.Recurrence(recurrence, executor=EXECUTORS[executor])
    frozen(inputs)
    batched = torch.randn(4, 7, 1)
    torch.testing.assert_close(
        torch.vmap(lambda u: frozen(u).outputs)(batched), frozen(batched).outputs
    )
    torch.testing.assert_close(
        frozen(inputs).outputs,
        linrec.run(recurrence, inputs, executor=EXECUTORS[executor]).outputs,
    )


@pytest.mark.parametrize("executor", EXECUTORS)
def test_gradients_per_sample(executor: str) -> None:
    recurrence = linrec.LinearRecurrence(torch.eye(2) * 0.5, torch.ones(2, 1))
    module = linrec.nn.Recurrence(recurrence, trainable=["A"], executor=EXECUTORS[executor])
    inputs = torch.randn(5, 6, 1)

    def loss(parameters, sample):
        return torch.func.functional_call(module, parameters, (sample,)).outputs.square().sum()

    parameters = {"A": module.A.detach()}
    got = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, inputs)["A"]
    rows = [torch.func.grad(loss)(parameters, sample)["A"] for sample in inputs]
    torch.testing.assert_close(got, torch.stack(rows))


@pytest.mark.parametrize("executor", EXECUTORS)
def test_autocast_accumulates_in_float32(executor: str) -> None:
    recurrence = SYSTEMS["AB"](TRANSITIONS["legendre"]()).to(torch.float32)
    module = linrec.nn.Recurrence(recurrence, executor=EXECUTORS[executor])
    inputs, _ = data(recurrence, 40, 2)
    expected = module(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        got = module(inputs)
        half = module(inputs.bfloat16())
    assert got.outputs.equal(expected.outputs)
    assert half.outputs.equal(module(inputs.bfloat16().float()).outputs)


@pytest.mark.parametrize("trainable", [[], ["A", "B"]])
@pytest.mark.parametrize("executor", [name for name in EXECUTORS if "chunked-" not in name])
@pytest.mark.sampled(3)
def test_compiles_in_one_graph(executor: str, trainable: list[str]) -> None:
    torch._dynamo.reset()
    recurrence = SYSTEMS["AB"](TRANSITIONS["dense"]()).to(torch.float32)
    module = linrec.nn.Recurrence(recurrence, trainable=trainable, executor=EXECUTORS[executor])
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    inputs, state = data(recurrence, 13, 2)
    inputs.requires_grad_()
    results = []
    for call in (module, compiled):
        outputs, last = call(inputs, state)
        gradient = torch.autograd.grad(outputs.square().sum() + last.sum(), inputs)[0]
        results.append((outputs, last, gradient))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("transition", ["diagonal", "blocks", "low rank"])
@pytest.mark.sampled(3)
def test_other_structures_compile(transition: str) -> None:
    torch._dynamo.reset()
    recurrence = SYSTEMS["ABCD, 2 copies"](TRANSITIONS[transition]()).to(torch.float32)
    module = linrec.nn.Recurrence(recurrence, trainable=["A"])
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    inputs, state = data(recurrence, 12, 2)
    lengths = torch.tensor([5, 12])
    torch.testing.assert_close(
        compiled(inputs, state, lengths).outputs, module(inputs, state, lengths).outputs
    )


def test_inductor_compiles_the_default() -> None:
    torch._dynamo.reset()
    recurrence = SYSTEMS["AB"](TRANSITIONS["legendre"]()).to(torch.float32)
    module = linrec.nn.Recurrence(recurrence)
    inputs, _ = data(recurrence, 32, 2)
    # (Each set of instructions that the processor says it has would be compiled for, to see.)
    options = {"cpp.vec_isa_ok": True, "compile_threads": 1}
    compiled = torch.compile(module, fullgraph=True, options=options)
    torch.testing.assert_close(compiled(inputs).outputs, module(inputs).outputs)
