"""Checks of a device: the test kit, every dtype, layers, training, graphs, and no waiting.

`pytest -m gpu` and the first part of `linrec bench --device cuda --all` run these checks. They also
run with the CPU as the device, which shows that the checks themselves are right.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import product
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from linrec import memories
from linrec.discretization import discretize
from linrec.executors import (
    AssociativeScan,
    Chunked,
    Executor,
    FFTConvolution,
    Recurrent,
    Toeplitz,
)
from linrec.kernels.chunks import chunk_product, matrix_scan, plain_scan
from linrec.kernels.elementwise import elementwise_gradients, elementwise_scan, loop
from linrec.nn import Recurrence
from linrec.run import final, run, step
from linrec.stream import Stream
from linrec.structures import Diagonal, DiagonalPlusLowRank
from linrec.systems import LinearRecurrence
from linrec.testing.check import check_case, check_executor
from linrec.testing.device_kernels import runs_chunks
from linrec.testing.on_device import OnDevice, no_waiting

EXECUTORS = (Recurrent(), Toeplitz(), FFTConvolution(), AssociativeScan(), Chunked())
HALVES = (torch.float16, torch.bfloat16)
DTYPES = (*HALVES, torch.float32, torch.float64, torch.complex64, torch.complex128)

# From this many numbers on, a tensor's offsets do not fit in 32 bits.
MANY = 1 << 31

# Layers of both packages, by name: linrec does not import lmu, which need not be installed.
LAYERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("linrec.nn:MinGRU", {"input_size": 3, "hidden_size": 4}),
    ("linrec.nn:LRU", {"width": 3, "states": 5}),
    ("linrec.nn:S4D", {"width": 3, "states": 4}),
    ("linrec.nn:S5", {"width": 3, "states": 4}),
    ("linrec.nn:SelectiveSSM", {"width": 3, "states": 4}),
    ("linrec.nn:SSD", {"width": 6, "heads": 2, "states": 4}),
    ("linrec.nn:GatedLinearAttention", {"width": 8, "heads": 2}),
    ("linrec.nn:DeltaNet", {"width": 8, "heads": 2}),
    ("linrec.nn:GatedDeltaNet", {"width": 8, "heads": 2}),
    (
        "lmu:ParallelLMU",
        {"input_size": 3, "hidden_size": 5, "channels": 2, "order": 4, "theta": 8},
    ),
    ("lmu:LMU", {"input_size": 3, "channels": 2, "order": 4, "theta": 8}),
)


class Check(NamedTuple):
    """A check with its name; `hold` raises if it fails.

    Attributes:
        name: a description of the check.
        hold: runs the check on a device, with some effort.
    """

    name: str
    hold: Callable[[str, "Effort"], object]


class Effort(NamedTuple):
    """The effort of the checks.

    Attributes:
        examples: the number of cases of the kit for each executor.
        steps: the length of sequences, in checks of one length.
        backend: the backend of torch.compile.
    """

    examples: int
    steps: int
    backend: str


FULL, SMALL = Effort(12, 150, "inductor"), Effort(1, 12, "eager")


def checks() -> Iterator[Check]:
    """List all checks; the first show faults soonest."""
    for dtype in DTYPES:
        for executor in EXECUTORS:
            name = f"{type(executor).__name__}, {str(dtype).removeprefix('torch.')}"
            yield Check(name, partial(agrees, executor, dtype))
    for dtype in DTYPES:
        name = f"elementwise scan, {str(dtype).removeprefix('torch.')}"
        yield Check(name, partial(scans, dtype))
    yield Check(f"elementwise scan, {MANY:,} numbers", scans_many)
    yield Check("kernels of chunks", multiplies_chunks)
    for dtype in (*HALVES, torch.float32):
        yield Check(f"kernels of gates and delta rules, {dtype}", partial(chunks_agree, dtype))
    for name, options in LAYERS:
        if find_spec(name.partition(":")[0]) is not None:
            yield Check(name.replace(":", "."), partial(layer_agrees, name, options))
    yield Check("training", trains)
    yield Check("no waiting", waits_for_nothing)
    yield Check("products under TF32", keeps_all_digits)
    yield Check("torch.compile", compiles)
    yield Check("step as a graph", captures)
    for executor in EXECUTORS:
        yield Check(f"kit: {type(executor).__name__}", partial(passes_the_kit, executor))


def draw(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Draw normal numbers on the CPU, always the same."""
    wide = torch.complex128 if dtype.is_complex else torch.float64
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=wide).to(dtype)


