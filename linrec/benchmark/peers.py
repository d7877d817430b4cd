"""The same work, done by others: each in a process of its own, where it is installed."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

# What every peer's process begins with: the same shapes, and times taken in the same way.
PRELUDE = """
import json, statistics, time
import numpy as np

def timed(way, least=3, seconds=2.0):
    way()
    times, end = [], time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        result = way()
        times.append(time.perf_counter() - start)
        del result
    return statistics.median(times)

def legendre(n, theta):
    from scipy.signal import cont2discrete
    i, j = np.arange(n)[:, None], np.arange(n)[None, :]
    A = (2 * i + 1) * np.where(i < j, -1.0, (-1.0) ** np.abs(i - j + 1)) / theta
    B = (2 * i + 1) * (-1.0) ** i / theta
    A, B, *_ = cont2discrete((A, B, np.eye(n), np.zeros((n, 1))), 1.0)
    return A.astype("float32"), B.astype("float32")

SHAPE = json.loads(SHAPE_TEXT)
"""


@dataclass(frozen=True)
class Peer:
    """Another library.

    Attributes:
        name: what it is called.
        module: what is imported.
        install: what to type to have it.
        kind: "states" for all states of a frozen memory, "elementwise" for the scan.
        source: Python code that puts a function into `forward`.
    """

    name: str
    module: str
    install: str
    kind: str
    source: str


SCAN = """
import torch
batch, steps, features = SHAPE
decay, drive = torch.rand(batch, steps, features), torch.randn(batch, steps, features)
"""

PEERS = (
    Peer(
        "philtorch (compiled)",
        "philtorch",
        "pip install philtorch",
        "states",
        """
import torch
from philtorch.lti import state_space_recursion
batch, steps, order = SHAPE
A, B = (torch.from_numpy(matrix) for matrix in legendre(order, steps / 2))
u, start = torch.randn(batch, steps, 1), torch.zeros(batch, order)
forward = lambda: state_space_recursion(A, start, u @ B.mT)
""",
    ),
    Peer(
        "keras-lmu 0.9",
        "keras_lmu",
        "pip install keras-lmu 'tensorflow<2.16'",
        "states",
        """
import tensorflow as tf, keras_lmu
batch, steps, order = SHAPE
layer = keras_lmu.LMUFeedforward(1, order, steps / 2, hidden_cell=None, return_sequences=True)
u = tf.random.normal((batch, steps, 1))
run = tf.function(layer)
forward = lambda: run(u).numpy()
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
a = -decay.movedim(1, 2).reshape(-1, steps, 1).contiguous()
x = drive.movedim(1, 2).reshape(-1, steps).contiguous()
forward = lambda: sample_wise_lpc(x, a)
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
scan = AssocScan(use_accelerated=False)
forward = lambda: scan(decay, drive)
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
def forward():
    total = decay.log().cumsum(1)
    return (total + (drive.log() - total).logcumsumexp(1)).exp()
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
forward = lambda: associative_scan(combine, (decay, drive), 1, combine_mode="generic")
""",
    ),
)

SHAPES = {
    "states": ((2048, 1024, 32), (100, 784, 468), (4, 65536, 64)),
    "elementwise": ((16, 1024, 512), (64, 512, 256), (1, 65536, 64)),
}


def measure_peers(pythons: list[str], limit: float = 120.0) -> Iterator[dict[str, object]]:
    """Time every peer that one of the interpreters has, on the shapes of our own table.

    Args:
        pythons: interpreters to look for peers in; this process's own comes last.
        limit: for how long a peer may take over one shape, in seconds.

    Yields:
        Rows with the peer, the shape and seconds, or with the reason why there are none.
    """
    for peer in PEERS:
        python = next((each for each in [*pythons, sys.executable] if has(each, peer)), None)
        if python is None:
            reason = f"not installed: {peer.install}, and pass --python for its interpreter"
            yield {"peer": peer.name, "reason": reason}
            continue
        for shape in SHAPES[peer.kind]:
            row = {"peer": peer.name, "kind": peer.kind, "shape": shape}
            yield row | time_peer(python, peer, shape, limit)


def has(python: str, peer: Peer) -> bool:
    """Whether an interpreter can find a peer."""
    code = f"import importlib.util as u; raise SystemExit(u.find_spec({peer.module!r}) is None)"
    try:
        return subprocess.run([python, "-c", code], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def time_peer(python: str, peer: Peer, shape: tuple[int, ...], limit: float) -> dict[str, object]:
    """Time a peer on one shape, in a process of its own."""
    setting = f"SHAPE_TEXT = {json.dumps(list(shape))!r}\n"
    code = setting + PRELUDE + peer.source + "\nprint(json.dumps(timed(forward)))"
    try:
        done = subprocess.run(
            [python, "-c", code], capture_output=True, text=True, timeout=limit, env=os.environ
        )
    except subprocess.TimeoutExpired:
        return {"reason": f"took more than {limit:g} seconds"}
    if done.returncode:
        return {"reason": (done.stderr.strip().splitlines() or ["it failed"])[-1]}
    return {"seconds": float(json.loads(done.stdout.strip().splitlines()[-1]))}
