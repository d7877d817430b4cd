"""Recurrences of published models, compared with loops over the steps and with chunk forms.

The state of a sequence is one matrix S (keys, values), in float32:

    GLA              S_t = diag(a_t) S_{t-1} + k_t v_tᵀ        y_t = S_tᵀ q_t
    Mamba-2          the same, a_t one number
    RetNet           the same, one number for all steps
    DeltaNet         S_t = (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ
    Gated DeltaNet   S_t = α_t (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ

The chunk forms follow the papers, in plain torch and as short as possible. Products of gates are
exponentials of differences of sums of logarithms; this fails for gates of 0 and, in GLA, for sums
below -88 within a chunk. If `fla-core` is installed, the authors' own references for a CPU are
timed too; it has no chunk form for GLA.

References:
    Yang et al. 2024, Gated linear attention transformers, section 3; Parallelizing linear
    transformers with the delta rule, section 3; Dao and Gu 2024, section 6; Sun et al. 2023, eq. 7;
    Yang et al. 2025, Gated delta networks, section 3.3.
"""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize, softplus

from linrec.benchmark.peak_memory import peak_bytes
from linrec.executors import Result
from linrec.run import run
from linrec.structures import Diagonal, DiagonalPlusLowRank
from linrec.systems import LinearRecurrence

Size = tuple[int, int, int, int]
Way = Callable[["Given"], Tensor]

# Sequences times heads, steps, keys, values.
SIZES: tuple[Size, ...] = ((8, 2048, 64, 64), (16, 512, 32, 32))
LONGER = (2048, 8192, 32768, 65536)  # steps, for the growth of the time
SEQUENCES, KEYS = 2, 32  # of these long sequences
CHUNK = 64


