"""Other libraries are timed in their own processes, or a reason is given."""

import sys

import pytest
import torch

from linrec.benchmark import peers
from linrec.benchmark.cases import Ways
from linrec.benchmark.peers import Peer


@pytest.mark.parametrize(
    "source, expected",
    [
        ("ways = {'forward': lambda: 1}", {"forward": float}),
        ("ways = {'forward': lambda: 1 / 0}", {"forward": "ZeroDivisionError"}),
        ("import no_such_module", {"all of it": "ModuleNotFoundError"}),
        ("import time; time.sleep(60)", {"all of it": "took more than 1 seconds"}),
    ],
)
def test_a_peer_is_timed_or_says_why_not(source: str, expected: dict) -> None:
    peer = Peer("p", "json", "", "states", source)
    limit = 1.0 if "sleep" in source else 300.0
    found, versions = peers.time_peer(sys.executable, peer, (1, 8, 2), limit)
    assert isinstance(versions, str)
    assert found.keys() == expected.keys()
    for name, told in expected.items():
        value = found[name]
        assert isinstance(value, float) if told is float else told in value


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_peers_and_we_compute_in_the_precision_that_is_asked_for(dtype: str) -> None:
    source = """
import torch
torch.set_default_dtype(getattr(torch, dtype))
assert str(torch.ones(1).dtype) == "torch." + dtype
ways = {"forward": lambda: 1}
"""
    ours: list[torch.dtype] = []

    def make(*shape: int, device: str) -> Ways:
        ours.append(torch.ones(1).dtype)
        return {"forward": lambda: 1}

    peer = Peer("p", "torch", "", "states", source)
    field = peers.Field((peer,), {"states": ((1, 8, 2),)}, {"states": make})
    rows = list(peers.measure_peers([], seconds=0.01, field=field, dtype=dtype))
    assert "seconds" in rows[0] and rows[0]["dtype"] == dtype
    assert ours == [getattr(torch, dtype)] and torch.get_default_dtype() == torch.float32


def test_peers_that_are_not_installed_are_named_with_how_to_get_them(monkeypatch) -> None:
    absent = Peer("absent", "no_such_module", "pip install absent", "states", "")
    monkeypatch.setattr(peers, "PEERS", (absent,))
    rows = list(peers.measure_peers(["/no/such/python"]))
    assert [row["peer"] for row in rows] == ["absent"] and "seconds" not in rows[0]
    assert "pip install absent" in rows[0]["reason"]
