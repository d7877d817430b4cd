"""The cost of certificates compared with the run, and the tightness of their bounds."""

import time
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import torch

from linrec.benchmark.accuracy import exact_outputs
from linrec.benchmark.cases import legendre
from linrec.benchmark.timing import medians
from linrec.certificate import certify
from linrec.run import run
from linrec.systems import LinearRecurrence

ORDERS, STEPS = (4, 16, 64), (1_000, 65_536)

# The steps over which bounds are compared with errors: the exact loop is slow.
COMPARED = 1_000


def measure_certificates(
    seconds: float = 3.0, orders: tuple[int, ...] = ORDERS, steps: tuple[int, ...] = STEPS
) -> Iterator[dict[str, Any]]:
    """Time runs of Legendre memories with one output, and their certificates, in both precisions.

    Args:
        seconds: how long they take turns.
        orders: n.
        steps: T.

    Yields:
        The order, the steps, the dtype, both processor times in seconds, and the median ratio of
        bound to error over the outputs of the first steps, with errors by a loop in 300 bits.
    """
    random = np.random.default_rng(0)
    for order, length, dtype in product(orders, steps, (torch.float32, torch.float64)):
        memory = legendre(order, 4.0 * order)
        read = torch.tensor(random.standard_normal((1, order)))
        recurrence = LinearRecurrence(memory.A, memory.B, read).to(dtype)
        inputs = torch.tensor(random.standard_normal((length, 1))).to(dtype)
        ways = {
            "run": lambda system=recurrence, u=inputs: run(system, u),
            "certify": lambda system=recurrence, u=inputs: certify(system, u),
        }
        times = medians(ways, seconds, 2, fresh=False, clock=time.process_time)
        found, first = certify(recurrence, inputs), min(length, COMPARED)
        matrices = [recurrence.A.to_dense(), recurrence.B, recurrence.C, torch.zeros(1, 1)]
        doubles = [matrix.double().numpy() for matrix in matrices if matrix is not None]
        exact = torch.tensor(exact_outputs(doubles, inputs[:first].double().numpy()))
        error = (found.result.outputs[:first].double() - exact).abs()
        yield {
            "order": order,
            "steps": length,
            "dtype": str(dtype).removeprefix("torch."),
            "run": times["run"],
            "certify": times["certify"],
            "tightness": float((found.bound.outputs[:first] / error)[error > 0].median()),
        }
