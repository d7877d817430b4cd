"""Data sets: found or refused, and what is in them."""

import gzip
import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from lmu.experiments.data import DataFile, Split, mackey_glass, permuted_mnist, read
from lmu.experiments.data.mackey_glass import _tanh, mackey_glass_series
from lmu.experiments.data.mnist import PUBLISHED, MnistFiles, parse_idx

CONTENT = bytes(range(256)) * 8
REAL = os.environ.get("LMU_DATA")
LAST_SAMPLES = ["0x1.be96c0e087555p-4", "-0x1.71debeab23f96p-2"]
SERIES = "2fe65699e0b5cb773fed94d6571431af0461e3c4a2a18cbb40d0d6df4bfca4d6"
FILE = DataFile("set/things.gz", sha256(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LMU_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache")

    def refuse(*arguments: object, **settings: object) -> None:
        raise ConnectionError("there is no network")

    monkeypatch.setattr("requests.sessions.Session.request", refuse)


def place(folder: Path, file: DataFile, content: bytes) -> Path:
    path = folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_read_finds_a_file_in_the_folder_and_uncompresses_it(tmp_path: Path) -> None:
    place(tmp_path, FILE, gzip.compress(CONTENT, mtime=1))
    assert read(FILE, tmp_path) == CONTENT


def test_read_ignores_what_a_mirror_changes_in_the_gzip_header(tmp_path: Path) -> None:
    place(tmp_path, FILE, gzip.compress(CONTENT, compresslevel=1, mtime=123_456))
    assert read(FILE, tmp_path) == CONTENT


def test_read_takes_a_file_that_was_uncompressed_already(tmp_path: Path) -> None:
    place(tmp_path, DataFile("set/things", ""), CONTENT)
    assert read(FILE, tmp_path) == CONTENT


def test_read_takes_the_folder_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(tmp_path, FILE, gzip.compress(CONTENT))
    monkeypatch.setenv("LMU_DATA", str(tmp_path))
    assert read(FILE) == CONTENT


@pytest.mark.parametrize(
    "damaged",
    [gzip.compress(CONTENT)[:-9], gzip.compress(CONTENT[:-1]), CONTENT, b""],
    ids=["truncated", "other content", "no gzip file", "empty"],
)
def test_read_refuses_a_damaged_file_by_its_name_and_checksum(
    tmp_path: Path, damaged: bytes
) -> None:
    path = place(tmp_path, FILE, damaged)
    with pytest.raises(ValueError) as refusal:
        read(FILE, tmp_path)
    assert str(path) in str(refusal.value)
    assert str(FILE.sha256) in str(refusal.value)
    assert "delete it" in str(refusal.value)


def test_read_says_the_checksum_that_it_got(tmp_path: Path) -> None:
    place(tmp_path, FILE, gzip.compress(b"else"))
    with pytest.raises(ValueError, match=sha256(b"else").hexdigest()):
        read(FILE, tmp_path)


def test_read_says_both_ways_when_there_is_neither_folder_nor_network() -> None:
    file = DataFile("set/things.gz", FILE.sha256, ("https://example.org/things.gz",))
    with pytest.raises(FileNotFoundError) as refusal:
        read(file)
    for words in ("no data folder", "there is no network", "example.org", "--data-dir", "LMU_DATA"):
        assert words in str(refusal.value)


def test_read_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"things\.gz` does not exist"):
        read(FILE, tmp_path)


def test_read_refuses_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data folder .* does not exist"):
        read(FILE, tmp_path / "nowhere")


def test_read_downloads_once_and_tries_the_next_address_after_a_bad_copy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def retrieve(url: str, *, fname: str, path: Path, **settings: object) -> None:
        target = Path(path, fname)
        if not target.exists():
            asked.append(url)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(gzip.compress(b"bad" if "bad" in url else CONTENT))

    monkeypatch.setattr("pooch.retrieve", retrieve)
    file = DataFile("set/things.gz", FILE.sha256, ("https://bad.org/x", "https://good.org/x"))
    assert read(file) == CONTENT
    assert asked == ["https://bad.org/x", "https://good.org/x"]
    assert read(file) == CONTENT
    assert len(asked) == 2


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim])
    return header + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def test_parse_idx_reads_what_was_written() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert (parse_idx(idx(array)) == array).all()


