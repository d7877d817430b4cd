"""`linrec.lengths`, compared with a loop over single sequences."""

import pytest
import torch

from linrec.lengths import (
    align_ends,
    check_lengths,
    expand_lengths,
    last_step,
    length_mask,
    reverse_steps,
    zero_padding,
)

SEQUENCES = torch.arange(1.0, 3 * 2 * 5 * 2 + 1).reshape(3, 2, 5, 2)
LENGTHS = torch.tensor([[0, 1], [2, 3], [5, 4]])
CASES = [(batch, int(LENGTHS[batch])) for batch in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1))]


@pytest.fixture
def dirty() -> torch.Tensor:
    """Sequences with NaN in the padding."""
    sequences = SEQUENCES.clone()
    for batch, length in CASES:
        sequences[batch][length:] = torch.nan
    return sequences


@pytest.mark.parametrize(("batch", "length"), CASES)
def test_each_sequence_is_treated_as_if_it_stood_alone(
    dirty: torch.Tensor, batch: tuple[int, int], length: int
) -> None:
    own = SEQUENCES[batch][:length]
    blank = torch.zeros(5 - length, 2)
    assert length_mask(LENGTHS, 5)[batch].tolist() == [True] * length + [False] * (5 - length)
    assert zero_padding(dirty, LENGTHS)[batch].equal(torch.cat([own, blank]))
    assert reverse_steps(dirty, LENGTHS)[batch].equal(torch.cat([own.flip(0), blank]))
    assert align_ends(dirty, LENGTHS)[batch].equal(torch.cat([blank, own]))
    otherwise = torch.full((3, 2, 2), -1.0)
    expected = own[-1] if length else otherwise[batch]
    assert last_step(dirty, LENGTHS, otherwise)[batch].equal(expected)
    assert last_step(dirty, LENGTHS)[batch].equal(own[-1] if length else torch.zeros(2))


def test_without_lengths_sequences_are_whole() -> None:
    assert zero_padding(SEQUENCES, None) is SEQUENCES
    assert reverse_steps(SEQUENCES, None).equal(SEQUENCES.flip(-2))
    assert last_step(SEQUENCES, None).equal(SEQUENCES[..., -1, :])
    assert expand_lengths(None, SEQUENCES) is None
    for lengths in (None, torch.zeros(3, 2, dtype=torch.long)):
        assert last_step(SEQUENCES[..., :0, :], lengths).equal(torch.zeros(3, 2, 2))


def test_lengths_broadcast() -> None:
    assert expand_lengths(torch.tensor(2), SEQUENCES).equal(torch.full((3, 2), 2))
    for function in (zero_padding, reverse_steps, align_ends, last_step):
        one = function(SEQUENCES, torch.tensor([4, 2]))
        assert one.equal(function(SEQUENCES, torch.tensor([4, 2]).expand(3, 2)))


def test_gradients_do_not_leak_out_of_the_padding(dirty: torch.Tensor) -> None:
    dirty.requires_grad_()
    for function in (zero_padding, reverse_steps, align_ends, last_step):
        (gradient,) = torch.autograd.grad(function(dirty, LENGTHS).sum(), dirty)
        assert not gradient[~length_mask(LENGTHS, 5)].any()


@pytest.mark.parametrize(
    ("lengths", "error", "words"),
    [
        (torch.tensor([1.0, 2.0]), TypeError, "mask.sum"),
        (torch.tensor([True, False]), TypeError, "whole numbers"),
        (torch.tensor([-1, 2]), ValueError, "between -1 and 2"),
        (torch.tensor([1, 6]), ValueError, "expected 0 to 5"),
    ],
)
def test_what_is_no_length_is_refused(
    lengths: torch.Tensor, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        check_lengths(lengths, SEQUENCES)


def test_lengths_of_another_batch_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(3, 2\)"):
        expand_lengths(torch.tensor([1, 2, 3]), SEQUENCES)
