"""Every loader, given damaged files: it refuses by the file's name, in bounded time and memory.

The default run tries a few inputs a loader; with LINREC_FULL=1 it tries a thousand and more each.
"""

import gzip
import io
import json
import os
import resource
import signal
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmu import from_keras
from lmu.commands.speedup import read_timings
from lmu.experiments import EXPERIMENTS, Run, restore
from lmu.experiments.data import (
    DataFile,
    glove_vocabulary,
    imdb_reviews,
    iwslt15,
    permuted_mnist,
    text8,
)
from lmu.experiments.data.mnist import PUBLISHED, MnistFiles
from lmu.experiments.data.pairs import QUORA, SNLI, sentence_pairs
from lmu.experiments.tables import read_measured, read_records, result_tables, speedup_tables
from lmu.experiments.training import RunFolder, write
from lmu.experiments.training.loop import Training
from tests.lmu.conftest import TINY
from tests.lmu.keras_files import Case
from tests.lmu.keras_files import write as keras_model
from tests.lmu.mutations import (
    Change,
    changes,
    inside_gzip,
    inside_tar,
    inside_zip,
    with_odd_members,
)
from tests.lmu.test_tables import RECORD
from tests.lmu.text_files import text_files

FULL = "LINREC_FULL" in os.environ
EXAMPLES = 1_000 if FULL else 12  # of each loader
SECONDS = 20  # for an input of some kilobytes that takes milliseconds: else it hangs
MEBIBYTES = 256  # that all inputs together may take at most

Inside = Callable[[bytes, Change, int], bytes]
INSIDE: dict[str, Inside] = {
    "gzip": lambda content, change, member: inside_gzip(content, change),
    "zip": inside_zip,
    # libhdf5 may crash or never return from damaged HDF5, which a checksum does not let through.
    "keras": lambda content, change, member: inside_zip(content, change, member % 2),
    "tar": inside_tar,
    "tar in gzip": lambda content, change, member: inside_gzip(
        content, lambda tar: inside_tar(tar, change, member)
    ),
}
# What a message tells to do begins with one of these.
MENDS = "Replace replace download Uncompress Train Give give Delete Name Ask install".split()
SLOW = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large)
NO_CHECKSUMS = MnistFiles(*(DataFile(file.path) for file in PUBLISHED))


def mnist_files(folder: Path) -> None:
    for file, shape in zip(PUBLISHED, ((6, 4, 4), (6,), (2, 4, 4), (2,)), strict=True):
        header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
        content = header + np.arange(np.prod(shape)).astype(np.uint8).tobytes()
        write(folder / file.path, gzip.compress(content, 1))


def run_files(folder: Path) -> None:
    Run(TINY, folder / "run", epochs=1).train()
    write(folder / "runs/mine/result.json", RECORD.to_json().encode())
    write(folder / "runs/yours/result.json", RECORD.to_json().encode())
    few = read_measured()
    write(folder / "speedup.json", json.dumps({**asdict(few), "timings": few_timings()}).encode())


def few_timings() -> list[dict[str, object]]:
    return json.loads(read_measured().to_json())["timings"][:3]


def load_last(folder: Path) -> None:
    network = TINY.setting().network(TINY.data(0, None, TINY_BUDGET))
    training = Training(network, network.head, TINY.setting().recipe, 0)
    run = RunFolder(folder / "run", CONFIGURATION[folder], resume=True)
    run.load("last.safetensors", training.load_state_dict)


def go_on(folder: Path) -> None:
    RunFolder(folder / "run", CONFIGURATION[folder], resume=True)


TINY_BUDGET = next(iter(TINY.models["lmu"]))
CONFIGURATION: dict[Path, dict[str, object]] = {}

# The file that is damaged, how it is packed, and what reads it.
LOADERS: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "mnist": (
        PUBLISHED.train_images.path,
        "gzip",
        lambda at: permuted_mnist(0, at, files=NO_CHECKSUMS, validation=1),
    ),
    "mnist, labels": (
        PUBLISHED.test_labels.path,
        "gzip",
        lambda at: permuted_mnist(0, at, files=NO_CHECKSUMS, validation=1),
    ),
    "imdb": ("imdb/aclImdb_v1.tar.gz", "tar in gzip", partial(imdb_reviews, unlabelled=True)),
    "imdb, unpacked": ("imdb/aclImdb_v1.tar", "tar", partial(imdb_reviews, unlabelled=True)),
    "quora": ("quora/dev.tsv", "", lambda at: sentence_pairs(QUORA, at)),
    "snli": ("snli/snli_1.0_test.jsonl", "", lambda at: sentence_pairs(SNLI, at)),
    "iwslt15": ("iwslt15/train.vi", "", lambda at: iwslt15(at, pieces=60)),
    "text8": ("text8/text8.zip", "zip", text8),
    "glove": (
        "glove/glove.6B.300d.txt",
        "",
        lambda at: glove_vocabulary([["a", "cat", "sat", "<end>"]], at),
    ),
    "record": (
        "runs/mine/result.json",
        "",
        lambda at: result_tables(
            read_records(at / "runs", yours=True), {**EXPERIMENTS, "tiny": TINY}
        ),
    ),
    "timings": ("speedup.json", "", lambda at: speedup_tables(read_timings(at / "speedup.json"))),
    "configuration": ("run/config.json", "", go_on),
    "best weights": (
        "run/best.safetensors",
        "",
        lambda at: restore(TINY, at / "run/best.safetensors"),
    ),
    "keras": ("keras/model.keras", "keras", lambda at: from_keras(at / "keras/model.keras")),
    "last state": ("run/last.safetensors", "", load_last),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a good file of each kind."""
    place = text_files(tmp_path_factory.mktemp("fuzz"))
    mnist_files(place)
    run_files(place)
    (place / "keras").mkdir()
    keras_model(place / "keras/model.keras", {"it": Case("LMU", "LSTMCell")})
    with zipfile.ZipFile(place / "keras/model.keras") as archive:
        assert all(name.endswith(".json") for name in archive.namelist()[:2])
    packed = place / "imdb/aclImdb_v1.tar.gz"
    write(packed.with_suffix(""), gzip.decompress(packed.read_bytes()))
    CONFIGURATION[place] = json.loads((place / "run/config.json").read_text())
    return place


@contextmanager
def damaged(path: Path, content: bytes) -> Iterator[None]:
    """Put other content into a file for a while; what it stands for is out of the way."""
    good = path.read_bytes()
    packed = path.with_name(path.name + ".gz")
    aside = packed.read_bytes() if packed.exists() else None
    packed.unlink(missing_ok=True)
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(good)
        if aside is not None:
            packed.write_bytes(aside)


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """End what hangs."""

    def ring(number: int, frame: object) -> None:
        pytest.fail(f"it did not end within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refuse_or_read(load: Callable[[Path], object], folder: Path, path: Path) -> bool:
    """Load; whatever is refused has the file's name and says what to do in a sentence.

    Returns whether it was refused: some damage leaves a file of the kind that it should be.
    """
    try:
        with within(SECONDS):
            load(folder)
    except (ValueError, OSError) as error:
        said = str(error)
        assert path.name in said, f"{type(error).__name__}: {said}"
        assert type(error).__name__ in ("DamagedFile", "ValueError"), type(error)
        assert any(mend in said for mend in MENDS), said
        return True
    return False


def peak() -> float:
    """Return the most memory that this process has had, in MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


