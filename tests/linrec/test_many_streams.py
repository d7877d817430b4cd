"""Many streams at once: they join and leave without affecting each other."""

import pytest
import torch

import linrec
from tests.cases import normal

average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
swing = linrec.LinearRecurrence([[0.9, -0.2], [0.2, 0.9]], [[1.0], [0.0]], [[0.0, 1.0]])


def test_no_steps_and_no_streams() -> None:
    stream = linrec.Stream(swing, streams=0)
    assert stream.push(torch.ones(0, 1)).shape == (0, 1)
    assert stream.push(torch.ones(0, 5, 1)).shape == (0, 5, 1)
    assert stream.join(2) == range(2)
    assert stream.push(torch.ones(2, 0, 1)).shape == (2, 0, 1)
    assert not stream.state.any()


def test_streams_do_not_know_of_each_other() -> None:
    samples = normal(5, 12, 1, dtype=torch.float32)
    stream, alone = linrec.Stream(swing, streams=3), [linrec.Stream(swing) for _ in range(5)]

    def both(rows: list[int], block: slice) -> None:
        got = stream.push(samples[rows, block])
        for row, outputs in zip(rows, got, strict=True):
            torch.testing.assert_close(outputs, alone[row].push(samples[row, block]))

    both([0, 1, 2], slice(0, 4))
    assert stream.join(2) == range(3, 5)
    both([0, 1, 2, 3, 4], slice(4, 5))
    gone = stream.leave([3, 1])  # 0, 2 and 4 are left, in this order
    both([0, 2, 4], slice(5, 8))
    stream.reset(1)
    alone[2].reset()
    both([0, 2, 4], slice(8, 9))
    assert stream.join(state=gone) == range(3, 5)  # in the order of leaving
    both([0, 2, 4, 3, 1], slice(9, 12))
    stream.reset()
    assert not stream.state.any()


@pytest.mark.parametrize(
    ("indices", "kept"),
    [
        (1, [0, 2, 3]),
        (-1, [0, 1, 2]),
        ([0, 3], [1, 2]),
        (range(2), [2, 3]),
        (slice(1, None, 2), [0, 2]),
        (torch.tensor([2, 0]), [1, 3]),
        (torch.tensor(2), [0, 1, 3]),
        (torch.tensor([True, False, False, True]), [1, 2]),
        ([], [0, 1, 2, 3]),
    ],
)
def test_streams_are_named_as_rows_are(indices: object, kept: list[int]) -> None:
    stream = linrec.Stream(average, streams=4)
    stream.state = torch.arange(4.0)[:, None]
    stream.leave(indices)  # type: ignore[arg-type]  # of several types
    assert stream.state.flatten().tolist() == kept


def test_what_names_no_stream_is_refused() -> None:
    stream = linrec.Stream(average, streams=4)
    for indices, error in (
        (4, ValueError),
        (-5, ValueError),
        ([1, 1], ValueError),
        ([1, -3], ValueError),
        ([1.0], TypeError),
        ([True], TypeError),
        (torch.tensor([True]), ValueError),
        ("1", TypeError),
    ):
        with pytest.raises(error, match=r"stream|indices"):
            stream.leave(indices)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(ValueError, match="expected an axis for them"):
        linrec.Stream(average).join()
    with pytest.raises(ValueError, match=r"`streams` is -1"):
        stream.join(-1)
    with pytest.raises(ValueError, match=r"expected \(2, 1\)"):
        stream.join(state=torch.zeros(2, 3))


def test_a_bank_of_systems_takes_streams_before_its_own_axis() -> None:
    bank = linrec.LinearRecurrence(linrec.Diagonal(torch.tensor([[0.5], [0.9], [0.99]])))
    inputs = normal(2, 1, 9, 1, dtype=torch.float32)
    stream = linrec.Stream(bank, streams=(2, 1))
    got = torch.cat([stream.push(inputs[..., :4, :]), stream.push(inputs[..., 4:, :])], -2)
    torch.testing.assert_close(got, linrec.run(bank, inputs).outputs)
    assert stream.join(3) == range(2, 5)
    assert stream.state.shape == (5, 3, 1)
    one = linrec.Stream(bank)  # one stream, through every system
    assert one.push(torch.ones(1)).shape == (3, 1)
    with pytest.raises(ValueError, match="before those of the recurrence"):
        one.join()
    with pytest.raises(ValueError, match="broadcast"):
        linrec.Stream(bank, streams=2)


def test_lengths_feed_some_streams_and_leave_others() -> None:
    block = normal(3, 5, 1, dtype=torch.float32)
    block[1, 2:] = torch.nan
    stream = linrec.Stream(swing, streams=3)
    outputs = stream.push(block, torch.tensor([5, 2, 0]))
    for row, length in enumerate((5, 2, 0)):
        alone = linrec.Stream(swing)
        torch.testing.assert_close(outputs[row, :length], alone.push(block[row, :length]))
        torch.testing.assert_close(stream.state[row], alone.state)
        assert not outputs[row, length:].any()
    with pytest.raises(ValueError, match="with one sample"):
        stream.push(block[:, 0], torch.tensor([1, 1, 1]))
