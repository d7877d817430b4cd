"""What all tests share."""

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

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


LONGEST = {"test_devices.py", "test_docs.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, unless it is asked for, and what there is no GPU for."""
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
