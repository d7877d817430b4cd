"""Times of other libraries at the same work, each in its own process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from linrec.benchmark.cases import (
    Ways,
    all_states,
    elementwise,
    in_kept_memory,
    rounds,
    training_step,
)
from linrec.benchmark.timing import medians

Shape = tuple[int, ...]


def all_states_with_fft(*shape: int, device: str) -> Ways:
    """Make all states with the FFT allowed; peers use it too, and have its errors.

    On a CPU, also in kept memory (`reuse_memory`).
    """
    made = all_states(*shape, most=1.0, fft=True).make(device)
    ways = {name: made[f"FFT {name}"] for name in ("forward", "with gradient")}
    kept = {f"{name}, kept": in_kept_memory(way) for name, way in ways.items()}
    return ways | kept if device == "cpu" else ways


# The compared work as linrec does it. A shape is batch, steps, and order or features; that of a
# training step has the peer's order, and ours is the paper's.
OURS: dict[str, Callable[..., Ways]] = {
    "states": all_states_with_fft,
    "elementwise": lambda *shape, device: elementwise(*shape).make(device),
    "training step": lambda batch, steps, order, device: training_step(device, batch, steps),
}
SHAPES: dict[str, tuple[Shape, ...]] = {
    "states": ((2048, 1024, 32), (100, 784, 468), (4, 65536, 64)),
    "elementwise": ((16, 1024, 512), (64, 512, 256), (1, 65536, 64)),
    "training step": ((100, 784, 256),),
}

# The code around every peer's own: the same shapes, timed in the same way.
PRELUDE = """
import json, statistics, time
import numpy as np

def wait():
    if device != "cpu":
        import torch
        torch.cuda.synchronize()

def timed(way, least=3, seconds=2.0):
    way()
    wait()
    times, calls, end = [], 1, time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(calls):
            result = way()
        wait()
        times.append((time.perf_counter() - start) / calls)
        del result
        if device != "cpu":  # what is short is launched in a row
            calls = max(int(0.01 / times[-1]), 1)
    return statistics.median(times)

def legendre(n, theta):
    from scipy.signal import cont2discrete
    i, j = np.arange(n)[:, None], np.arange(n)[None, :]
    A = (2 * i + 1) * np.where(i < j, -1.0, (-1.0) ** np.abs(i - j + 1)) / theta
    B = (2 * i + 1) * (-1.0) ** i / theta
    A, B, *_ = cont2discrete((A, B, np.eye(n), np.zeros((n, 1))), 1.0)
    kind = "float64" if dtype == "float64" else "float32"  # numpy has no bfloat16
    return A.astype(kind), B.astype(kind)

shape = json.loads(SHAPE_TEXT)
batch, steps, order = shape[:3]
"""
POSTLUDE = """
found = {}
for name, way in ways.items():
    try:
        found[name] = timed(way)
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
import sys
from importlib.metadata import PackageNotFoundError, version
versions = []
for name in dict.fromkeys([MODULE, "torch", "tensorflow"]):
    if name in sys.modules:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:  # a module that was not installed by itself
            pass
print(json.dumps([found, ", ".join(versions)]))
"""

# For peers in torch: a function to run forward and with its gradients.
TORCH = """
import torch
torch.set_default_dtype(getattr(torch, dtype))
def ways_of(function, *given):
    trained = [each.clone().requires_grad_() for each in given]
    gradient = torch.randn_like(function(*given))
    def forward():
        with torch.no_grad():
            return function(*given)
    return {
        "forward": forward,
        "with gradient": lambda: torch.autograd.grad(function(*trained), trained, gradient),
    }
"""
SCAN = (
    TORCH
    + """
