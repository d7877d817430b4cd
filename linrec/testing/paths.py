"""Paths of executors: the number of roundings between a step's inputs and a later state."""

from typing import NamedTuple

from linrec.executors import AssociativeScan, Chunked, Executor, Plan
from linrec.systems import LinearRecurrence

# In graphs that leave the number of steps open, groups of 2^GROUP steps are scanned in a loop.
GROUP = 5


class Path(NamedTuple):
    """The path of a step's inputs to a state, k steps later.

    It has `fixed + each k` roundings, in products with powers of A computed in double precision
    and then cast.

    Attributes:
        span: the largest power; None: any.
        fixed, each: the numbers of roundings.
    """

    span: int | None
    fixed: float
    each: float


def path_of(executor: Executor, recurrence: LinearRecurrence, plan: Plan) -> Path | None:
    """Count the roundings of an executor with a plan; None for a bound in any order.

    A product with a matrix of n columns rounds n times, and an addition to it once more; its matrix
    was rounded once. A scan has two products in each round, one up and one down (in a graph, both
    within and between groups). In chunks of L steps, an input passes one product on its way to the
    chunk's last state and one to the output. Between them are two for each pairing of chunks and
    one for each chunk of a loop over them; or two for each level, if chunks are taken in groups.
    """
    one, steps = recurrence.per_copy(), plan.length
    n, m = one.A.state_size, one.input_size
    product = n + 2.0
    if isinstance(executor, AssociativeScan):
        levels = steps.bit_length()
        rounds = 2 * (levels + min(levels, GROUP)) + 2
        return Path(None, product * rounds + m + 2, product / (1 << GROUP))
    if isinstance(executor, Chunked):
        chunk = executor.chunk(recurrence, steps)
        if "groups" in plan.tensors:
            levels, rows, columns = plan["groups"].shape[0], *plan["groups"].shape[-2:]
            fixed = 2 * (chunk * m + 2) + n + (2 * levels + 2) * (rows + 2.0)
            return Path(chunk * (columns // n) ** levels, fixed, 0.0)
        pairings = len(plan["powers"]) - 1
        fixed = 2 * (chunk * m + 2) + n + product * (2 * pairings + 2)
        return Path(chunk << pairings, fixed, product / chunk)
    return None
