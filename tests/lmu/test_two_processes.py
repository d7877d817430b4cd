"""Training in two processes, and by Lightning: what the page of recipes says."""

from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from torch import nn

import linrec
import lmu
from tests import forked
from tests.test_docs import ROOT, blocks

WORKER = """
import sys, torch, lmu
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
rank, store = int(sys.argv[1]), dist.FileStore(sys.argv[2], 2)
torch.manual_seed(0)
layer = lmu.ParallelLMU(3, 8, channels=2, order=6, theta=20)
inputs = torch.randn(8, 30, 3)
dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
parallel = DistributedDataParallel(layer)
parallel(inputs[4 * rank : 4 * rank + 4]).outputs.square().mean().backward()
torch.save({name: each.grad for name, each in layer.named_parameters()}, f"{sys.argv[2]}.{rank}")
dist.destroy_process_group()
"""


def test_two_processes_have_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    with ExitStack() as both:
        workers = [
            both.enter_context(forked.Forked(WORKER, rank, tmp_path / "store")) for rank in (0, 1)
        ]
        assert [worker.wait() for worker in workers] == [0, 0]
    torch.manual_seed(0)
    layer = lmu.ParallelLMU(3, 8, channels=2, order=6, theta=20)
    layer(torch.randn(8, 30, 3)).outputs.square().mean().backward()
    for rank in (0, 1):
        found = torch.load(f"{tmp_path / 'store'}.{rank}", weights_only=True)
        for name, parameter in layer.named_parameters():
            torch.testing.assert_close(found[name], parameter.grad)


def test_lightning_trains_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lightning")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    page = (ROOT / "docs/streaming.md").read_text()
    (block,) = [each for each in blocks(page) if each.language == "py"]
    names = {"torch": torch, "nn": nn, "linrec": linrec, "lmu": lmu, "__name__": "page"}
    exec(compile(block.text, "docs/streaming.md", "exec"), names)
