"""`lmu stream` as a process in a pipe. No wait is without a limit."""

import re
import select
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from linrec import Stream
from lmu.commands import app
from lmu.commands.samples import BadSample, Floats, Lines
from lmu.experiments import EXPERIMENTS, restore_alone
from lmu.experiments.data import Dataset, Split
from lmu.experiments.models import SampleNetwork
from lmu.files import written_checkpoint
from tests import forked

LIMIT = 120.0  # seconds of any wait: a process that starts on a busy machine needs some
COMMAND = "from lmu.cli import main; main()"
SAMPLES = [[0.1 * step] for step in range(12)]


def run_folder(folder: Path, name: str = "mackey-glass", model: str = "lmu") -> Path:
    """Make the checkpoint of a network as it begins: what it says does not matter here."""
    experiment = EXPERIMENTS[name]
    torch.manual_seed(0)
    data = Split(torch.empty(0, 2_000, 1), torch.empty(0))
    network = experiment.setting(model).network(Dataset(data, data, data))
    configuration = {"experiment": name, "model": model, "budget": "full", "seed": 0, "data": "0"}
    content = {"configuration": configuration, "network": network.state_dict()}
    checkpoint = folder / "best.safetensors"
    checkpoint.write_bytes(written_checkpoint(content))
    return checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_folder(tmp_path_factory.mktemp("run"))


def expected(checkpoint: Path, name: str = "mackey-glass") -> list[list[float]]:
    """What the network says to the samples, one by one."""
    network = restore_alone(EXPERIMENTS[name], checkpoint)
    stream = Stream(network)
    return [stream.push(torch.tensor(sample)).tolist() for sample in SAMPLES]


def said(output: str) -> list[list[float]]:
    return [[float(field) for field in line.split(",")] for line in output.splitlines()]


def words(checkpoint: Path, *more: object) -> list[object]:
    return ["stream", "mackey-glass", "--checkpoint", checkpoint, "--threads", 1, *more]


class Pipe(forked.Forked):
    """A running process, between a pipe in and a pipe out."""

    def __init__(self, checkpoint: Path, *more: object) -> None:
        super().__init__(COMMAND, *words(checkpoint, *more))

    def line(self) -> str:
        """Read one line, which has to come without any other being written."""
        found, end = b"", time.monotonic() + LIMIT
        while not found.endswith(b"\n"):
            ready, _, _ = select.select([self.stdout], [], [], end - time.monotonic())
            assert ready, f"no line within {LIMIT} seconds, after {found!r}"
            byte = self.stdout.read(1)
            assert byte, f"the output ended after {found!r}"
            found += byte
        return found.decode()

    def ended(self) -> tuple[int, str, str]:
        """Wait for the end; status, what else was written, and errors."""
        output, errors = self.communicate(timeout=LIMIT)
        return self.wait(), output, errors


def test_each_line_is_answered_before_the_next_and_the_end_is_the_end(checkpoint: Path) -> None:
    with Pipe(checkpoint) as pipe:
        for sample, answer in zip(SAMPLES, expected(checkpoint), strict=True):
            pipe.stdin.write(f"{sample[0]!r}\n".encode())
            assert said(pipe.line())[0] == pytest.approx(answer, rel=1e-6)
        status, rest, errors = pipe.ended()
    assert (status, rest, errors) == (0, "", "")


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 0), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_signals_end_it_and_the_state_is_kept(
    checkpoint: Path, number: signal.Signals, status: int, tmp_path: Path
) -> None:
    pytest.importorskip("safetensors")
    state = tmp_path / "state.safetensors"
    answers = expected(checkpoint)
    with Pipe(checkpoint, "--state", state) as pipe:
        for sample, answer in zip(SAMPLES[:5], answers, strict=False):
            pipe.stdin.write(f"{sample[0]!r}\n".encode())
            assert said(pipe.line())[0] == pytest.approx(answer)
        pipe.stdin.write(b"0.")  # half a sample, which is not answered
        time.sleep(0.1)
        pipe.send_signal(number)
        assert pipe.ended() == (status, "", "")
    rest = "".join(f"{sample[0]!r}\n" for sample in SAMPLES[5:])
    result = CliRunner().invoke(app, in_process(checkpoint, "--state", str(state)), input=rest)
    assert result.exit_code == 0, result.output
    np.testing.assert_allclose(said(result.output), answers[5:], rtol=1e-6)


def test_a_reader_that_leaves_ends_it(checkpoint: Path) -> None:
    with Pipe(checkpoint) as pipe:
        pipe.stdin.write(b"0.5\n")
        pipe.line()
        pipe.stdout.close()
        pipe.stdin.write(b"0.5\n" * 3)
        assert pipe.wait(LIMIT) == 0
        assert pipe.stderr.read() == b""


