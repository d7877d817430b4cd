"""Memory that training gives back stays with the process."""

import sys

import pytest
import torch

from lmu.experiments.training import keep_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc")
def test_memory_that_is_kept_is_not_mapped_anew() -> None:
    import resource

    def count_faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(3):
            # Four times 20 MiB, freed at once: 20,480 pages.
            held = [torch.ones(5 << 20) for _ in range(4)]
            del held
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    if keep_memory():
        count_faults()  # the first touch of each page
        assert count_faults() < 1_000
