"""Spoken digits and Speech Commands: files, spectrograms, lost windows and networks."""

import io
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from lmu.experiments import EXPERIMENTS, Budget
from lmu.experiments.data import (
    Dataset,
    Split,
    lose_samples,
    speech_commands,
    spoken_digits,
)
from lmu.experiments.data.speech import mel_filters, second_of, spectrogram


def recording(samples: np.ndarray, rate: int, channels: int = 1) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return content.getvalue()


def noise(seed: int, length: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9_000, 9_000, length)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A folder with recordings of two digits by one speaker."""
    (tmp_path / "fsdd").mkdir()
    with zipfile.ZipFile(tmp_path / "fsdd" / "recordings.zip", "w") as archive:
        for digit in (3, 7):
            for index in (0, 4, 5, 9, 10, 49):
                content = recording(noise(10 * digit + index, 2_000 + 200 * index), 8_000)
                archive.writestr(f"recordings/{digit}_george_{index}.wav", content)
    return tmp_path


def test_parts_are_the_published_ones_and_scaled(digits: Path) -> None:
    data = spoken_digits(digits)
    assert [split.targets.tolist() for split in data.splits] == [[3, 3, 7, 7]] * 3
    assert data.train.inputs.shape == (4, 98, 40)
    torch.testing.assert_close(data.train.inputs.mean((0, 1)), torch.zeros(40), rtol=0, atol=1e-4)
    torch.testing.assert_close(data.train.inputs.std((0, 1)), torch.ones(40), rtol=0, atol=1e-4)


@pytest.mark.parametrize("each", [False, True], ids=["one target", "a target for each sample"])
def test_what_is_lost_is_lost_and_time_adds_up(each: bool) -> None:
    inputs = torch.randn(4, 98, 3)
    split = Split(inputs, 2 * inputs[..., :1] if each else torch.arange(4))
    few = lose_samples(Dataset(split, split, split), 60, seed=1)
    for thin in few.splits:
        assert thin.inputs.shape == (4, 38, 4)
        since = thin.inputs[..., -1]
        assert (since >= 1).all() and since.sum(-1).tolist() == [98] * 4  # the last is kept
        places = since.cumsum(-1).long() - 1
        for k in range(4):
            assert torch.equal(thin.inputs[k, :, :-1], inputs[k, places[k]])
        if each:
            assert torch.equal(thin.targets, 2 * thin.inputs[..., :1])
        else:
            assert torch.equal(thin.targets, torch.arange(4))
    assert not torch.equal(few.train.inputs[0, :, -1], few.train.inputs[1, :, -1])
    assert not torch.equal(few.train.inputs, few.test.inputs)
    again = lose_samples(Dataset(split, split, split), 60, seed=1)
    assert few.digest() == again.digest()
    with pytest.raises(ValueError, match="`lost` is 98"):
        lose_samples(Dataset(split, split, split), 98)


@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_a_spectrogram_is_the_sum_it_stands_for(rate: int) -> None:
    """One window of it by the definition of the transform; a tone is loudest in its own band."""
    times = torch.arange(rate, dtype=torch.float64) / rate
    samples = (0.5 * torch.sin(2 * torch.pi * 1_000 * times)).float()
    got = spectrogram(samples, rate)
    assert got.shape == (98, 40)
    size, length = round(0.025 * rate), 256 * rate // 8_000
    start = 37 * rate // 100
    window = torch.hann_window(size, dtype=torch.float64)
    piece = samples[start : start + size].double() * window
    angles = torch.outer(torch.arange(length // 2 + 1), torch.arange(size)).double()
    sums = (torch.exp(-2j * torch.pi * angles / length) * piece).sum(-1).abs().square()
    filters = mel_filters(rate, length)
    expected = torch.log(filters.double() @ sums + 1e-6)
    torch.testing.assert_close(got[37].double(), expected, rtol=1e-3, atol=2e-3)
    loudest = int(got.mean(0).argmax())
    assert filters[loudest, round(1_000 * length / rate)] > 0.5


def test_a_recording_ends_with_its_word() -> None:
    short, long = torch.ones(300), torch.arange(9_000.0)
    assert second_of(short, 8_000).tolist() == [0.0] * 7_700 + [1.0] * 300
    assert torch.equal(second_of(long, 8_000), long[1_000:])


def test_speech_commands_as_the_archive_unpacks(tmp_path: Path) -> None:
    root = tmp_path / "speech_commands"
    listed: dict[str, list[str]] = {"validation": [], "testing": []}
    for word in ("yes", "no", "_background_noise_"):
        (root / word).mkdir(parents=True)
        for index in range(6):
            name = f"{word}/{index:08x}_nohash_0.wav"
            (root / name).write_bytes(recording(noise(index, 16_000), 16_000))
            if index < 4 and not word.startswith("_"):
                listed["validation" if index < 2 else "testing"].append(name)
    for part, own in listed.items():
        (root / f"{part}_list.txt").write_text("\n".join(own) + "\n", encoding="utf-8")
    data = speech_commands(tmp_path)
    assert [split.targets.tolist() for split in data.splits] == [[0, 0, 1, 1]] * 3  # no, yes
    assert data.test.inputs.shape == (4, 98, 40)
    (root / "yes" / "00000001_nohash_0.wav").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match=r"00000001_nohash_0\.wav"):
        speech_commands(tmp_path)
    with pytest.raises(FileNotFoundError, match="speech_commands"):
        speech_commands(root)  # the folder above it is asked for


DAMAGES = {
    "no archive": b"nothing",
    "cut off": b"PK\3\4",
    "stereo": recording(noise(0, 100), 8_000, channels=2),
    "another rate": recording(noise(0, 100), 44_100),
    "no samples": recording(noise(0, 0), 8_000),
    "no sound": b"RIFF....WAVE",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_recordings_are_named(damage: str, tmp_path: Path) -> None:
    place = tmp_path / "fsdd" / "recordings.zip"
    place.parent.mkdir()
    if damage in ("no archive", "cut off"):
        place.write_bytes(DAMAGES[damage])
    else:
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr("recordings/1_george_0.wav", DAMAGES[damage])
    with pytest.raises(ValueError, match=r"recordings\.zip"):
        spoken_digits(tmp_path)


def test_archives_are_read_within_limits(tmp_path: Path) -> None:
    place = tmp_path / "fsdd" / "recordings.zip"
    place.parent.mkdir()
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("recordings/1_george_0.wav", bytes(2**21))
    with pytest.raises(ValueError, match="declares 2,097,152 bytes"):
        spoken_digits(tmp_path)
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("recordings/one.wav", recording(noise(0, 100), 8_000))
    with pytest.raises(ValueError, match=r"`recordings/one\.wav`: expected a name like"):
        spoken_digits(tmp_path)


@pytest.mark.parametrize("name", ["spoken-digits", "spoken-digits-lost", "mackey-glass-lost"])
def test_networks_stream(name: str) -> None:
    """And hear of time, or do not."""
    experiment, generator = EXPERIMENTS[name], torch.Generator().manual_seed(0)
    lost, size = name.endswith("lost"), 1 if name.startswith("mackey") else 40
    inputs = torch.randn(3, 9, size + lost, generator=generator)
    if lost:
        inputs[..., -1] = torch.randint(1, 4, (3, 9), generator=generator).float()
    for model in experiment.models:
        torch.manual_seed(0)
        network = experiment.setting(model, Budget.QUICK).network(Dataset.empty()).eval()
        if model == "polynomial":  # which is fitted to no series here
            torch.nn.init.normal_(next(network.parameters()))
        scores = network(inputs)
        assert scores.shape == ((3, 9, 1) if size == 1 else (3, 10))
        torch.testing.assert_close(network.stream(inputs), scores, rtol=1e-4, atol=1e-4)
        if lost:
            moved = inputs.clone()
            moved[..., -1] += 1
            same = torch.allclose(network(moved), scores, atol=1e-6)
            assert same == (model == "lmu-even")