@pytest.mark.parametrize(
    "content", [b"", b"\x1f\x8b\x08\x00", idx(np.zeros((2, 3), np.uint8))[:-1]]
)
def test_parse_idx_refuses_other_content(content: bytes) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_idx(content)


@pytest.fixture
def tiny_mnist(tmp_path: Path) -> tuple[Path, MnistFiles]:
    """Forty random images to train on and ten to test, with checksums of their own."""
    draw = np.random.default_rng(0)
    files = []
    for published, count in zip(PUBLISHED, (40, 40, 10, 10), strict=True):
        shape = (count, 28, 28) if "images" in published.path else (count,)
        content = idx(draw.integers(0, 10 if len(shape) == 1 else 256, shape, np.uint8))
        files.append(DataFile(published.path, sha256(content).hexdigest()))
        place(tmp_path, files[-1], gzip.compress(content))
    return tmp_path, MnistFiles(*files)


def test_permuted_mnist_splits_and_scales(tiny_mnist: tuple[Path, MnistFiles]) -> None:
    folder, files = tiny_mnist
    data = permuted_mnist(0, folder, files=files, validation=15)
    assert [len(split.targets) for split in data.splits] == [25, 15, 10]
    assert data.train.inputs.shape == (25, 784, 1)
    assert data.train.inputs.dtype == torch.float32
    assert (data.train.inputs.min(), data.train.inputs.max()) == (-1.0, 1.0)
    labels = parse_idx(read(files.train_labels, folder))
    assert data.train.targets.tolist() + data.validation.targets.tolist() == labels.tolist()


def test_permuted_mnist_has_one_permutation_a_seed(tiny_mnist: tuple[Path, MnistFiles]) -> None:
    folder, files = tiny_mnist
    images = parse_idx(read(files.test_images, folder)).reshape(10, 784)
    draws = [permuted_mnist(seed, folder, files=files, validation=15) for seed in (0, 0, 1)]
    assert torch.equal(draws[0].test.inputs, draws[1].test.inputs)
    assert not torch.equal(draws[0].test.inputs, draws[2].test.inputs)
    order = torch.randperm(784, generator=torch.Generator().manual_seed(1)).numpy()
    expected = images[:, order] / 127.5 - 1.0
    assert np.abs(draws[2].test.inputs.squeeze(-1).numpy() - expected).max() < 1e-6


@pytest.mark.skipif(REAL is None, reason="LMU_DATA names no folder with MNIST")
def test_permuted_mnist_reads_the_published_files() -> None:
    data = permuted_mnist(0, REAL)
    assert [len(split.targets) for split in data.splits] == [50_000, 10_000, 10_000]
    assert data.test.targets[:5].tolist() == [7, 2, 1, 0, 4]


def euler_by_hand(history: list[float], samples: int) -> list[float]:
    """Integrate one series in plain Python, from the 170 states before x(0) = 1.2."""
    states = [*history, 1.2]
    for _ in range(samples * 10):
        delayed = states[-171]
        slope = 0.2 * delayed / (1.0 + delayed**10) - 0.1 * states[-1]
        states.append(states[-1] + slope / 10)
    return states[171 + 9 :: 10]


def test_the_series_are_eulers() -> None:
    series = mackey_glass_series(3, 400, seed=5)
    histories = 1.2 + 0.2 * (np.random.default_rng(5).random((3, 170)) - 0.5)
    for row, history in zip(series, histories, strict=True):
        by_hand = np.tanh(np.array(euler_by_hand(history.tolist(), 400)) - 1.0)
        # Chaos: two roundings part by about e in 150 samples, so that only the start compares.
        assert np.abs(row - by_hand).max() < 1e-11