decay = torch.rand(batch, steps, order, device=device)
drive = torch.randn(batch, steps, order, device=device)
"""
)


@dataclass(frozen=True)
class Peer:
    """Another library.

    Attributes:
        name: its name.
        module: the module to import.
        install: the command that installs it.
        work: the compared work, a key of `OURS`.
        source: Python code that puts functions into `ways`, under the same names as ours.
    """

    name: str
    module: str
    install: str
    work: str
    source: str


PEERS = (
    Peer(
        "philtorch (compiled)",
        "philtorch",
        "pip install philtorch",
        "states",
        TORCH
        + """
from philtorch.lti import state_space_recursion
A, B = (torch.from_numpy(matrix).to(getattr(torch, dtype)) for matrix in legendre(order, steps / 2))
start = torch.zeros(batch, order)
ways = ways_of(lambda u: state_space_recursion(A, start, u @ B.mT), torch.randn(batch, steps, 1))
""",
    ),
    Peer(
        "keras-lmu (FFT)",
        "keras_lmu",
        "pip install keras-lmu 'tensorflow<2.16'",
        "states",
        """
import tensorflow as tf, keras_lmu
tf.keras.backend.set_floatx(dtype)
layer = keras_lmu.LMUFeedforward(1, order, steps / 2, hidden_cell=None, return_sequences=True)
u = tf.cast(tf.random.normal((batch, steps, 1)), dtype)
forward = tf.function(layer)
gradient = tf.cast(tf.random.normal((batch, steps, order)), dtype)
@tf.function
def differentiated(u, gradient):
    with tf.GradientTape() as tape:
        tape.watch(u)
        states = layer(u)
    # The states are returned too, as a loss needs them: TensorFlow leaves out unused results.
    return states, tape.gradient(states, u, output_gradients=gradient)
def wait_for(results):  # `numpy()` copies: one number of each is enough
    for each in tf.nest.flatten(results):
        each[0, 0, 0].numpy()
ways = {
    "forward": lambda: wait_for(forward(u)),
    "with gradient": lambda: wait_for(differentiated(u, gradient)),
}
""",
    ),
    Peer(
        "keras-lmu (the LMU of 2019)",
        "keras_lmu",
        "pip install keras-lmu 'tensorflow<2.16'",
        "training step",
        """
import tensorflow as tf, keras_lmu
unit = keras_lmu.LMU(
    1, order, steps, tf.keras.layers.SimpleRNNCell(212),
    hidden_to_memory=True, memory_to_memory=True, input_to_hidden=True,  # all off by default
)
model = tf.keras.Sequential([tf.keras.Input((steps, 1)), unit, tf.keras.layers.Dense(10)])
loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(optimizer="adam", loss=loss)
images = np.random.rand(batch, steps, 1).astype("float32")
labels = np.random.randint(10, size=batch)
ways = {"training": lambda: model.train_on_batch(images, labels)}
""",
    ),
    Peer(
        "torchlpc",
        "torchlpc",
        "pip install torchlpc",
        "elementwise",
        SCAN
        + """
from torchlpc import sample_wise_lpc
def scan(decay, drive):
    a = -decay.movedim(1, 2).reshape(-1, steps, 1)
    states = sample_wise_lpc(drive.movedim(1, 2).reshape(-1, steps), a)
    return states.reshape(batch, order, steps).movedim(1, 2)
ways = ways_of(scan, decay, drive)
""",
    ),
    Peer(
        "assoc-scan",
        "assoc_scan",
        "pip install assoc-scan",
        "elementwise",
        SCAN
        + """
from assoc_scan import AssocScan
ways = ways_of(AssocScan(use_accelerated=False), decay, drive)
""",
    ),
    Peer(
        "logcumsumexp scan",
        "torch",
        "pip install torch",
        "elementwise",
        SCAN
        + """
drive = drive.abs()  # its logarithm is taken
def scan(decay, drive):
    total = decay.log().cumsum(1)
    return (total + (drive.log() - total).logcumsumexp(1)).exp()
ways = ways_of(scan, decay, drive)
""",
    ),
    Peer(
        "torch associative_scan",
        "torch",
        "pip install torch",
        "elementwise",
        SCAN
        + """
