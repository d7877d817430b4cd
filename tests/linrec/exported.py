"""The errors of exported programs, as shares of the bounds of their forms."""

import torch

import linrec
from linrec.export import Form
from linrec.export.comparison import Runner, run_form
from linrec.export.comparison import largest_share as share_of
from tests.cases import SYSTEMS, TRANSITIONS, data

LENGTH = 64
SIZES = ((1, 1), (2, 3), (33, 2), (LENGTH, 1))  # of sequences and batches


def largest_share(
    recurrence: linrec.LinearRecurrence, form: Form, running: Runner, length: int, batch: int
) -> float:
    """Return the largest error of a model, as a share of the bound of its form."""
    inputs, state = data(recurrence, length, batch)
    start = None if form in (Form.CONV, Form.FFT) else state
    got = run_form(running, form, inputs, start)
    assert all(each.isfinite().all() for each in got)
    return share_of(recurrence, form, got, inputs, start, LENGTH)


def single(transition: str, system: str) -> linrec.LinearRecurrence:
    made = SYSTEMS[system](TRANSITIONS[transition]())
    return made.to(torch.complex64 if made.dtype.is_complex else torch.float32)