@pytest.mark.parametrize("name", LOADERS)
def test_good_files_are_read(name: str, folder: Path) -> None:
    path, _, load = LOADERS[name]
    with damaged(folder / path, (folder / path).read_bytes()):
        load(folder)


@pytest.mark.parametrize("name", LOADERS)
def test_damaged_files_are_refused_by_their_names(name: str, folder: Path) -> None:
    path, packed, load = LOADERS[name]
    good = (folder / path).read_bytes()
    others = [(folder / other).read_bytes() for other, _, _ in LOADERS.values()]
    before = peak()

    @settings(max_examples=EXAMPLES, suppress_health_check=[*SLOW])
    @given(
        st.lists(changes(), min_size=1, max_size=3),
        st.booleans(),
        st.integers(0, 40),
        st.integers(0, 30 * len(others)),
    )
    def try_one(drawn: list[Change], inside: bool, member: int, other: int) -> None:
        content = others[other] if other < len(others) else good

        def change(content: bytes) -> bytes:
            for each in drawn:
                content = each(content)
            return content

        if inside and packed and content is good:
            content = INSIDE[packed](content, change, member)
        else:
            content = change(content)
        with damaged(folder / path, content):
            refused.append(refuse_or_read(load, folder, folder / path))

    refused: list[bool] = []
    try_one()
    assert len(refused) >= EXAMPLES
    print(f"{name}: {len(refused):,} inputs, {sum(refused):,} refused")  # shown by pytest -rP
    assert peak() - before < MEBIBYTES


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
@pytest.mark.parametrize("member", ["aclImdb/train/pos/7_7.txt", "aclImdb/README"])
def test_an_archive_with_odd_members_is_refused(kind: bytes, member: str, folder: Path) -> None:
    path = folder / "imdb/aclImdb_v1.tar"
    with damaged(path, with_odd_members(path.read_bytes(), kind, member)):
        with pytest.raises(ValueError, match=r"aclImdb_v1\.tar` .* is a link, a device"):
            imdb_reviews(folder)


def test_what_unpacks_to_more_than_it_may_takes_no_memory(folder: Path) -> None:
    """Two hundred megabytes of one: nothing that was unpacked is kept until it is refused."""
    bombs = {name: folder / name for name in ("text8/text8.zip", PUBLISHED.train_images.path)}
    good = {name: path.read_bytes() for name, path in bombs.items()}
    with zipfile.ZipFile(bombs["text8/text8.zip"], "w", zipfile.ZIP_DEFLATED, compresslevel=1) as z:
        with z.open("text8", "w") as member:
            fill(member, b" ")
    with gzip.open(bombs[PUBLISHED.train_images.path], "wb", 1) as file:
        fill(file, b"\0")
    small = NO_CHECKSUMS._replace(train_images=DataFile(PUBLISHED.train_images.path, largest=2**22))
    before = peak()
    with pytest.raises(ValueError, match=r"text8\.zip` declares 218,103,808 bytes"):
        text8(folder)
    with pytest.raises(ValueError, match=r"idx3-ubyte\.gz` unpacks to more than 4,194,304 bytes"):
        permuted_mnist(0, folder, files=small)
    assert peak() - before < 32
    for name, path in bombs.items():
        path.write_bytes(good[name])


def fill(file: IO[bytes] | gzip.GzipFile, what: bytes) -> None:
    for _ in range(208):
        file.write(what * 2**20)


def test_the_search_finds_a_loader_that_lets_others_errors_out(folder: Path) -> None:
    def careless(at: Path) -> object:
        return np.load(io.BytesIO((at / "quora/dev.tsv").read_bytes()), allow_pickle=False)

    with pytest.raises(AssertionError):
        refuse_or_read(careless, folder, folder / "quora/dev.tsv")


def test_the_search_ends_what_hangs(folder: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="did not end"), within(1):
        signal.pause()
    assert torch.is_tensor(torch.empty(0))
