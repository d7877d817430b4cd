"""Graphs leave sizes open: one is enough for any batch and any length, compiled or exported."""

import os
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.export import Dim, export

import linrec
from linrec.testing import error_bound
from tests.cases import EXECUTORS, SYSTEMS, TRANSITIONS, contraction, data, normal

BATCHES, LENGTHS = (2, 3, 7), (5, 33, 70)

# Every executor on some structure; the rest of the table takes minutes.
SOME = [
    ("dense", "recurrent"),
    ("dense", "fft"),
    ("dense", "toeplitz"),
    ("dense", "chunked"),
    ("diagonal", "scan"),
]
STRUCTURES = ("dense", "diagonal", "blocks", "companion", "low rank", "dense complex")
FULL = bool(os.environ.get("LINREC_FULL"))
PAIRS = list(product(STRUCTURES, EXECUTORS)) if FULL else SOME
every_pair = pytest.mark.parametrize("transition, executor", PAIRS)
slow = pytest.mark.skipif(not FULL, reason="slow: run with LINREC_FULL=1")


def check_within_bounds(
    recurrence: linrec.LinearRecurrence, executor: str, inputs: Tensor, state: Tensor, got: tuple
) -> None:
    """Compare with the loop outside of graphs: both errors are bounded."""
    loop = linrec.Recurrent()
    expected = linrec.run(recurrence, inputs, state, executor=loop)
    allowed = [error_bound(recurrence, inputs, each, state) for each in (loop, EXECUTORS[executor])]
    for mine, theirs, *bounds in zip(got, expected, *allowed, strict=True):
        assert mine.shape == theirs.shape
        assert ((mine - theirs).abs() <= bounds[0] + bounds[1]).all()


def fresh_counter(backend: str = "eager") -> CompileCounterWithBackend:
    torch._dynamo.reset()
    return CompileCounterWithBackend(backend)


@every_pair
@pytest.mark.sampled(2)
def test_one_graph_serves_all_batches_and_lengths(transition: str, executor: str) -> None:
    recurrence = SYSTEMS["ABCD"](TRANSITIONS[transition]())
    module = linrec.nn.Recurrence(recurrence, executor=EXECUTORS[executor])
    counter = fresh_counter()
    compiled = torch.compile(module, backend=counter, dynamic=True, fullgraph=True)
    for length, batch in product(LENGTHS, BATCHES):
        inputs, state = data(recurrence, length, batch)
        got = compiled(inputs, state)
        if batch == BATCHES[0]:
            check_within_bounds(recurrence, executor, inputs, state, got)
    # Products of blocks and of low rank have torch ask for one size more.
    assert counter.frame_count <= 1 + (transition in ("blocks", "low rank"))


@pytest.mark.parametrize("executor", EXECUTORS if FULL else ["auto"])
def test_left_to_torch_a_graph_opens_one_axis_after_the_other(executor: str) -> None:
    """The first call is taken at its word; the first other batch or length opens that axis."""
    recurrence = SYSTEMS["ABCD"](TRANSITIONS["diagonal"]())
    module = linrec.nn.Recurrence(recurrence, executor=EXECUTORS[executor])
    counter = fresh_counter()
    compiled = torch.compile(module, backend=counter, fullgraph=True)
    for k, length in enumerate(LENGTHS):
        for batch in BATCHES:
            inputs, state = data(recurrence, length, batch)
            check_within_bounds(recurrence, executor, inputs, state, compiled(inputs, state))
        assert counter.frame_count == (3 if k else 2)


@every_pair
def test_an_exported_program_runs_at_other_sizes(transition: str, executor: str) -> None:
    recurrence = SYSTEMS["ABCD"](TRANSITIONS[transition]())
    module = linrec.nn.Recurrence(recurrence, executor=EXECUTORS[executor])
    batch, time = Dim("batch"), Dim("time")
    program = export(
        module,
        data(recurrence, 40, 3),
        dynamic_shapes=({0: batch, 1: time}, {0: batch}),
    ).module()
    for length, size in ((1, 1), (2, 3), (40, 1), (65, 2)):
        inputs, state = data(recurrence, length, size)
        check_within_bounds(recurrence, executor, inputs, state, program(inputs, state))