def systems(dtype: torch.dtype, steps: int) -> Iterator[LinearRecurrence]:
    """Make dense, diagonal and varying systems of a dtype."""
    dense = draw(8, 8, dtype=dtype, seed=1) / 8
    B, C = draw(8, 2, dtype=dtype, seed=2), draw(3, 8, dtype=dtype, seed=3)
    yield LinearRecurrence(dense, B, C, draw(3, 2, dtype=dtype, seed=4))
    yield LinearRecurrence(Diagonal(draw(8, dtype=dtype, seed=5).div(4)), B)
    if dtype == torch.float32:  # large enough for the kernels of chunks
        yield LinearRecurrence(draw(24, 24, dtype=dtype, seed=1) / 16, draw(24, 1, dtype=dtype))
        shape = (steps, 24)
        keys, queries = (draw(*shape, dtype=dtype, seed=seed) for seed in (2, 3))
        single = keys.unsqueeze(-1), queries.unsqueeze(-2)
        gates = draw(steps, 1, dtype=dtype, seed=4).tanh().expand(shape)
        yield LinearRecurrence(Diagonal(gates), *single, time_varying=True)
        fed = draw(*shape, 1, dtype=dtype, seed=5) / 32
        yield LinearRecurrence(DiagonalPlusLowRank(gates, fed, fed), *single, time_varying=True)
    gates = draw(steps, 8, dtype=dtype, seed=6) / 4
    rank = draw(steps, 8, 1, dtype=dtype, seed=7) / 8
    varying = DiagonalPlusLowRank(gates, rank, -rank)
    yield LinearRecurrence(varying, B, C, time_varying=True)


def agrees(executor: Executor, dtype: torch.dtype, device: str, effort: Effort) -> None:
    """Compare outputs, final states and gradients with the exact ones, by the executor's bound."""
    there = OnDevice(executor, device)
    for recurrence in systems(dtype, effort.steps):
        if executor.why_not(recurrence, effort.steps) is not None:
            continue
        inputs = draw(2, effort.steps, recurrence.input_size, dtype=dtype, seed=8)
        state = draw(2, recurrence.state_size, dtype=dtype, seed=9)
        asked = ["agreement", "last step", "gradient in inputs", "gradient in state"]
        for name in asked[: 2 if recurrence.time_varying and effort.steps > 100 else 4]:
            check_case(recurrence, inputs, state, executor=there, property=name)


def passes_the_kit(executor: Executor, device: str, effort: Effort) -> None:
    """Search for cases in which an executor breaks a promise on the device."""
    steps = st.integers(0, effort.steps) if effort.steps < 100 else None  # None: large cases too
    check_executor(OnDevice(executor, device), steps=steps, examples=effort.examples)


def scans(dtype: torch.dtype, device: str, effort: Effort) -> None:
    """Compare the elementwise scan and its gradients with the loop, in all layouts and ways."""
    half, wide = dtype in HALVES, double(dtype)
    unit = torch.finfo(torch.float32 if half else dtype).eps / 2
    last = torch.finfo(dtype).eps if half else 0.0
    for B, T, F in ((2, effort.steps, 70), (3, 4 * effort.steps, 1), (1, 9 * effort.steps, 3)):
        decay, drive = (draw(B, T, F, dtype=dtype, seed=seed) / 2 for seed in (1, 2))
        state = draw(B, F, dtype=dtype, seed=3)
        # 2 T + 2 roundings of each term, three times as many with complex products.
        roundings = (3 if dtype.is_complex else 1) * (2 * T + 2) * unit
        for reverse, turned in product((False, True), repeat=2):
            exact = [each.to(wide) for each in (decay, drive, state)]
            truth = loop(exact[0], exact[1], exact[2], reverse)
            sizes = [each.abs() for each in exact]
            allowed = loop(sizes[0], sizes[1], sizes[2], reverse) * (roundings + last)
            there = [each.to(device) for each in (decay, drive, truth.to(dtype))]
            if turned:
                there = [each.mT.contiguous().mT for each in there]
            a, b, x = there
            close("states", elementwise_scan(a, b, state.to(device), reverse), truth, allowed)
            if half:
                continue
            # (b also serves as the gradient.)
            found = elementwise_gradients(a, state.to(device), x, b, reverse)
            own = exact[0], exact[2], truth.to(dtype).to(wide), exact[1], reverse
            for name, got, right in zip(OF, found, elementwise_gradients(*own), strict=True):
                most = 4 * roundings * (1 + right.abs().max()) * (1 + truth.abs().max())
                close(f"gradient in the {name}", got, right, most)


OF = ("decay", "drive", "state")