from torch._higher_order_ops.associative_scan import associative_scan
def combine(left, right):
    return left[0] * right[0], right[0] * left[1] + right[1]
def scan(decay, drive):
    return associative_scan(combine, (decay, drive), 1, combine_mode="generic")[1]
ways = ways_of(scan, decay, drive)
""",
    ),
)


@dataclass(frozen=True)
class Field:
    """A set of libraries, with linrec's own work to compare.

    Attributes:
        peers: the libraries.
        shapes: the timed shapes, by work.
        ours: linrec's ways for a shape and a device, by work.
    """

    peers: tuple[Peer, ...]
    shapes: Mapping[str, tuple[Shape, ...]]
    ours: Mapping[str, Callable[..., Ways]]


def measure_peers(
    pythons: list[str],
    limit: float = 240.0,
    seconds: float = 2.0,
    device: str = "cpu",
    field: Field | None = None,
    dtype: str = "float32",
) -> Iterator[dict[str, Any]]:
    """Time every peer that an interpreter has, and linrec at the same work right after it.

    Args:
        pythons: interpreters to search for peers; this process's own comes last.
        limit: the most seconds for a peer on one shape.
        seconds: how long linrec is timed on each shape.
        device: the device of both.
        field: the peers. None: the peers on a CPU.
        dtype: the name of the precision, such as "bfloat16". Training steps use float32 only.

    Yields:
        Rows with the peer, the shape, the precision, the work, and the seconds of both, or the
        reason why there are none; also our seconds in kept memory, or None.
    """
    field = field or Field(PEERS, SHAPES, OURS)
    for peer in field.peers:
        if dtype != "float32" and peer.work == "training step":
            continue
        python = next((each for each in [*pythons, sys.executable] if has(each, peer)), None)
        if python is None:
            reason = f"not installed: {peer.install}, and pass --python for its interpreter"
            yield {"peer": peer.name, "work": peer.work, "reason": reason}
            continue
        for shape in field.shapes[peer.work]:
            theirs, versions = time_peer(python, peer, shape, limit, device, dtype)
            with default_dtype(getattr(torch, dtype)):
                ours: dict[str, float] = {}
                for some in rounds(field.ours[peer.work](*shape, device=device)):
                    ours |= medians(some, seconds, 3, fresh=False, device=device)
            for way, taken in theirs.items():
                row = {"peer": peer.name, "work": peer.work, "shape": shape, "way": way}
                row["dtype"] = dtype
                told = {"reason": taken} if isinstance(taken, str) else {"seconds": taken}
                mine = {"ours": ours.get(way), "ours, kept": ours.get(f"{way}, kept")}
                yield row | told | mine | {"versions": versions}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Set torch's default dtype within the context."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def has(python: str, peer: Peer) -> bool:
    """Return whether an interpreter can find a peer."""
    code = f"import importlib.util as u; raise SystemExit(u.find_spec({peer.module!r}) is None)"
    try:
        return subprocess.run([python, "-c", code], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def time_peer(
    python: str,
    peer: Peer,
    shape: Shape,
    limit: float,
    device: str = "cpu",
    dtype: str = "float32",
) -> tuple[dict[str, float | str], str]:
    """Time a peer on one shape, in its own process.

    Returns:
        Seconds, or the reason why there are none, by way; and the versions that ran.
    """
    given = (json.dumps(list(shape)), peer.module, device, dtype)
    setting = f"SHAPE_TEXT, MODULE, device, dtype = {given!r}\n"
    code = setting + PRELUDE + peer.source + POSTLUDE
    try:
        done = subprocess.run(
            [python, "-c", code],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=limit,
            env=os.environ,
        )
    except subprocess.TimeoutExpired:
        return {"all of it": f"took more than {limit:g} seconds"}, ""
    if done.returncode:
        return {"all of it": (done.stderr.strip().splitlines() or ["it failed"])[-1]}, ""
    found, versions = json.loads(done.stdout.strip().splitlines()[-1])
    return found, versions
