"""A step as a CUDA graph, on the CPU: a stand-in for the graph replays it in the same memory."""

import pickle

import pytest
import torch
from torch import Tensor

import linrec
import lmu
from linrec.stream import cuda_graph
from tests.cases import normal

DENSE = linrec.LinearRecurrence(
    normal(3, 3, seed=1) / 3, normal(3, 2, seed=2), normal(2, 3, seed=3)
).to(torch.float32)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pretend that there are graphs; count how often one is recorded, and how often launched."""
    counts = [0, 0]

    def record(device, work):  # type: ignore[no-untyped-def]
        counts[0] += 1
        found = work()  # (as when libraries make what they make once, the state moves on)

        def replay() -> None:
            counts[1] += 1
            found.copy_(work())

        return found, replay

    monkeypatch.setattr(cuda_graph, "record", record)
    monkeypatch.setattr("linrec.stream.stream.why_not", lambda held: None)
    return counts


SYSTEMS = {
    "recurrence": lambda: DENSE,
    "states": lambda: linrec.LinearRecurrence(DENSE.A, DENSE.B),
    "copies": lambda: linrec.LinearRecurrence(DENSE.A, normal(3, 1).float(), copies=2),
    "bfloat16": lambda: DENSE.to(torch.bfloat16),
    "module": lambda: linrec.nn.MinGRU(2, 3),
    "lmu": lambda: lmu.ParallelLMU(2, 5, channels=2, order=4, theta=8),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_is_captured_gives_what_is_run(name: str, recorded: list[int]) -> None:
    torch.manual_seed(0)
    system = SYSTEMS[name]()
    plain, graphed = (linrec.Stream(system, streams=3) for _ in range(2))
    state = torch.randn_like(plain.state)
    plain.state = graphed.state = state
    assert graphed.capture() is None
    dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
    samples = torch.randn(9, 3, 2).to(dtype)
    kept: list[tuple[Tensor, Tensor]] = []
    for turn, sample in enumerate(samples):
        for stream in (plain, graphed):
            if turn == 3:
                stream.reset([1])
            if turn == 5:
                stream.push(samples[:2].movedim(0, 1))  # a block
        kept.append((graphed.push(sample), plain.push(sample)))
        assert torch.equal(graphed.state, plain.state)
    for mine, right in kept:  # nothing that was handed out has been written since
        assert torch.equal(mine, right) and mine.dtype == dtype
    assert recorded == [1, 9]


def test_other_numbers_of_streams_are_recorded_anew(recorded: list[int]) -> None:
    plain, graphed = (linrec.Stream(DENSE, streams=2) for _ in range(2))
    graphed.capture()
    for stream in (plain, graphed):
        stream.push(torch.ones(2, 2))
        stream.join(2)
        stream.leave([0])
    assert torch.equal(graphed.push(torch.ones(3, 2)), plain.push(torch.ones(3, 2)))
    assert torch.equal(graphed.state, plain.state)
    assert recorded == [3, 2]


def test_streams_from_files_are_not_captured(recorded: list[int]) -> None:
    graphed = linrec.Stream(DENSE, streams=2)
    graphed.capture()
    graphed.push(torch.ones(2, 2))
    again = pickle.loads(pickle.dumps(graphed))
    assert torch.equal(again.push(torch.ones(2, 2)), graphed.push(torch.ones(2, 2)))
    assert recorded == [1, 2]


def test_where_there_are_no_graphs_a_sentence_says_so_and_streams_run() -> None:
    stream = linrec.Stream(DENSE)
    told = stream.capture()
    assert told is not None and "the stream is on cpu" in told
    assert torch.equal(stream.push(torch.ones(2)), linrec.Stream(DENSE).push(torch.ones(2)))


def test_a_system_that_varies_is_not_captured() -> None:
    varying = linrec.LinearRecurrence(linrec.Diagonal(torch.rand(4, 3)), time_varying=True)
    stream = linrec.Stream(varying.to("meta"))
    told = cuda_graph.why_not(stream._held)
    assert told is not None and "on meta" in told
    stream._held.device = torch.device("cuda")
    told = cuda_graph.why_not(stream._held)
    assert told is not None and "varies in time" in told