def multiplies_chunks(device: str, effort: Effort) -> None:
    """Check products of chunks, to 22 bits of each factor, and scans of matrices, to rounding."""
    for R, K, n, N in ((5 * effort.steps, 16, 32, 512), (effort.steps, 33, 70, 130)):
        given = [draw(*shape, dtype=torch.float32) for shape in ((R, K), (R, n), (K + n, N))]
        inputs, before, block = (each.double() for each in given)
        truth = torch.cat([inputs, before], -1) @ block
        magnitude = torch.cat([inputs, before], -1).abs() @ block.abs()
        got = chunk_product(*(each.to(device) for each in given))
        close("product of chunks", got, truth, magnitude * (K + n + 8) * 2.0**-24)
    for gates, low, states, columns in ((1, 0, 64, 64), (1, 0, 100, 40), (24, 1, 24, 33)):
        shapes = [(gates,), (states,), (states,), (columns,), *[(states,)] * (2 * low)]
        drawn = [draw(3, effort.steps, *shape, seed=i) for i, shape in enumerate(shapes)]
        a, k, q, v, *feedback = drawn
        a, feedback = a.tanh(), [each / (4 * states) for each in feedback]
        start = draw(3, states, columns, seed=9)
        wide = [a, k, q, v, *(feedback or (None, None)), start]
        for dtype in (torch.float32, torch.float64):
            cast = [None if each is None else each.to(dtype) for each in wide]
            exact: list[Any] = [None if each is None else each.double() for each in cast]
            sizes: list[Any] = [None if each is None else each.abs() for each in exact]
            there: list[Any] = [None if each is None else each.to(device) for each in cast]
            allowed = (states + 20) * (effort.steps + 4) * torch.finfo(dtype).eps
            for got, truth, size in zip(
                matrix_scan(*there), plain_scan(*exact), plain_scan(*sizes), strict=True
            ):  # type: ignore[arg-type]  # seven of them
                close("scan of matrices", got, truth, allowed * size)


def chunks_agree(dtype: torch.dtype, device: str, effort: Effort) -> None:
    """Check chunks of gates and of delta rules, and their gradients."""
    runs_chunks(device, dtype)


def scans_many(device: str, effort: Effort) -> None:
    """Check the scan of a tensor whose offsets need more than 31 bits."""
    if torch.device(device).type != "cuda" or torch.cuda.mem_get_info(device)[0] < 8 * MANY:
        return
    features = MANY // (1 << 14) + 128
    decay = torch.full((1, 1, 1), 0.5, device=device, dtype=torch.bfloat16)
    decay = decay.expand(1, 1 << 14, features)
    drive = torch.ones(1, 1 << 14, features, device=device, dtype=torch.bfloat16)
    states = elementwise_scan(decay, drive, drive[:, 0], False)
    assert bool((states[:, -1] == 2).all()) and bool((states[:, 5000, -128:] == 2).all())
    assert bool((states[:, 0] == 1.5).all())


def double(dtype: torch.dtype) -> torch.dtype:
    """Return the wide dtype of the same kind."""
    return torch.complex128 if dtype.is_complex else torch.float64


def close(what: str, got: Tensor, expected: Tensor, allowed: Tensor) -> None:
    """Raise an error if numbers differ from the truth by more than is allowed."""
    error = (got.to("cpu", expected.dtype) - expected).abs()
    if not bool((error <= allowed).all()):
        used = float((error / allowed.clamp(min=torch.finfo(torch.float64).tiny)).max())
        raise AssertionError(f"{what}: {used:.3g} times the error that is allowed")


def layer_agrees(name: str, options: dict[str, Any], device: str, effort: Effort) -> None:
    """Compare a layer's outputs, states and gradients with the CPU's, in double precision."""
    module, _, kind = name.partition(":")
    torch.manual_seed(0)
    made = getattr(importlib.import_module(module), kind)(**options).double()
    inputs, lengths = draw(3, 20, made.input_size), torch.tensor([20, 4, 0])
    found = []
    for place in ("cpu", device):
        layer = made.to(place)
        given = inputs.to(place).requires_grad_()
        result, last = layer(given), layer.final(given)
        padded = layer(given, lengths=lengths)
        one, state = layer.step(given[:, 0])
        two, _ = layer.step(given[:, 1], state)
        leaves = [given, *(each for each in layer.parameters() if each.requires_grad)]
        total = result.outputs.square().sum() + last.outputs.sum()
        gradients = torch.autograd.grad(total, leaves, allow_unused=True)
        kept = [
            *result,
            *last,
            *padded,
            one,
            two,
            *(each for each in gradients if each is not None),
        ]
        found.append([each.detach().cpu() for each in kept])
    made.to("cpu")
    for mine, right in zip(*reversed(found), strict=True):
        torch.testing.assert_close(mine, right)


