"""Paths of executors: the roundings between a step and the states that it reaches."""

from typing import NamedTuple

from linrec.executors import AssociativeScan, Chunked, Executor, Plan
from linrec.systems import LinearRecurrence

# Graphs that leave the number of steps open are scanned in groups of 2 to this power, and in a
# loop from one to the next.
GROUP = 5


class Path(NamedTuple):
    """The path of a step's inputs to a state, k steps later.

    It is rounded `fixed + each k` times, in products with powers of A that were computed in double
    precision and then cast.

    Attributes:
        span: the largest power; None: any.
        fixed, each: how often it is rounded.
    """

    span: int | None
    fixed: float
    each: float


def path_of(executor: Executor, recurrence: LinearRecurrence, plan: Plan) -> Path | None:
    """Count the roundings of an executor with a plan; None: as many as in any order.

    A product with a matrix of n columns rounds n times, adding to it once more, and its matrix was
    rounded once. A scan has two of these in each round, one up and one down (and again within and
    between groups, in a graph). In chunks of L steps an input meets one on its way to the chunk's
    last state and one to the output; between them two for each pairing of chunks, and one for each
    chunk of a loop over them; or, where chunks are taken in groups, two for each level of these.
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