class Given(NamedTuple):
    """Queries, keys, values and gates of a model, with heads as sequences.

    Attributes:
        q, k (batch, time, keys), v (batch, time, values), beta (batch, time, 1).
        gates (batch, time, keys) or (batch, time, 1); or (batch, 1, 1), the same at all steps.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    beta: Tensor
    gates: Tensor

    @property
    def log_gates(self) -> Tensor:
        """The logarithms of the gates of each step."""
        return self.gates.log().expand(-1, self.k.shape[1], -1)


MODELS = ("GLA", "Mamba-2", "RetNet", "DeltaNet", "Gated DeltaNet")
DELTA_RULES = ("DeltaNet", "Gated DeltaNet")


def draw(model: str, size: Size) -> Given:
    """Draw queries, keys, values and gates, the gates as a newly initialised model has them."""
    batch, steps, keys, values = size
    generator = torch.Generator().manual_seed(0)
    q, k, v, low = (
        torch.randn(batch, steps, width, generator=generator)
        for width in (keys, keys, values, keys)
    )
    gates = {
        "GLA": torch.exp(logsigmoid(low) / 16),
        "RetNet": 1 - 2.0 ** -(5 + torch.arange(batch) % 8).reshape(-1, 1, 1).float(),
        "DeltaNet": torch.ones(1, 1, 1),
    }
    one = torch.exp(-softplus(low[..., :1] - 3))
    beta = torch.sigmoid(low[..., -1:])
    return Given(q / keys**0.5, normalize(k, dim=-1), v, beta, gates.get(model, one))


def recurrence(model: str, given: Given) -> LinearRecurrence:
    """Write a model as a recurrence whose copies are the columns of S."""
    q, k, v, beta, gates = given
    diagonal, C = gates.expand(*gates.shape[:-1], k.shape[-1]), q.unsqueeze(-2)
    columns = v.shape[-1]
    if model not in DELTA_RULES:
        B = k.unsqueeze(-1)
        return LinearRecurrence(Diagonal(diagonal), B, C, time_varying=True, copies=columns)
    B = (beta * k).unsqueeze(-1)
    A = DiagonalPlusLowRank(diagonal, B, (-gates * k).unsqueeze(-1))
    return LinearRecurrence(A, B, C, time_varying=True, copies=columns)


def ours(model: str, given: Given) -> Tensor:
    """Run a model as `Auto` chooses."""
    return run(recurrence(model, given), given.v).outputs


def loop(model: str, given: Given) -> Tensor:
    """Run a model step by step."""
    q, k, v, beta, gates = given
    S, outputs = k.new_zeros(len(k), k.shape[-1], v.shape[-1]), []
    steps = (each.unsqueeze(-2).unbind(1) for each in (q, k, v, beta))
    over_time = gates.unsqueeze(-1).expand(len(k), k.shape[1], -1, 1).unbind(1)
    for gate, query, key, value, strength in zip(over_time, *steps, strict=True):
        S = gate * S
        if model in DELTA_RULES:
            value = strength * (value - key @ S)
        S = S + key.mT * value
        outputs.append(query @ S)
    return torch.cat(outputs, 1)


def in_chunks(model: str, given: Given) -> Tensor:
    """Run the chunk form of a model's paper; the steps are a multiple of `CHUNK`."""
    sums = given.log_gates.unflatten(1, (-1, CHUNK)).cumsum(2)
    sums = sums.expand(len(given.k), *sums.shape[1:])
    q, k, v, beta = (each.unflatten(1, (-1, CHUNK)) for each in given[:4])
    total = sums[:, :, -1:].exp().mT
    to_end, from_start = (sums[:, :, -1:] - sums).exp() * k, q * sums.exp()
    if model == "GLA":
        within = (from_start @ (k * (-sums).exp()).mT).tril()
    else:
        ratios = (sums - sums.mT).tril().exp()
        within = ((q @ k.mT) * ratios).tril()
    S, outputs = k.new_zeros(len(k), k.shape[-1], v.shape[-1]), []
    if model not in DELTA_RULES:
        of_chunk, added = within @ v, to_end.mT @ v
        for i in range(k.shape[1]):
            outputs.append(of_chunk[:, i] + from_start[:, i] @ S)
            S = total[:, i] * S + added[:, i]
        return torch.cat(outputs, 1)
    lower = ((beta * k) @ k.mT * ratios).tril(-1)
    eye = torch.eye(CHUNK).expand_as(lower)
    solve = torch.linalg.solve_triangular(eye + lower, eye, upper=False, unitriangular=True)
    of_chunk, of_state = solve @ (beta * v), solve @ (beta * k * sums.exp())
    for i in range(k.shape[1]):
        new = of_chunk[:, i] - of_state[:, i] @ S
        outputs.append(from_start[:, i] @ S + within[:, i] @ new)
        S = total[:, i] * S + to_end[:, i].mT @ new
    return torch.cat(outputs, 1)


def authors() -> dict[str, Way]:
    """Find the authors' references for a CPU in `fla-core`; none if it is not installed."""
    spec = find_spec("fla")
    if spec is None or not spec.submodule_search_locations:
        return {}
    folder = Path(next(iter(spec.submodule_search_locations))) / "ops"

    def named(rule: str, function: str) -> Callable[..., Any]:
        # (The package itself needs a GPU; these files need only torch and einops.)
        found = spec_from_file_location(f"fla_{rule}", folder / rule / "naive.py")
        assert found is not None and found.loader is not None
        module = module_from_spec(found)
        found.loader.exec_module(module)
        return getattr(module, function)

    try:
        one_gate = named("simple_gla", "naive_chunk_simple_gla")
        delta = named("delta_rule", "delta_rule_chunkwise")
        gated_delta = named("gated_delta_rule", "naive_chunk_gated_delta_rule")
    except (OSError, ImportError, AttributeError):
        return {}

    def as_heads(given: Given) -> list[Tensor]:
        return [each.unsqueeze(2) for each in given[:3]]

    def of_one_gate(given: Given) -> Tensor:
        return one_gate(*as_heads(given), given.log_gates, scale=1.0)[0].squeeze(2)

    def of_delta(given: Given) -> Tensor:
        q, k, v = (each.unsqueeze(1) for each in given[:3])
        scaled = q * q.shape[-1] ** 0.5
        return delta(scaled, k, v, given.beta.squeeze(-1).unsqueeze(1))[0].squeeze(1)

    def of_gated_delta(given: Given) -> Tensor:
        return gated_delta(*as_heads(given), given.log_gates, given.beta, scale=1.0)[0].squeeze(2)

    return {
        "Mamba-2": of_one_gate,
        "RetNet": of_one_gate,
        "DeltaNet": of_delta,
        "Gated DeltaNet": of_gated_delta,
    }


