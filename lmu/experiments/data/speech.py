"""Spoken words as spectrograms: the free spoken digits, and Speech Commands."""

import io
import math
import os
import re
import wave
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lmu.experiments.data.files import DataFile, data_folder, find
from lmu.experiments.data.splits import Dataset, Split
from lmu.files import DamagedFile, explain_parser_errors, read_text, zip_members

DIGITS = DataFile(
    "fsdd/recordings.zip", source="https://github.com/Jakobovski/free-spoken-digit-dataset"
)
DIGITS_RATE = 8_000  # samples a second
COMMANDS_RATE = 16_000
BANDS = 40
WINDOW, HOP = 0.025, 0.010  # seconds
STEPS = 98  # windows in a second
MOST_RECORDINGS, LARGEST_RECORDING = 10_000, 2**20
QUIETEST = 1e-6  # added to each power, so that silence has a logarithm


def mel_filters(rate: int, length: int, bands: int = BANDS) -> Tensor:
    """Compute triangular filters that are evenly spaced in mel, 2595 log₁₀(1 + f / 700).

    Args:
        rate: samples a second.
        length: how many samples are transformed.
        bands: how many filters, from 20 Hz to half the rate.

    Returns:
        The filters, `(bands, length // 2 + 1)`, each at most 1.

    References:
        O'Shaughnessy 1987, Speech Communication: Human and Machine, p. 150 (the formula).
    """

    def mel(frequency: float) -> float:
        return 2595.0 * math.log10(1.0 + frequency / 700.0)

    edges = torch.linspace(mel(20.0), mel(rate / 2), bands + 2, dtype=torch.float64)
    edges = 700.0 * (10.0 ** (edges / 2595.0) - 1.0)
    frequencies = torch.arange(length // 2 + 1, dtype=torch.float64) * rate / length
    lower, middle, upper = (each.unsqueeze(-1) for each in (edges[:-2], edges[1:-1], edges[2:]))
    rising, falling = (
        (frequencies - lower) / (middle - lower),
        (upper - frequencies) / (upper - middle),
    )
    return torch.minimum(rising, falling).clamp(min=0).float()


@lru_cache
def transform(rate: int) -> tuple[Tensor, Tensor, int, int]:
    """Return the window, the filters, and the length of a transform and the hop in samples."""
    size, hop = round(WINDOW * rate), round(HOP * rate)
    length = 2 ** math.ceil(math.log2(size))
    return torch.hann_window(size), mel_filters(rate, length), length, hop


def spectrogram(samples: Tensor, rate: int) -> Tensor:
    """Compute the logarithms of the power in each band, every hundredth of a second.

    Args:
        samples (*batch, samples): a second of sound, in [-1, 1].
        rate: samples a second.

    Returns:
        `(*batch, 98, 40)`.
    """
    window, filters, length, hop = transform(rate)
    frames = samples.unfold(-1, len(window), hop)[..., :STEPS, :] * window
    power = torch.fft.rfft(frames, length).abs().square()
    return torch.log(power @ filters.mT + QUIETEST)


def second_of(samples: Tensor, rate: int) -> Tensor:
    """Take the last second of a recording, or put silence before a shorter one.

    So a network that is read at the end hears the word last.
    """
    return torch.nn.functional.pad(samples[-rate:], (max(0, rate - len(samples)), 0))


def sound(content: bytes, name: str, rate: int) -> Tensor:
    """Read a recording: a WAV file of one channel and 16 bits.

    Args:
        content: the file's bytes.
        name: the file's name, for messages.
        rate: the required samples a second.

    Returns:
        Its samples in [-1, 1].

    Raises:
        DamagedFile: the file is not a recording of this form.
    """
    with explain_parser_errors(
        name, f"a WAV file of one channel, 16 bits and {rate:,} samples a second"
    ):
        with wave.open(io.BytesIO(content), "rb") as file:
            found = file.getnchannels(), file.getsampwidth(), file.getframerate()
            if found != (1, 2, rate):
                raise ValueError(f"it has {found[0]} channels, {8 * found[1]} bits, {found[2]} Hz")
            read = file.readframes(file.getnframes())
        if not read or len(read) % 2:
            raise ValueError(f"it has {len(read)} bytes of samples")
    return torch.from_numpy(np.frombuffer(read, "<i2").astype(np.float32) / 32_768.0)


def spoken_digits(folder: str | os.PathLike[str] | None = None) -> Dataset:
    """Return the free spoken digits: 3,000 recordings of six speakers.

    Recordings 0 to 4 of each digit and speaker are for test, as published; 5 to 9 are for
    validation. Each is a spectrogram of one second, with every band shifted and scaled to mean 0
    and variance 1 in training.

    Args:
        folder: the data folder, which holds `fsdd/recordings.zip`; None takes `LMU_DATA`.

    Returns:
        The task: inputs `(recordings, 98, 40)` and targets `(recordings,)`, the digits; 2,400 to
        train on, 300 to choose by and 300 to test.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged.

    References:
        Jackson et al., Free Spoken Digit Dataset, v1.0.10.
    """
    path, found = find(DIGITS, folder), {"train": [], "validation": [], "test": []}
    members = zip_members(
        path, lambda name: name.endswith(".wav"), most=MOST_RECORDINGS, largest=LARGEST_RECORDING
    )
    for name, content in members:
        match = re.search(r"(\d)_\w+_(\d+)\.wav$", name)
        if match is None:
            raise DamagedFile(
                f"`{path}` has a recording `{name[:80]}`: expected a name like `7_jackson_32.wav`."
            )
        index = int(match[2])
        part = "test" if index < 5 else "validation" if index < 10 else "train"
        samples = second_of(sound(content, f"{path}: {name[:80]}", DIGITS_RATE), DIGITS_RATE)
        found[part].append((samples, int(match[1])))
    if not all(found.values()):
        raise DamagedFile(f"`{path}` lacks recordings of a part: expected each of 0 to 49.")
    return dataset(found, DIGITS_RATE)


def speech_commands(folder: str | os.PathLike[str] | None = None) -> Dataset:
    """Return Speech Commands, read from its unpacked archive: a folder of WAV files for each word.

    Args:
        folder: the data folder, which holds `speech_commands/` with `validation_list.txt`,
            `testing_list.txt` and a folder for each word; None takes `LMU_DATA`.

    Returns:
        The task: inputs `(recordings, 98, 40)` and targets `(recordings,)`, the number of the word
        in alphabetical order: 35 in version 2.

    Raises:
        FileNotFoundError: there is no such folder, or a list or recording in it is missing.
        ValueError: a file is damaged.

    References:
        Warden 2018, Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition.
    """
    place = data_folder(folder)
    root = None if place is None else place / "speech_commands"
    if root is None or not root.is_dir():
        raise FileNotFoundError(
            f"`{root or 'speech_commands'}` does not exist: expected the folder that "
            "speech_commands_v0.02.tar.gz of download.tensorflow.org unpacks to."
        )
    words = sorted(
        each.name for each in root.iterdir() if each.is_dir() and not each.name.startswith("_")
    )
    if not words:
        raise FileNotFoundError(f"`{root}` has no folder of a word: expected 35.")
    listed = {name: set(names(root / f"{name}_list.txt")) for name in ("validation", "testing")}
    found: dict[str, list[tuple[Tensor, int]]] = {"train": [], "validation": [], "test": []}
    for number, word in enumerate(words):
        for path in sorted((root / word).glob("*.wav")):
            own = f"{word}/{path.name}"
            part = "validation" if own in listed["validation"] else "train"
            part = "test" if own in listed["testing"] else part
            if path.stat().st_size > LARGEST_RECORDING:
                raise DamagedFile(f"`{path}` has more than {LARGEST_RECORDING:,} bytes.")
            samples = sound(path.read_bytes(), str(path), COMMANDS_RATE)
            found[part].append((second_of(samples, COMMANDS_RATE), number))
    if not all(found.values()):
        raise DamagedFile(f"`{root}` lacks recordings to train on, to choose by or to test.")
    return dataset(found, COMMANDS_RATE)


def names(path: Path) -> Iterable[str]:
    """Read a list of files, one a line."""
    return read_text(path).split()


def dataset(found: dict[str, list[tuple[Tensor, int]]], rate: int) -> Dataset:
    """Make spectrograms of recordings, scaled by the training recordings."""
    splits = [
        Split(
            torch.cat(list(pieces([samples for samples, _ in part], rate))),
            torch.tensor([target for _, target in part]),
        )
        for part in found.values()
    ]
    mean, scale = splits[0].inputs.mean((0, 1)), splits[0].inputs.std((0, 1))
    train, validation, test = (
        split._replace(inputs=(split.inputs - mean) / scale) for split in splits
    )
    return Dataset(train, validation, test)


def pieces(recordings: list[Tensor], rate: int) -> Iterator[Tensor]:
    """Make spectrograms, a few recordings at a time."""
    for start in range(0, len(recordings), 256):
        yield spectrogram(torch.stack(recordings[start : start + 256]), rate)
