"""Checks of calls on a device: they must give the CPU's numbers and never wait.

`python -m tests.linrec.on_a_device simulated` simulates a device (see `simulated_device.py`),
`... without-double` one that has no double precision, `... fake` takes fake tensors of it (they are
slow), all three one after another, and `... cuda` a real device. Of the first three a part of the
cases is run; with LINREC_FULL=1 all are, and a fifth of the fake ones. Each case is run on the CPU
and on the device; prints what differs and what waited, and exits 1 if anything did.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import linrec
import linrec.testing
import lmu
from linrec.benchmark.device_cases import SMALL, measure_cases
from linrec.benchmark.floors import measure_floors
from tests.cases import EXECUTORS, SYSTEMS, TRANSITIONS, VARYING, data, generator
from tests.linrec import simulated_device
from tests.linrec.layers import LAYERS

STEPS = 21
# One of so many cases is run, if not all of them.
EVERY = {"fake": 47, "simulated": 7, "without-double": 17}
if os.environ.get("LINREC_FULL"):
    EVERY = {"fake": 5}
Found = dict[str, Tensor]


@dataclass(frozen=True)
class Place:
    """Where a case is run.

    Attributes:
        device: the device.
        dtype: in which precision.
        quiet: makes it an error to wait for the device.
        fake: whether tensors are torch's fake ones.
    """

    device: str
    dtype: torch.dtype
    quiet: Callable[[], AbstractContextManager[object]]
    fake: bool = False

    def to(self, tensor: Tensor) -> Tensor:
        dtype = self.dtype.to_complex() if tensor.is_complex() else self.dtype
        return tensor.to(dtype).to(self.device)

    def put(self, recurrence: linrec.LinearRecurrence) -> linrec.LinearRecurrence:
        return recurrence.with_leaves({k: self.to(leaf) for k, leaf in recurrence.leaves().items()})

    def module(self, module: Any) -> Any:
        if not self.fake:
            return module.to(self.dtype).to(self.device)
        for part in module.modules():  # (the data of parameters cannot be swapped for fake ones)
            for name, leaf in part.named_parameters(recurse=False):
                setattr(part, name, torch.nn.Parameter(self.to(leaf.detach())))
            for name, leaf in part.named_buffers(recurse=False):
                setattr(part, name, self.to(leaf))
        return module


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def named(prefix: str, tensors: Sequence[Tensor | None]) -> Found:
    return {f"{prefix}{index}": each for index, each in enumerate(tensors) if each is not None}


def differentiate(place: Place, outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> Found:
    """Differentiate a sum of outputs, weighted at random."""
    weights = [place.to(draw(*each.shape, seed=9)) for each in outputs]
    with place.quiet():
        total = sum((w * each).sum() for w, each in zip(weights, outputs, strict=True))
        assert isinstance(total, Tensor)
        total = total.real if total.is_complex() else total
        return named("gradient ", torch.autograd.grad(total, inputs, allow_unused=True))


def prepared(executor: linrec.Executor, A: str, around: str, place: Place) -> Found:
    """Run with a plan: all steps and the last, with and without lengths and a state."""
    recurrence = SYSTEMS[around](TRANSITIONS[A]())
    inputs, state = data(recurrence, STEPS, 3)
    recurrence, inputs, state = place.put(recurrence), place.to(inputs), place.to(state)
    plan, found = executor.prepare(recurrence, STEPS), {}
    lengths = torch.tensor([STEPS, 4, 0]).view(3, *[1] * (inputs.ndim - 3))
    there = lengths.to(place.device)
    inputs.requires_grad_()
    state.requires_grad_()
    ways = ((None, None), (None, state), (lengths, state), (there, state))
    for which, (given, start) in enumerate(ways):
        for verb in (linrec.run, linrec.final):
            with place.quiet():
                result = verb(recurrence, inputs, start, lengths=given, plan=plan)
            key = f"{verb.__name__}, {which}: "
            found |= named(key, result)
            if which != 2:
                leaves = [inputs] if start is None else [inputs, state]
                gradients = differentiate(place, result, leaves)
                found |= {key + name: each for name, each in gradients.items()}
    with place.quiet():
        found |= named("step ", linrec.step(recurrence, inputs[..., 0, :], state))
        found |= named("first step ", linrec.step(recurrence, inputs[..., 0, :]))
    return found


def varying(executor: linrec.Executor, name: str, place: Place) -> Found:
    """Run a system that varies."""
    recurrence = SYSTEMS["ABC"](VARYING[name](STEPS))
    inputs, state = data(recurrence, STEPS, 3)
    inputs = place.to(inputs).requires_grad_()
    recurrence, state = place.put(recurrence), place.to(state)
    lengths = torch.tensor([STEPS, 4, 0]).view(3, *[1] * (inputs.ndim - 3))
    with place.quiet():
        result = linrec.run(recurrence, inputs, state, executor=executor)
        last = linrec.final(recurrence, inputs, state, lengths=lengths, executor=executor)
    return named("", result) | named("last ", last) | differentiate(place, result, [inputs])


def module(executor: linrec.Executor, trained: bool, place: Place) -> Found:
    """Run a module, whose plan is kept if nothing is trained."""
    recurrence = SYSTEMS["ABCD"](TRANSITIONS["dense"]())
    inputs, state = (place.to(each) for each in data(recurrence, STEPS, 3))
    layer = linrec.nn.Recurrence(
        recurrence, trainable=list("ABCD") if trained else [], executor=executor
    )
    layer, lengths = place.module(layer), torch.tensor([STEPS, 4, 0])
    found = {}
    for turn in range(2):
        for start in (None, state):
            for given in (None, lengths):
                with place.quiet() if turn or trained else nullcontext():
                    result, last = layer(inputs, start, given), layer.final(inputs, start, given)
                found |= named(f"{start is None}, {given is None}: ", (*result, *last))
    if trained:
        found |= differentiate(place, result, list(layer.parameters()))
    with torch.no_grad():  # a write is seen
        next(iter([*layer.buffers(), *layer.parameters()])).mul_(0.5)
    return found | named("written ", layer(inputs, state))


def layer_of(make: Callable[[], torch.nn.Module], place: Place) -> Found:
    """Run a layer forwards and back, with lengths, resets where it takes some, and stepwise."""
    torch.manual_seed(0)
    layer = place.module(make())
    size: int = layer.input_size
    inputs = place.to(draw(3, STEPS, size)).requires_grad_()
    lengths = torch.tensor([STEPS, 4, 0])
    result = layer(inputs)  # (what is frozen is prepared)
    layer.final(inputs)
    with place.quiet():
        result, last = layer(inputs), layer.final(inputs)
        padded = layer(inputs, lengths=lengths)
        outputs, state = layer.step(inputs[:, 0])
        outputs, state = layer.step(inputs[:, 1], state)
    found = named("", result) | named("last ", last) | named("padded ", padded)
    leaves = [inputs, *layer.parameters()]
    return found | named("step ", (outputs, state)) | differentiate(place, result, leaves)


def resets(place: Place) -> Found:
    """Forget states on the way."""
    recurrence = SYSTEMS["AB"](TRANSITIONS["diagonal"]())
    inputs, state = (place.to(each) for each in data(recurrence, STEPS, 2))
    recurrence, marks = place.put(recurrence), (torch.arange(STEPS) % 5 == 3).to(place.device)
    with place.quiet():
        return named("", linrec.run(linrec.with_resets(recurrence, marks), inputs, state))


def listed(place: Place) -> Found:
    """Use numbers and lists beside a system on the device, without its double precision."""
    recurrence = place.put(SYSTEMS["ABC"](TRANSITIONS["dense"]()))
    gains: Any = [[0.1], [0.2]]
    frequencies: Any = [0.1, 0.2]
    closed = linrec.feedback(recurrence, gains)
    response = linrec.frequency_response(recurrence, frequencies)
    return named("closed ", closed.tensors()) | {"response": response}


def scanned(width: int, place: Place) -> Found:
    """Scan elementwise, forwards and back."""
    decay = place.to(draw(2, STEPS, width).sigmoid()).requires_grad_()
    drive, state = place.to(draw(2, STEPS, width, seed=1)), place.to(draw(2, width, seed=2))
    drive.requires_grad_()
    with place.quiet():
        states = linrec.linear_scan(decay, drive, state)
    return {"states": states} | differentiate(place, [states], [decay, drive])


def benchmarked(place: Place) -> Found:
    """Time the cases of `linrec bench --device`; there is nothing to compare but that they run.

    (How many cases there are depends on the device.)
    """
    if not place.fake:  # (fake tensors take no time)
        assert [*measure_cases(place.device, 0.0, SMALL)]
        assert measure_floors(place.device, 0.0, quick=True)
    return {}


LMU_LAYERS: dict[str, Callable[[], torch.nn.Module]] = {
    "ParallelLMU": lambda: lmu.ParallelLMU(3, 5, channels=2, order=4, theta=8),
    "LMU": lambda: lmu.LMU(3, channels=2, order=4, theta=8, hidden=torch.nn.RNNCell(8, 5)),
    "stack": lambda: linrec.nn.Stack(
        [linrec.nn.MinGRU(3, 4), lmu.ParallelLMU(4, 5, channels=2, order=4, theta=8)]
    ),
}


def cases() -> Iterator[tuple[str, Callable[[Place], Found]]]:
    """List all cases by name."""
    executors = {k: each for k, each in EXECUTORS.items() if not k.startswith("chunked-")}
    for name, executor in executors.items():
        for A, around in (
            ("dense", "ABCD"),
            ("dense", "A"),
            ("dense batch", "ABC"),
            ("diagonal", "AB"),
            ("diagonal complex", "ABCD"),
            ("blocks", "AB, 3 copies"),
            ("companion", "ABC"),
            ("low rank", "ABCD, 2 copies"),
        ):
            yield (
                f"{name}: {A}, {around}",
                lambda p, e=executor, a=A, r=around: prepared(e, a, r, p),
            )
        for trained in (False, True):
            yield f"{name}: module, {trained}", lambda p, e=executor, t=trained: module(e, t, p)
        for system in VARYING:
            recurrence = SYSTEMS["ABC"](VARYING[system](STEPS))
            if executor.why_not(recurrence, STEPS) is None:
                yield f"{name}: {system}", lambda p, e=executor, s=system: varying(e, s, p)
    for name, (make, _) in LAYERS.items():
        yield f"layer {name}", lambda p, m=make: layer_of(m, p)
    for name, make_layer in LMU_LAYERS.items():
        yield f"layer {name}", lambda p, m=make_layer: layer_of(m, p)
    yield "lists", listed
    yield "resets", resets
    yield "benchmark", benchmarked
    for width in (3, 20_000):
        yield f"scan of {width}", lambda p, w=width: scanned(w, p)


def differences(expected: Found, got: Found) -> Iterator[str]:
    """Say where two results differ by more than torch's own tolerance for their precision."""
    assert expected.keys() == got.keys()
    for name, right in expected.items():
        value = got[name].detach().cpu()
        try:
            torch.testing.assert_close(value, right.detach().to(value.dtype))
        except AssertionError as error:
            yield f"{name}: {' '.join(str(error).split())}"


