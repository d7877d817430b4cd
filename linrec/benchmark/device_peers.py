"""Other libraries on a GPU, and linrec at the same work."""

from dataclasses import replace

import torch

from linrec.benchmark.cases import Ways, backward
from linrec.benchmark.peers import OURS, PEERS, SCAN, SHAPES, TORCH, Field, Peer
from linrec.nn.heads import attention
from linrec.run import run

# Sequences, steps, heads, and the size of keys and values.
HEADS = ((2, 4096, 16, 64), (8, 1024, 16, 64))


def gated_delta(batch: int, steps: int, heads: int, size: int, *, device: str) -> Ways:
    """Make the gated delta rule, in bfloat16."""
    half = torch.bfloat16
    q, k, v = torch.randn(3, batch, heads, steps, size, device=device, dtype=half)
    k = k / k.norm(dim=-1, keepdim=True)
    beta, alpha = torch.rand(2, batch, heads, steps, 1, device=device, dtype=half)
    given = [each.clone().requires_grad_() for each in (q, k, v, beta, alpha)]

    def forward() -> torch.Tensor:
        q, k, v, beta, alpha = given
        return run(*attention(alpha, beta * k, q, v, -alpha * k)).outputs

    return both(forward, given)


def scalar_gates(batch: int, steps: int, heads: int, size: int, *, device: str) -> Ways:
    """Make linear attention with one gate for each head, in bfloat16."""
    q, k, v = torch.randn(3, batch, heads, steps, size, device=device, dtype=torch.bfloat16)
    gates = torch.rand(batch, heads, steps, 1, device=device, dtype=torch.bfloat16)
    given = [each.clone().requires_grad_() for each in (q, k, v, gates)]

    def forward() -> torch.Tensor:
        q, k, v, gates = given
        return run(*attention(gates, k, q, v)).outputs

    return both(forward, given)


def both(function, given: list[torch.Tensor]) -> Ways:  # type: ignore[no-untyped-def]  # of tensors
    """Make the ways of a function: forward, and with its gradients."""
    gradient = torch.randn_like(function())

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return function()

    return {
        "forward": forward,
        "with gradient": lambda: backward(function(), tuple(given), gradient),
    }


HEADED = (
    TORCH
    + """
heads, size = shape[2:]
def drawn(*more):
    return torch.randn(batch, steps, heads, *more, device=device, dtype=torch.bfloat16)
"""
)

DEVICE_PEERS = (
    Peer(
        "torch associative_scan, compiled",
        "torch",
        "pip install torch",
        "elementwise",
        SCAN
        + """
from torch._higher_order_ops.associative_scan import associative_scan
def combine(left, right):
    return left[0] * right[0], right[0] * left[1] + right[1]
@torch.compile
def scan(decay, drive):
    return associative_scan(combine, (decay, drive), 1, combine_mode="pointwise")[1]
ways = ways_of(scan, decay, drive)
""",
    ),
    Peer(
        "accelerated-scan",
        "accelerated_scan",
        "pip install accelerated-scan",
        "elementwise",
        SCAN
        + """
from accelerated_scan.warp import scan as own
decay, drive = (each.mT.contiguous() for each in (decay, drive))  # time side by side
ways = ways_of(own, decay, drive)
""",
    ),
    Peer(
        "flash-linear-attention, HGRN",
        "fla",
        "pip install flash-linear-attention",
        "elementwise",
        SCAN
        + """
from fla.ops.hgrn import fused_recurrent_hgrn
ways = ways_of(lambda decay, drive: fused_recurrent_hgrn(drive, decay.log())[0], decay, drive)
""",
    ),
    Peer(
        "flash-linear-attention, gated delta rule",
        "fla",
        "pip install flash-linear-attention",
        "gated delta rule",
        HEADED
        + """
from fla.ops.gated_delta_rule import chunk_gated_delta_rule
import torch.nn.functional as F
q, k, v = drawn(size), F.normalize(drawn(size), dim=-1), drawn(size)
beta, g = drawn().sigmoid(), F.logsigmoid(drawn()).float()
ways = ways_of(lambda *given: chunk_gated_delta_rule(*given)[0], q, k, v, g, beta)
""",
    ),
    Peer(
        "flash-linear-attention, simple GLA",
        "fla",
        "pip install flash-linear-attention",
        "scalar gates",
        HEADED
        + """
from fla.ops.simple_gla import chunk_simple_gla
import torch.nn.functional as F
q, k, v, g = drawn(size), drawn(size), drawn(size), F.logsigmoid(drawn()).float()
ways = ways_of(lambda *given: chunk_simple_gla(*given)[0], q, k, v, g)
""",
    ),
    Peer(
        "mamba-ssm, SSD",
        "mamba_ssm",
        "pip install mamba-ssm",
        "scalar gates",
        HEADED
        + """
from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
x, B, C = drawn(size), drawn(size), drawn(size)
dt, A = drawn().float().sigmoid(), -torch.rand(heads, device=device)
ways = ways_of(lambda *given: mamba_chunk_scan_combined(*given, 256), x, dt, A, B, C)
""",
    ),
    Peer(
        "the LMU of 2019, step by step",
        "lmu",
        "pip install linrec",
        "training step",
        """
import torch
from lmu import LMU
unit = LMU.original(1, 212, 256, float(steps)).to(device)
readout = torch.nn.Linear(212, 10).to(device)
images = torch.rand(batch, steps, 1, device=device)
labels = torch.randint(10, (batch,), device=device)
optimizer = torch.optim.Adam([*unit.parameters(), *readout.parameters()])
def training():
    optimizer.zero_grad()
    scores = readout(unit.final(images).outputs)
    torch.nn.functional.cross_entropy(scores, labels).backward()
    optimizer.step()
ways = {"training": training}
""",
    ),
    Peer(
        "torch.nn.LSTM (cuDNN on CUDA)",
        "torch",
        "pip install torch",
        "training step",
        """
import torch
lstm = torch.nn.LSTM(1, 202, batch_first=True).to(device)
readout = torch.nn.Linear(202, 10).to(device)
images = torch.rand(batch, steps, 1, device=device)
labels = torch.randint(10, (batch,), device=device)
optimizer = torch.optim.Adam([*lstm.parameters(), *readout.parameters()])
def training():
    optimizer.zero_grad()
    scores = readout(lstm(images)[0][:, -1])
    torch.nn.functional.cross_entropy(scores, labels).backward()
    optimizer.step()
ways = {"training": training}
""",
    ),
)

# The CPU's peer in plain torch that runs on any device (associative_scan is compiled above).
PLAIN = tuple(each for each in PEERS if each.name == "logcumsumexp scan")

DEVICE_FIELD = Field(
    (*DEVICE_PEERS, *PLAIN),
    SHAPES | {"gated delta rule": HEADS, "scalar gates": HEADS},
    OURS | {"gated delta rule": gated_delta, "scalar gates": scalar_gates},
)
QUICK_FIELD = replace(
    DEVICE_FIELD,
    shapes={
        "elementwise": ((2, 128, 8),),
        "training step": ((2, 16, 256),),
        "gated delta rule": ((1, 32, 2, 8),),
        "scalar gates": ((1, 32, 2, 8),),
    },
)
