"""The timed cases, each with its floor: the least work that any method must do."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from linrec import memories
from linrec._tensors.reused_memory import Pool, using
from linrec.discretization import discretize
from linrec.executors import Toeplitz
from linrec.nn import Recurrence
from linrec.planner import Auto
from linrec.run import run
from linrec.scan import linear_scan
from linrec.systems import LinearRecurrence

Ways = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Case:
    """A timed case: several functions, each a row of the table.

    Attributes:
        name: a description of the case.
        floor: a description of its floor.
        make: makes the functions to time, with "floor" if there is one, on a device or the CPU.
        targets: the target times as multiples of another way's time: `{"run": ("floor", 1.5)}`;
            None for ways that are compared without a target.
        numbers: the number of output numbers.
        operations: the number of multiplications and additions in the definition.
        fresh: whether memory is new to the process in each call. (It always is for results larger
            than 32 MiB.)
        leanest: the memory that a way may hold, as a multiple of its outputs: `{"forward": 1.3}`.
    """

    name: str
    floor: str
    make: Callable[..., Ways]
    targets: dict[str, tuple[str, float | None]] = field(default_factory=dict)
    numbers: int = 0
    operations: float = 0.0
    fresh: bool = False
    leanest: dict[str, float] = field(default_factory=dict)


def legendre(
    order: int, theta: float, copies: int = 1, outputs: int = 0, *, device: str = "cpu"
) -> LinearRecurrence:
    """Make a Legendre memory of a window of theta steps, in torch's default dtype.

    References:
        Chilkuri and Eliasmith 2021, eq. 3.
    """
    C = torch.randn(outputs, order) if outputs else None
    discrete = discretize(memories.legendre(order, theta))
    assert discrete.B is not None
    matrices = (discrete.A.to_dense(), discrete.B, C)
    kind = torch.get_default_dtype()
    return LinearRecurrence(*matrices, copies=copies).to(kind).to(device)


def backward(outputs: Tensor, inputs: tuple[Tensor, ...], gradient: Tensor) -> object:
    """Compute the gradients in some inputs."""
    return torch.autograd.grad(outputs, inputs, gradient)


def in_kept_memory(way: Callable[[], object]) -> Callable[[], object]:
    """Make a function that computes in the memory of its earlier results."""
    kept = Pool()

    def call() -> object:
        with using(kept):
            return way()

    return call


def rounds(ways: Ways) -> list[Ways]:
    """Split ways into those in new memory and those in kept memory, which are timed separately.

    After a way that keeps its memory, Linux has less free memory ready, and the next way in new
    memory would pay for that: the FFT of 32 channels took four times as long.
    """
    kept = {name: way for name, way in ways.items() if name.endswith(", kept")}
    new = {name: way for name, way in ways.items() if name not in kept}
    return [each for each in (new, kept) if each]


def all_states(
    batch: int, steps: int, order: int, copies: int = 1, *, most: float, fft: bool = False
) -> Case:
    """Make a case: all states of a frozen memory, and gradients in its inputs and the memory.

    On a CPU, also in kept memory (`reuse_memory`).

    Args:
        batch, steps, order, copies: the sizes.
        most: the forward pass's largest target time, as a multiple of the floor.
        fft: whether `Auto(per_step=False)`, which may choose the FFT, is timed too; it then has
            the targets.
    """

    def make(device: str = "cpu") -> Ways:
        memory = Recurrence(legendre(order, steps / 2, copies, device=device))
        inputs = torch.randn(batch, steps, copies, device=device)
        trained = inputs.clone().requires_grad_()
        gradient = torch.full((batch, steps, order * copies), 0.1, device=device)
        learning = Recurrence(memory.recurrence, trainable=["A", "B"])
        matrices = tuple(learning.parameters())
        ways: Ways = {
            "floor": lambda: torch.full((batch, steps, order * copies), 1.0, device=device),
            "forward": lambda: memory(inputs).outputs,
            "with gradient": lambda: backward(memory(trained).outputs, (trained,), gradient),
            "trained": lambda: backward(learning(inputs).outputs, matrices, gradient),
        }
        if device == "cpu":
            ways["forward, kept"] = in_kept_memory(ways["forward"])
            ways["with gradient, kept"] = in_kept_memory(ways["with gradient"])
        if not fft:
            return ways
        auto = Auto(per_step=False)
        by_fft = Recurrence(memory.recurrence, executor=auto)
        trained_by_fft = Recurrence(memory.recurrence, trainable=["A", "B"], executor=auto)
        weights = tuple(trained_by_fft.parameters())
        return ways | {
            "FFT forward": lambda: by_fft(inputs).outputs,
            "FFT with gradient": lambda: backward(by_fft(trained).outputs, (trained,), gradient),
            "FFT trained": lambda: backward(trained_by_fft(inputs).outputs, weights, gradient),
        }

    channels = f", {copies} channels" if copies > 1 else ""
    aimed = "FFT " if fft else ""
    targets: dict[str, tuple[str, float | None]] = {
        f"{aimed}forward": ("floor", most),
        f"{aimed}with gradient": (f"{aimed}forward", 2.5),
        f"{aimed}trained": (f"{aimed}forward", None),
        "forward, kept": ("forward", None),
        "with gradient, kept": ("with gradient", None),
    }
    if fft:
        targets |= {way: (f"FFT {way}", None) for way in ("forward", "with gradient", "trained")}
    return Case(
        f"all states: {batch} × {steps:,}, order {order}{channels}",
        "filling the outputs",
        make,
        targets,
        batch * steps * order * copies,
        2.0 * batch * steps * copies * order * (order + 1),
        leanest={f"{aimed}forward": 1.3, f"{aimed}trained": 2.0},
    )


def elementwise(batch: int, steps: int, features: int) -> Case:
    """Make a case: the elementwise scan and its gradients."""

    def make(device: str = "cpu") -> Ways:
        decay = torch.rand(batch, steps, features, device=device)
        drive, gradient = torch.randn(2, batch, steps, features, device=device)
        trained = (decay.clone().requires_grad_(), drive.clone().requires_grad_())
        return {
            "floor": lambda: torch.addcmul(drive, decay, drive),
            "forward": lambda: linear_scan(decay, drive),
            "with gradient": lambda: backward(linear_scan(*trained), trained, gradient),
        }

    return Case(
        f"elementwise scan: {batch} × {steps:,} × {features}",
        "torch.addcmul of the same size",
        make,
        {"forward": ("floor", 2.0), "with gradient": ("forward", 3.0)},
        batch * steps * features,
        2.0 * batch * steps * features,
        fresh=True,
    )


def one_output(device: str = "cpu") -> Ways:
    """Make a readout of one output and a readout of all states of the same memory."""
    inputs = torch.randn(32, 4096, 1, device=device)
    read = Recurrence(legendre(256, 2048.0, outputs=1, device=device))
    whole = Recurrence(legendre(256, 2048.0, device=device))
    return {
        "floor": lambda: torch.full((32, 4096, 256), 1.0, device=device),
        "all states": lambda: whole(inputs).outputs,
        "one output": lambda: read(inputs).outputs,
    }


def last_step(device: str = "cpu") -> Ways:
    """Make the computation of the last state alone, of a sequence of MNIST's pixels."""
    memory = Recurrence(legendre(468, 784.0, device=device))
    inputs = torch.randn(100, 784, 1, device=device)
    rows, kernel = inputs.flatten(1), torch.randn(784, 468, device=device)
    return {"floor": lambda: rows @ kernel, "final": lambda: memory.final(inputs).outputs}