def memory(order: int = 6) -> LinearRecurrence:
    """Make a Legendre memory in float32."""
    discrete = discretize(memories.legendre(order, 10.0))
    assert discrete.B is not None
    return LinearRecurrence(discrete.A.to_dense().float(), discrete.B.float())


def trains(device: str, effort: Effort) -> None:
    """Compare parameters after three steps of Adam with the CPU's; memories trained and frozen."""
    inputs, targets = draw(5, effort.steps, 1), draw(5, 6, seed=1)
    found = []
    for place in ("cpu", device):
        torch.manual_seed(0)
        memories_ = [Recurrence(memory(), trainable=each) for each in ([], ["A", "B"])]
        network = nn.ModuleList([*memories_, nn.Linear(1, 1), nn.Linear(6, 6)]).double().to(place)
        frozen, trained, encoder, readout = network
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            u = encoder(inputs.to(place))
            states = frozen.final(u).outputs + trained(u).outputs[:, -1]  # type: ignore[operator]
            nn.functional.mse_loss(readout(states), targets.to(place)).backward()
            optimizer.step()
        found.append([each.detach().cpu() for each in network.parameters()])
    for mine, right in zip(*reversed(found), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-6, atol=1e-8)


def waits_for_nothing(device: str, effort: Effort) -> None:
    """Check that calls with a plan, modules and steps never wait for the device."""
    recurrence, lengths = memory().to(device), torch.tensor([effort.steps, 3])
    inputs = draw(2, effort.steps, 1, dtype=torch.float32).to(device)
    layer = Recurrence(recurrence)
    layer(inputs)  # (prepare the frozen tensors)
    layer.final(inputs)
    for executor in EXECUTORS:
        plan = executor.prepare(recurrence, effort.steps)
        with no_waiting(device):
            _, state = run(recurrence, inputs, plan=plan)
            run(recurrence, inputs, state, lengths=lengths, plan=plan)
            final(recurrence, inputs, state, plan=plan)
    with no_waiting(device):
        outputs = layer(inputs.clone().requires_grad_()).outputs
        outputs.sum().backward()
        layer.final(inputs, lengths=lengths)
        step(recurrence, inputs[:, 0], layer.step(inputs[:, 0]).state)
        gates = inputs.sigmoid().expand(-1, -1, 6)
        run(LinearRecurrence(Diagonal(gates), time_varying=True), gates)


def keeps_all_digits(device: str, effort: Effort) -> None:
    """Check that linrec's products keep their digits where the program allows TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        for executor in EXECUTORS:
            agrees(executor, torch.float32, device, effort._replace(steps=min(effort.steps, 64)))
    finally:
        torch.set_float32_matmul_precision(before)


def compiles(device: str, effort: Effort) -> None:
    """Compare results and gradients of compiled graphs with eager runs."""
    layer = Recurrence(memory(), trainable=["A"]).to(device)
    inputs = draw(2, effort.steps, 1, dtype=torch.float32).to(device)
    gates = inputs.sigmoid().expand(-1, -1, 6).contiguous()

    def scanned(gates: Tensor) -> Tensor:
        system = LinearRecurrence(Diagonal(gates), time_varying=True)
        return run(system, gates, executor=AssociativeScan()).outputs

    for function, given in ((lambda u: layer(u).outputs, inputs), (scanned, gates)):
        torch.compiler.reset()
        compiled = torch.compile(function, backend=effort.backend, fullgraph=True)
        found = []
        for way in (compiled, function):
            leaf = given.clone().requires_grad_()
            outputs = way(leaf)
            found.append((outputs.detach(), *torch.autograd.grad(outputs.square().sum(), [leaf])))
        for mine, right in zip(*found, strict=True):
            torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-5)
    torch.compiler.reset()


def captures(device: str, effort: Effort) -> None:
    """Check that a captured step gives the results of a plain one, also after changes of state."""
    samples = draw(7, 4, 1, dtype=torch.float32).to(device)
    for system in (memory().to(device), replace(memory(), C=draw(2, 6).float()).to(device)):
        plain, captured = (Stream(system, streams=4) for _ in range(2))
        reason = captured.capture()
        assert (reason is None) == (torch.device(device).type == "cuda"), reason
        for turn, sample in enumerate(samples):
            right = plain.push(sample)
            torch.testing.assert_close(captured.push(sample), right)
            if turn == 3:
                for stream in (plain, captured):
                    stream.reset([1])
            if turn == 5:
                for stream in (plain, captured):
                    stream.join(1)
                    stream.leave([0])
        torch.testing.assert_close(captured.state, plain.state)


CHECKS = tuple(checks())