def measure_recurrences(seconds: float, quick: bool = False) -> Iterator[dict[str, Any]]:
    """Time every model in turn with its loop and chunk forms, forward and with all gradients.

    Args:
        seconds: how long they take turns, for each model and size, forward and with gradients.
        quick: whether each takes only one turn, and long sequences are left out.

    Returns:
        Rows of model, size and seconds by way, forward and with gradient, and of memory; for the
        growth with the steps, rows of model, steps and seconds.
    """
    theirs = authors()
    for size in SIZES:
        for model in MODELS:
            given = draw(model, size)
            ways: dict[str, Way] = {
                "ours": partial(ours, model),
                "loop": partial(loop, model),
                "chunk form": partial(in_chunks, model),
            }
            if model in theirs:
                ways["authors'"] = theirs[model]
            row = {"model": model, "size": list(size)}
            for name, back in (("forward", False), ("with gradient", True)):
                calls = {way: call(each, given, back) for way, each in ways.items()}
                row[name] = quickest(calls, seconds, 1 if quick else 3)
            yield row | {"memory": dict(memory(recurrence(model, given), given.v))}
    for model in () if quick else MODELS:
        for steps in LONGER:
            given = draw(model, (SEQUENCES, steps, KEYS, KEYS))
            way = call(partial(ours, model), given, True)
            taken = quickest({"ours": way}, 0, 3)["ours"]
            yield {"model": model, "steps": steps, "seconds": taken}


def call(way: Way, given: Given, back: bool) -> Callable[[], Any]:
    """Make a call of a way, forward or with the gradients in all its arguments."""
    if not back:
        return torch.no_grad()(lambda: way(given))
    # (Gates that are the same at all steps do not depend on the inputs.)
    leaves = Given(*(each.clone().requires_grad_(each.shape[1] > 1) for each in given))
    trained = [each for each in leaves if each.requires_grad]
    gradient = torch.ones_like(given.v)
    return lambda: torch.autograd.grad(way(leaves), trained, gradient, allow_unused=True)


def quickest(
    ways: Mapping[str, Callable[[], object]], seconds: float, least: int
) -> dict[str, float]:
    """Time functions in turn, and return the least time of each, in seconds.

    On one thread processor time is measured, which other programs affect less.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for way in ways.values():
        way()
    taken = dict.fromkeys(ways, float("inf"))
    turns, end = 0, time.perf_counter() + seconds
    while turns < least or time.perf_counter() < end:
        turns += 1
        for name, way in ways.items():
            start = clock()
            way()
            taken[name] = min(taken[name], clock() - start)
    return taken


def memory(system: LinearRecurrence, inputs: Tensor) -> Iterator[tuple[str, float | None]]:
    """Measure a run's memory over its arguments' and results', without and with gradients."""
    own = {leaf.data_ptr(): leaf.untyped_storage().nbytes() for leaf in system.leaves().values()}
    moved = sum(own.values()) + 2 * inputs.nbytes

    def copy(leaf: Tensor) -> Tensor:
        if leaf.stride(-1) == 0:  # one gate for all states
            return leaf[..., :1].detach().clone().requires_grad_().expand(leaf.shape)
        return leaf.detach().clone().requires_grad_()

    # (One tensor may be both U and B.)
    copies = {id(leaf): copy(leaf) for leaf in system.leaves().values()}
    trained = {name: copies[id(leaf)] for name, leaf in system.leaves().items()}
    driven = inputs.clone().requires_grad_()

    def forward() -> Result:
        return run(system, inputs)

    def with_gradient() -> object:
        outputs = run(system.with_leaves(trained), driven).outputs
        return torch.autograd.grad(outputs, [driven, *copies.values()], inputs)

    for name, way in (("forward", torch.no_grad()(forward)), ("with gradient", with_gradient)):
        way()
        gc.collect()
        peak = peak_bytes(way)
        yield name, None if peak is None else peak / moved