def one_step(device: str = "cpu") -> Ways:
    """Make one step of a memory, for streaming."""
    memory = Recurrence(legendre(256, 784.0, device=device))
    state, value = torch.randn(256, device=device), torch.randn(1, device=device)
    recurrence = memory.recurrence
    A = recurrence.A.to_dense()
    from linrec.run import step

    return {
        "floor": lambda: A @ state,
        "step": lambda: step(recurrence, value, state).outputs,
        "module": lambda: memory.step(value, state).outputs,
    }


def preparation(device: str = "cpu") -> Ways:
    """Make the preparation of a kernel in double precision."""
    recurrence = legendre(468, 784.0, device=device).to(torch.float64)
    return {"prepare": lambda: Toeplitz().prepare(recurrence, 784)}


def choice(device: str = "cpu") -> Ways:
    """Make the choice of an executor."""
    recurrence, auto = legendre(468, 784.0, device=device), Auto()
    return {"choose": lambda: auto.select(recurrence, 784, (100,))}


def training_step(device: str = "cpu", batch: int = 100, steps: int = 784) -> Ways:
    """Make a whole training step of the paper's psMNIST network, on images of `steps` pixels.

    It has a frozen memory of order 468, a layer of 346 on its last state, and ten classes.
    """
    memory = Recurrence(legendre(468, float(steps), device=device))
    readout = nn.Sequential(nn.Linear(468, 346), nn.ReLU(), nn.Linear(346, 10)).to(device)
    encoder, optimizer = nn.Linear(1, 1).to(device), torch.optim.Adam(readout.parameters())
    optimizer.add_param_group({"params": encoder.parameters()})
    images = torch.rand(batch, steps, 1, device=device)
    labels = torch.randint(10, (batch,), device=device)

    def step() -> None:
        optimizer.zero_grad()
        scores = readout(memory.final(encoder(images)).final_state)
        nn.functional.cross_entropy(scores, labels).backward()
        optimizer.step()

    return {"training": step}


def per_step(steps: tuple[int, ...], device: str = "cpu") -> Ways:
    """Make ways for ever longer sequences, four at a time."""
    ways: Ways = {}
    for length in steps:
        memory = legendre(64, 512.0, device=device)
        inputs = torch.randn(4, length, 1, device=device)
        plan = Auto().select(memory, length, (4,), prepared=True).prepare(memory, length)
        ways[f"{length:,}"] = lambda u=inputs, m=memory, p=plan: run(m, u, plan=p).outputs
    return ways


LENGTHS = (1 << 10, 1 << 14, 1 << 17, 1 << 20)

CASES = (
    all_states(2048, 1024, 32, most=1.5),
    all_states(100, 784, 468, most=3.0, fft=True),
    all_states(4, 65536, 64, most=1.8),
    all_states(16, 512, 256, 32, most=3.0, fft=True),
    elementwise(16, 1024, 512),
    elementwise(64, 512, 256),
    elementwise(1, 65536, 64),
    Case("one output of 256 states: 32 × 4,096", "filling all states", one_output),
    Case(
        "last state: 100 × 784, order 468",
        "the one product that it takes",
        last_step,
        {"final": ("floor", 1.3)},
        operations=2.0 * 100 * 784 * 468,
    ),
    Case("one step: order 256", "one product with A", one_step, {"step": ("floor", 3.0)}),
    Case("psMNIST: 100 × 784, order 468, hidden 346", "–", training_step),
    Case("kernel of order 468, 784 steps, float64", "–", preparation),
    Case("choice of an executor", "–", choice),
    Case("ever longer sequences: 4, order 64", "–", lambda *on: per_step(LENGTHS, *on)),
)
