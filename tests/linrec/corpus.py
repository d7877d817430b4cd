"""Bugs reported by users of other libraries, and linrec's counterparts: the table of the docs.

`python -m tests.linrec.corpus` looks for each with the searches of `linrec verify`, and prints the
rows of docs/verifying.md with the seconds of one core that it took.
"""

import time
from typing import NamedTuple

import pytest

from linrec.testing import Disagreement, check_executor, check_module
from tests.linrec.deliberate_bugs import BUGS
from tests.linrec.wrong_executors import WRONG as WRONG_EXECUTORS
from tests.linrec.wrong_modules import WRONG as WRONG_MODULES


class Met(NamedTuple):
    """A bug that was met: what, where, which of ours is like it, and what finds that."""

    bug: str
    where: str
    ours: str
    property: str


CORPUS = (
    Met(
        "gradients wrong on all but the last rank",
        "fla#1115",
        "gradients wrong on all but the last rank",
        "gradient in inputs",
    ),
    Met(
        "NaN in silence from 1,024 blocks on",
        "fla#913",
        "not a number beyond 1,024 steps",
        "agreement",
    ),
    Met(
        "batches beyond the largest grid",
        "fla#1077",
        "wrong for more than 64 sequences",
        "agreement",
    ),
    Met(
        "outputs corrupted on one kind of device",
        "mamba#997",
        "wrong at 256 steps",
        "agreement",
    ),
    Met(
        "every rank begins with a state of zero",
        "accelerate#4177",
        "state restarted in every piece",
        "agreement",
    ),
    Met(
        "packed documents leak into the next",
        "prime-rl#3000, SkyRL#2056",
        "packed documents leak into the next",
        "padding",
    ),
    Met(
        "several tokens after a cache run without it",
        "transformers#46032",
        "several steps after a state run without it",
        "continuation",
    ),
    Met(
        "of several tokens after a cache the first is kept",
        "transformers#46741",
        "of several steps after a state the first is kept",
        "continuation",
    ),
    Met(
        "right padding runs into the cache",
        "transformers#48256",
        "the state at the padded end",
        "padding",
    ),
    Met(
        "a scan that is wrong for some shapes",
        "pytorch#137943",
        "the last steps that fill no piece are left out",
        "agreement",
    ),
    Met(
        "a scan in reverse order is wrong",
        "triton#4362, #8412",
        "backward pass flips time",
        "gradient in inputs",
    ),
    Met(
        "the parallel form fails where the sequential one passes",
        "cuthbert#111",
        "pairs of chunks carried like one",
        "agreement",
    ),
    Met(
        "a kernel cut after some multiples of θ",
        "keras-lmu 0.9.0",
        "a kernel cut after 64 steps",
        "agreement",
    ),
    Met(
        "a circular convolution that wraps around",
        "KordingLab/nerds#2",
        "a transform that wraps around",
        "agreement",
    ),
)


def find(ours: str) -> tuple[str, float]:
    """Search as `linrec verify` does; give the property that fails first, and the seconds."""
    start = time.process_time()
    with pytest.MonkeyPatch.context() as monkeypatch:
        try:
            if ours in WRONG_MODULES:
                check_module(WRONG_MODULES[ours][0](), examples=100)
            elif ours in WRONG_EXECUTORS:
                check_executor(WRONG_EXECUTORS[ours][0], examples=100)
            else:
                bug = BUGS[ours]
                if bug.plant is not None:
                    bug.plant(monkeypatch)
                check_executor(bug.executor, examples=600)
        except Disagreement as found:
            return found.property, time.process_time() - start
    return "nothing", time.process_time() - start


if __name__ == "__main__":
    for each in CORPUS:
        property, seconds = find(each.ours)
        print(
            f"| {each.bug} | {each.where} | {each.ours} | {property} | {seconds:.1f} |", flush=True
        )