@contextmanager
def quiet_cuda() -> Iterator[None]:
    """Make it an error to wait for a GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextmanager
def kind_of_place(kind: str) -> Iterator[Place]:
    """Have a place to run at, as long as the context lasts."""
    if kind == "simulated":
        with simulated_device.device():
            yield Place(simulated_device.NAME, torch.float64, simulated_device.no_waiting)
    elif kind == "without-double":
        with simulated_device.device(has_double=False):
            yield Place(simulated_device.NAME, torch.float32, nullcontext)
    elif kind == "fake":
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield Place(simulated_device.NAME, torch.float64, nullcontext, fake=True)
    else:
        yield Place(kind, torch.float64, quiet_cuda)


def compared(case: Callable[[Place], Found], kind: str) -> list[str]:
    """Run a case on the CPU and on the device, and list what differs."""
    with kind_of_place(kind) as there:
        got = case(there)
        if kind != "fake":
            got = {name: each.detach().cpu() for name, each in got.items()}
    expected = case(Place("cpu", there.dtype, nullcontext))
    if kind == "fake":
        shapes = [{name: each.shape for name, each in found.items()} for found in (expected, got)]
        return [] if shapes[0] == shapes[1] else [f"shapes {shapes}"]
    return list(differences(expected, got))


def check(kind: str) -> int:
    """Run cases on a kind of device, say which went wrong, and count them."""
    wrong = 0
    chosen = list(cases())[:: EVERY.get(kind, 1)]
    for name, case in chosen:
        try:
            lines = compared(case, kind)
        except Exception:
            lines = [traceback.format_exc()]
        wrong += bool(lines)
        for line in lines:
            print(f"{name}: {line}")
    print(f"{len(chosen)} cases on {kind}, {wrong} of them wrong")
    return wrong


def main(*kinds: str) -> int:
    """Check each kind of device in turn; give the exit status."""
    if kinds != ("cuda",):
        simulated_device.register()  # before autograd counts the devices
    return 1 if sum([check(kind) for kind in kinds]) else 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # (autograd's thread for a device that there is not would not be joined)
