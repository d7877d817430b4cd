"""A search by Hypothesis that shrinks the first failure for a while and returns it."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from linrec.testing.report import Disagreement

# The most attempts to make a failing example smaller; then the smallest so far is taken.
ATTEMPTS = 300

# The number of examples drawn at once: after ten, Hypothesis tries five variants of each, mostly
# with the same sizes, before it draws another.
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
    """The end of shrinking. (A `BaseException`, because Hypothesis catches all others.)"""


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
    """Try examples on every key; after a failure try only its key, on ever smaller examples.

    Args:
        drawn: the strategy that draws examples.
        keys: returns the keys to try on the example with this number.
        attempt: tries one key on one example, and raises a `Disagreement` if it fails.
        examples: the number of examples to try.
        random_seed: the seed of the search.
        progress: called after each example that passed.
        simplest: whether the simplest example, which is the same for all seeds, comes first.

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
            # A failure that does not repeat counts too: the executor is not deterministic.
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
    """Let Hypothesis draw examples, and shrink the first that fails."""
    passed_over = itertools.count(1 if simplest else 0)

    def tried(example: Any) -> None:
        if next(passed_over):  # (Hypothesis begins with the simplest)
            once(example)

    options = settings(QUIET, max_examples=examples if simplest else examples + 1)
    seed(random_seed)(options(given(drawn)(tried)))()