class Gated(nn.Module):
    """Gates that follow from the inputs: a recurrence that varies."""

    def __init__(self, executor: linrec.Executor) -> None:
        super().__init__()
        self.executor = executor
        self.weight = nn.Parameter(normal(3, 3), requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        gates = torch.sigmoid(inputs @ self.weight)
        recurrence = linrec.LinearRecurrence(linrec.Diagonal(gates), time_varying=True)
        return linrec.run(recurrence, inputs, executor=self.executor).outputs


@pytest.mark.parametrize("executor", ["recurrent", "scan", "auto"])
def test_varying_gates_are_exported(executor: str) -> None:
    module = Gated(EXECUTORS[executor])
    shapes = ({0: Dim("batch"), 1: Dim("time")},)
    program = export(module, (normal(2, 9, 3),), dynamic_shapes=shapes).module()
    for shape in ((1, 1, 3), (4, 50, 3)):
        inputs = normal(*shape, seed=9)
        torch.testing.assert_close(program(inputs), Gated(linrec.Recurrent())(inputs))


@pytest.mark.slow
@slow
def test_a_varying_dense_matrix_is_exported() -> None:
    class Varied(nn.Module):
        def forward(self, A: Tensor, inputs: Tensor) -> Tensor:
            recurrence = linrec.LinearRecurrence(A, time_varying=True)
            return linrec.run(recurrence, inputs, executor=linrec.AssociativeScan()).outputs

    time = Dim("time")
    given = (contraction(3, 40), normal(2, 40, 3))
    program = export(Varied(), given, dynamic_shapes=({0: time}, {1: time})).module()
    for length in (2, 31, 100):
        A, inputs = contraction(3, length), normal(2, length, 3)
        expected = linrec.run(
            linrec.LinearRecurrence(A, time_varying=True), inputs, executor=linrec.Recurrent()
        )
        torch.testing.assert_close(program(A, inputs), expected.outputs)


def test_chunks_of_a_varying_system_are_refused_by_a_sentence() -> None:
    shapes = ({0: Dim("batch"), 1: Dim("time")},)
    with pytest.raises(ValueError, match="leaves open how many steps"):
        export(Gated(linrec.Chunked()), (normal(2, 9, 3),), dynamic_shapes=shapes)


def test_the_step_is_exported_for_any_batch() -> None:
    module = linrec.nn.Recurrence(SYSTEMS["ABCD"](TRANSITIONS["dense"]()))

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, input: Tensor, state: Tensor) -> linrec.Result:
            return self.module.step(input, state)

    batch = Dim("batch")
    shapes = ({0: batch}, {0: batch})
    program = export(Step(), (normal(3, 1), normal(3, 4)), dynamic_shapes=shapes).module()
    for size in (1, 5):
        input, state = normal(size, 1, seed=2), normal(size, 4, seed=3)
        for mine, theirs in zip(program(input, state), module.step(input, state), strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    "transition, executor",
    [("dense", "auto"), ("diagonal", "scan")] if FULL else [("diagonal", "scan")],
)
def test_lengths_and_gradients_in_an_open_graph(transition: str, executor: str) -> None:
    """Gradients of a compiled graph are those outside of it, past the ends as well."""
    if torch.__version__ < "2.13":
        pytest.skip("torch 2.9 does not differentiate its own scan here")
    recurrence = SYSTEMS["ABCD"](TRANSITIONS[transition]())
    module = linrec.nn.Recurrence(recurrence, trainable="A", executor=EXECUTORS[executor])
    counter = fresh_counter("aot_eager")
    compiled = torch.compile(module, backend=counter, dynamic=True, fullgraph=True)
    graphs = []  # (the loop over a dense system's steps has a graph of its own)
    for length, batch in ((40, 2), (9, 3), (70, 7)):
        inputs, state = data(recurrence, length, batch)
        lengths = torch.arange(batch) + length - batch
        found = []
        for call in (compiled, module):
            given = inputs.clone().requires_grad_()
            outputs, last = call(given, state, lengths)
            loss = outputs.square().sum() + last.square().sum()
            found.append([outputs, last, *torch.autograd.grad(loss, [given, *module.parameters()])])
        for mine, theirs in zip(*found, strict=True):
            torch.testing.assert_close(mine, theirs)
        graphs.append(counter.frame_count)
    assert len(set(graphs)) == 1


@pytest.mark.parametrize("executor", [linrec.Auto(), linrec.Chunked(), linrec.Recurrent()])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_bank_of_systems_with_more_sequences_than_systems(
    executor: linrec.Executor, dynamic: bool
) -> None:
    matrices = (normal(3, 2, 2) / 4, normal(3, 2, 1), normal(3, 2, 2))
    recurrence, inputs = linrec.LinearRecurrence(*matrices), normal(5, 3, 9, 1)

    def outputs(inputs: Tensor) -> Tensor:
        return linrec.run(recurrence, inputs, executor=executor).outputs

    torch.compiler.reset()
    compiled = torch.compile(outputs, backend="eager", dynamic=dynamic)
    torch.testing.assert_close(compiled(inputs), outputs(inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("shapes", [{0: Dim("batch")}, {0: Dim("batch"), 1: Dim("time", min=2)}])
def test_a_scan_is_exported_for_any_batch(shapes: dict[int, Dim], strict: bool) -> None:
    class Scanned(nn.Module):
        def forward(self, decay: Tensor, drive: Tensor) -> Tensor:
            return linrec.linear_scan(decay, drive)

    given = normal(4, 20, 3, seed=1), normal(4, 20, 3, seed=2)
    program = export(Scanned(), given, dynamic_shapes=(shapes, shapes), strict=strict).module()
    steps = 33 if 1 in shapes else 20
    decay, drive = normal(9, steps, 3, seed=3), normal(9, steps, 3, seed=4)
    expected = linrec.linear_scan(decay, drive)
    torch.testing.assert_close(program(decay, drive), expected, rtol=1e-12, atol=1e-12)
