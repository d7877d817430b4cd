"""Run hypothesis until something fails, shrink that for a while, and hand it back."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from linrec.testing.report import Disagreement

# After so many attempts to make a failing example smaller, the smallest so far will do.
ATTEMPTS = 300

# So many are drawn at once: once hypothesis has drawn ten, it tries five variants of each, with
# mostly the same sizes, before it draws another.
AT_ONCE = 10

QUIET = settings(
    database=None,
    deadline=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
    report_multiple_bugs=False,
    print_blob=False,
    verbosity=Verbosity.quiet,
)


Key = TypeVar("Key")


class Enough(BaseException):
    """Shrinking took long enough. (A `BaseException`: hypothesis catches the others.)"""


def smallest_failure(
    drawn: st.SearchStrategy[Any],
    keys: Callable[[int], Iterable[Key]],
    attempt: Callable[[Key, Any], None],
    examples: int,
    random_seed: int,
    progress: Callable[[], object],
    *,
    simplest: bool = True,
) -> tuple[Key, Disagreement] | None:
    """Try examples on every key; after the first failure only its key, on ever smaller examples.

    Args:
        drawn: what examples are drawn from.
        keys: what is tried on the example of this number.
        attempt: tries one key on one example, and raises a `Disagreement`.
        examples: how many are tried.
        random_seed: where the search begins.
        progress: called after each example that passed.
        simplest: whether the first is the simplest there is, which is the same for all seeds.

    Returns:
        The key that failed and its smallest disagreement; None if nothing failed.
    """
    found: list[tuple[Key, Disagreement]] = []
    number, tried = itertools.count(), itertools.count()

    def once(example: Any) -> None:
        for key in [found[-1][0]] if found else keys(next(number)):
            try:
                attempt(key, example)
            except Disagreement as failure:
                found.append((key, failure))
                raise
            finally:
                if found and next(tried) > ATTEMPTS:
                    raise Enough
        progress()

    for first in range(0, examples, AT_ONCE):
        own = simplest and not first
        count, start = min(AT_ONCE, examples - first), random_seed + (first << 20)
        try:
            draw(drawn, once, count, start, simplest=own)
        except (Disagreement, Enough):
            return found[-1]
        except Flaky:
            # What fails once and not again is a failure too, if it did fail: that of an executor
            # that gives something else each time.
            if not found:
                raise
            return found[-1]
    return None


def draw(
    drawn: st.SearchStrategy[Any],
    once: Callable[[Any], None],
    examples: int,
    random_seed: int,
    *,
    simplest: bool,
) -> None:
    """Let hypothesis draw a number of examples, and shrink the first that fails."""
    passed_over = itertools.count(1 if simplest else 0)

    def tried(example: Any) -> None:
        if next(passed_over):  # (hypothesis begins with the simplest)
            once(example)

    options = settings(QUIET, max_examples=examples if simplest else examples + 1)
    seed(random_seed)(options(given(drawn)(tried)))()