def test_the_series_are_the_same_everywhere_to_the_last_bit() -> None:
    """By the plain floats of Python, whose four operations no processor does in another way."""
    keep, scale = 1.0 - 0.1 / 10, 0.2 / 10
    for row, raw in zip(mackey_glass_series(2, 300, seed=5), histories(2, 5), strict=True):
        states = [*raw, 1.2]
        for _ in range(3_000):
            delayed = states[-171]
            square = delayed * delayed
            fourth = square * square
            drive = scale * delayed / (1.0 + fourth * fourth * square)
            states.append(keep * states[-1] + drive)
        assert row.tolist() == [lambert(state - 1.0) for state in states[180::10]]


def histories(count: int, seed: int) -> list[list[float]]:
    integers = np.random.PCG64(seed).random_raw(count * 170).tolist()
    drawn = [1.2 + 0.2 * ((integer >> 11) / 2**53 - 0.5) for integer in integers]
    return [drawn[170 * row : 170 * row + 170] for row in range(count)]


def lambert(x: float) -> float:
    square, fraction = x * x, 19.0
    for odd in range(17, 0, -2):
        fraction = odd + square / fraction
    return x / fraction


def test_the_series_have_the_digits_that_they_were_published_with() -> None:
    # The last of 5,115 samples: chaos makes a last digit that differs early another number here.
    series = mackey_glass_series(2, 5_115, seed=0)
    assert [value.hex() for value in series[:, -1].tolist()] == LAST_SAMPLES
    assert sha256(series.astype("<f8").tobytes()).hexdigest() == SERIES
    assert mackey_glass(0).digest() == "fdd86d86c5b0"


def test_the_hyperbolic_tangent_errs_by_its_roundings() -> None:
    numbers = np.linspace(-1.0, 1.0, 1_001)
    exact = np.tanh(numbers.astype(np.longdouble))
    # Ten divisions and nine additions, of which those before the last two hardly count.
    assert (np.abs(_tanh(numbers) - exact) <= 4 * 2.0**-53 * np.abs(exact)).all()


@pytest.mark.parametrize("length", [1, 17, 18, 100])
def test_the_series_have_the_length_asked_for(length: int) -> None:
    series = mackey_glass_series(2, length, seed=0)
    assert series.shape == (2, length)
    assert (series == mackey_glass_series(2, 120, seed=0)[:, :length]).all()


@pytest.mark.parametrize("ahead", [1, 15])
def test_the_target_is_the_future_and_not_the_past(ahead: int) -> None:
    data = mackey_glass(3, series=8, length=60, ahead=ahead)
    for inputs, targets in data.splits:
        assert inputs.shape == targets.shape == (len(inputs), 60, 1)
        assert torch.equal(targets[:, :-ahead], inputs[:, ahead:])
        assert not torch.equal(targets[:, ahead:], inputs[:, :-ahead])


def test_the_task_drops_centres_and_splits() -> None:
    data = mackey_glass(1, series=16, length=500)
    assert [len(split.inputs) for split in data.splits] == [4, 4, 8]
    raw = mackey_glass_series(16, 615, seed=1)[:, 100:]
    inputs = torch.cat([split.inputs for split in data.splits]).squeeze(-1)
    assert np.abs(inputs.numpy() - (raw - raw.mean())[:, :500]).max() < 1e-6


def test_a_digest_tells_data_apart() -> None:
    one, same, other = (mackey_glass(seed, series=8, length=60) for seed in (0, 0, 1))
    assert one.digest() == same.digest() != other.digest()
    assert one.digest() != one._replace(train=one.test, test=one.train).digest()
    # A view of overlapping windows has the digest of its copy, whatever the type of its numbers.
    letters = torch.arange(200, dtype=torch.uint8)
    windows = letters.unfold(0, 20, 1)
    digests = {
        one._replace(test=Split(part, part[:, 0])).digest() for part in (windows, windows.clone())
    }
    assert len(digests) == 1


def test_the_published_size() -> None:
    data = mackey_glass(0)
    assert [split.inputs.shape for split in data.splits] == [
        (32, 5000, 1),
        (32, 5000, 1),
        (64, 5000, 1),
    ]


@pytest.mark.parametrize("series", [0, 6])
def test_a_number_of_series_that_cannot_be_split_is_refused(series: int) -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        mackey_glass(0, series=series)
