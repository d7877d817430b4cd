"""What all tests share."""

import os
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

from linrec.kernels import cpu_loops

# Kernels run on the CPU where there is no GPU, in Triton's interpreter, which has to be asked for
# before Triton is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# The same examples in every run, and no time limit for one that waits for a busy machine. What
# fails is shrunk, but not explained: that traces every line.
settings.register_profile(
    "reproducible",
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.target, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("reproducible")


# The tests run as where Numba is not installed, but for those that ask for its loops.
cpu_loops.HAS_NUMBA = False

LONGEST = {"test_devices.py", "test_docs.py"}


def sample(items: list[pytest.Item]) -> list[pytest.Item]:
    """Choose one of n cases of each test that is marked `sampled(n)`, always the same ones.

    (Not each nth: where n divides the length of an axis, that would be the same value each time.)
    """
    tables: dict[tuple[Path, str, int], list[pytest.Item]] = defaultdict(list)
    for item in items:
        if mark := item.get_closest_marker("sampled"):
            tables[item.path, item.name.partition("[")[0], mark.args[0]].append(item)
    left_out: list[pytest.Item] = []
    for (*_, share), table in tables.items():
        table.sort(key=lambda item: zlib.crc32(item.name.encode()))
        left_out += table[-(-len(table) // share) :]
    return left_out


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, unless it is asked for, and what there is no GPU for."""
    whole = {Path(each).resolve() for each in config.args} == {Path(__file__).parent}
    if whole and not config.option.keyword and "LINREC_FULL" not in os.environ:
        left_out = set(sample(items))
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
    missing = {}
    if "LINREC_FULL" not in os.environ:
        missing["slow"] = pytest.mark.skip(reason="minutes: run with LINREC_FULL=1")
    if not torch.cuda.is_available():
        missing["gpu"] = pytest.mark.skip(reason="there is no GPU")
    # With several workers, what takes half a minute comes first, so that none of them waits for it
    # at the end.
    items.sort(key=lambda item: item.path.name not in LONGEST)
    for item in items:
        for name in missing.keys() & item.keywords:
            item.add_marker(missing[name])


# The tests' tensors are small, and pytest runs several workers: more threads would only wait.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded_sympy() -> Iterator[None]:
    """sympy draws numbers to factor by; with some it takes seconds, with others hours."""
    from sympy.core.random import seed

    seed(0)
    yield