def in_process(checkpoint: Path, *more: str, name: str = "mackey-glass") -> list[str]:
    return ["stream", name, "--checkpoint", str(checkpoint), *more]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_named_and_the_state_is_kept(checkpoint: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.safetensors"
    full = "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); "
    done = forked.run(full + COMMAND, *words(checkpoint, "--state", state), given="0.1\n0.2\n")
    assert done.returncode == 1 and state.exists()
    assert done.stderr.startswith("error: `standard output` cannot be written (No space left")
    assert "Free some space" in done.stderr and "Traceback" not in done.stderr


def test_raw_numbers_and_blocks_are_answered_alike(checkpoint: Path) -> None:
    raw = np.array(SAMPLES, "<f4").tobytes()
    for more in (["--format", "f32"], ["--format", "f32", "--block", "5"], ["--block", "100"]):
        text = "\n".join(f"{sample[0]:.9g}" for sample in SAMPLES)  # no end of the last line
        given = raw if "f32" in more else text
        result = CliRunner().invoke(app, in_process(checkpoint, *more), input=given)
        assert result.exit_code == 0, result.output
        np.testing.assert_allclose(said(result.output), expected(checkpoint), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["psmnist", "capacity"])
def test_other_networks_of_samples_are_streamed(name: str, tmp_path: Path) -> None:
    checkpoint = run_folder(tmp_path, name, next(iter(EXPERIMENTS[name].models)))
    text = "".join(f"{sample[0]:.9g}\n" for sample in SAMPLES)
    result = CliRunner().invoke(app, in_process(checkpoint, name=name), input=text)
    assert result.exit_code == 0, result.output
    np.testing.assert_allclose(said(result.output), expected(checkpoint, name), rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "message", "answered"),
    [
        ("0.5\nabc\n", "line 2 has 'abc': expected 1 number", 1),
        ("value\n0.5\n", r"line 1 has 'value'.*`tail -n \+2`", 0),
        ("0.5\n\n0.5\n", "line 2 has nothing", 1),
        ("0.5,0.5\n", "line 1 has 2 fields", 0),
        ("0.5\n0.1\nnan\n", "line 3 has 'nan'.*finite", 2),
        ("1e300\n", "line 1 has '1e300'.*finite in float32", 0),
        ("1_0\n", "line 1 has '1_0'", 0),
        ("0.5\n\xff\n", "line 2", 1),
    ],
)
def test_a_bad_line_is_named(checkpoint: Path, text: str, message: str, answered: int) -> None:
    result = CliRunner().invoke(app, in_process(checkpoint), input=text.encode("latin-1"))
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == answered
    assert re.search(f"error: {message}", result.stderr), result.stderr
    assert "Traceback" not in result.output


def test_other_refusals(checkpoint: Path, tmp_path: Path) -> None:
    raw = np.array([0.5, np.inf], "<f4").tobytes()
    for content, more, message in (
        (raw, ["--format", "f32"], "sample 2 is [inf]"),
        (raw[:6], ["--format", "f32"], "sample 2 ends after 2 bytes"),
        (b"", ["--state", str(tmp_path / "absent" / "state")], "absent"),
        (b"", ["--state", str(checkpoint)], "cannot be read"),
    ):
        result = CliRunner().invoke(app, in_process(checkpoint, *more), input=content)
        assert result.exit_code == 1 and message in result.stderr, result.output
    words_of = in_process(tmp_path / "best.safetensors", name="text8")
    experiment = EXPERIMENTS["text8"]
    configuration = {"experiment": "text8", "model": experiment.model, "budget": "full", "seed": 0}
    content = {"configuration": {**configuration, "data": "0"}, "network": {}}
    (tmp_path / "best.safetensors").write_bytes(written_checkpoint(content))
    refused = CliRunner().invoke(app, words_of, input=b"")
    assert refused.exit_code == 1 and "error: " in refused.stderr


def test_samples_are_cut_wherever_bytes_end() -> None:
    text = b"0.5,1\r\n-2,3e0\n  4 ,5"
    raw = np.array([[0.5, 1], [-2, 3], [4, 5]], "<f4")
    for kind, data in ((Lines(2), text), (Floats(2), raw.tobytes())):
        for piece in (1, 3, 7, 100):
            fresh = type(kind)(2)
            parts = iter([data[start : start + piece] for start in range(0, len(data), piece)])
            found = list(fresh.waiting(lambda _, parts=parts: next(parts, b""), 2))
            assert torch.equal(torch.cat(found), torch.from_numpy(raw))
            assert all(len(block) <= 2 for block in found)


def test_an_endless_line_is_refused() -> None:
    with pytest.raises(BadSample, match="line 1 has more than"):
        list(Lines(1).waiting(lambda count: b"1" * count, 1))


def test_what_is_restored_needs_no_data(checkpoint: Path) -> None:
    assert isinstance(restore_alone(EXPERIMENTS["mackey-glass"], checkpoint), SampleNetwork)
