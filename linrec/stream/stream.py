"""`Stream`: a recurrence or a module together with its state."""

# pyright: reportUnnecessaryIsInstance=false
# (Callers without types are checked too.)

import threading
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from linrec._tensors.arguments import check_tensor
from linrec._tensors.shapes import broadcast, broadcast_shapes, show
from linrec.executors import Executor
from linrec.stream import saved
from linrec.stream.cuda_graph import CapturedStep, why_not
from linrec.stream.frozen_copy import HeldModule, check_samples, hold
from linrec.stream.numbering import Indices, check_count, check_rows, check_streams
from linrec.systems import LinearRecurrence


class Stream:
    """A recurrence or a module with its state, fed samples or blocks as they come.

        x_t = A x_{t-1} + B u_t        y_t = C x_t + D u_t

    However the samples are cut into blocks, the outputs equal those of one run over all samples, up
    to rounding errors: within each block they are within the executor's bound, and errors of the
    state are carried on by A like any change of the state.

    The stream keeps a copy of the system, in evaluation mode and without gradients: later training
    of the module, or a change of its dtype, does not affect the stream. No graph is recorded,
    whatever `torch.is_grad_enabled` says, and outputs never require gradients. Memory does not grow
    with time: the stream keeps the system, one state, and the plans of the last eight lengths of
    blocks. Returned outputs and states share no memory with the stream.

    Threads: every method takes the stream's lock, so calls from several threads run one after the
    other, each completely, in the order in which they get the lock. Different streams run at the
    same time, even two streams of one module.

    Args:
        system: a `LinearRecurrence`, or a module with `step(input, state)`, and with `forward` or
            `run` for blocks: `linrec.nn.Recurrence`, the layers and networks of `lmu`, or your own
            with `input_size`, `state_size` and one tensor as the state, initially zeros. For a
            recurrence that varies in time, the matrices are not used: each block brings its own.
        streams: the number of streams, k, on the first axis of samples `(k, m)`; a tuple for
            several axes. None: one stream, without an axis. The axes broadcast against the batch
            axes of the recurrence.
        executor: how blocks of a recurrence are run. None: by the module's executor, or `Auto`.

    Raises:
        TypeError: the system is not a recurrence or a module as above.
        ValueError: numbers of streams that do not fit.

    Example:
        >>> import torch, linrec
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> stream = linrec.Stream(average)
        >>> stream.push(torch.ones(3, 1)).flatten()  # a block of three
        tensor([0.5000, 0.7500, 0.8750])
        >>> stream.push(torch.ones(1))  # and one more
        tensor([0.9375])
    """

    def __init__(
        self,
        system: LinearRecurrence | nn.Module,
        *,
        streams: int | Sequence[int] | None = None,
        executor: Executor | None = None,
    ) -> None:
        self._held = hold(system, executor)
        self._lock = threading.Lock()
        self._captured: CapturedStep | None = None
        self._streams = check_streams(streams, self._held.batch_shape)
        self._take(self._zeros(self._streams))

    def push(
        self,
        samples: Tensor,
        lengths: Tensor | None = None,
        *,
        matrices: LinearRecurrence | None = None,
    ) -> Tensor:
        """Feed every stream, and return its outputs.

        Args:
            samples (*streams, m) or (*streams, time, m): one sample of each stream, or a block of
                any length, including 0.
            lengths (*streams): the number of samples of a right-padded block that belong to each
                stream; with 0 a stream stays as it is. None: all.
            matrices: for a recurrence that varies in time, a `LinearRecurrence` with the matrices
                of these steps.

        Returns:
            The outputs, `(*streams, p)` or `(*streams, time, p)`, zero past the lengths.

        Raises:
            ValueError: samples of another shape or device, or lengths with a single sample.
            TypeError: samples in a dtype that the system cannot run in, or missing matrices.

        Example:
            >>> import torch, linrec
            >>> stream = linrec.Stream(linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]]), streams=2)
            >>> stream.push(torch.ones(2, 3, 1), lengths=torch.tensor([3, 0])).squeeze()
            tensor([[0.5000, 0.7500, 0.8750],
                    [0.0000, 0.0000, 0.0000]])
        """
        with self._lock:
            if (
                self._step is not None
                and type(samples) is Tensor
                and samples.shape == self._sample_shape
                and samples.dtype is self._dtype
                and samples.device == self._device
                and lengths is None
                and matrices is None
                and not samples.requires_grad
                and not (self._casts and torch.is_autocast_enabled(self._device.type))
            ):
                outputs, self._state = self._step(samples, self._state)
                return outputs
            samples = check_samples(self._held, samples, self._streams)
            if matrices is not None and not self._held.varying:
                raise ValueError(
                    "`matrices` are given, and the system of this stream does not vary in time: "
                    "expected None. Make the stream of a recurrence with `time_varying=True`."
                )
            single = samples.ndim == len(self._streams) + 1
            if single and lengths is not None:
                raise ValueError(
                    "`lengths` are given with one sample of each stream: expected a block. Pass "
                    "`samples.unsqueeze(-2)` to feed some of the streams."
                )
            with torch.no_grad():
                if single:
                    result = self._held.step(samples, self._state, matrices)
                else:
                    result = self._held.block(samples, self._state, lengths, matrices)
            self._state = result.final_state.detach()
            outputs = result.outputs.detach()
            own = outputs.untyped_storage().data_ptr()
            shared = own and own in (t.untyped_storage().data_ptr() for t in (samples, self._state))
            return outputs.clone() if shared else outputs

    def capture(self) -> str | None:
        """Record the step of one sample as a CUDA graph, which `push` launches from now on.

        A step is a handful of small kernels, and launching them takes longer than running them. A
        graph is launched as one. Results are the same and blocks are run as before. After a change
        of the number of streams, another graph is recorded.

        Returns:
            None; or a sentence that says why there is nothing to capture, for example on the CPU.
            `push` then runs as before.

        Example:
            >>> import linrec
            >>> stream = linrec.Stream(linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]]), streams=4)
            >>> print(stream.capture())
            the stream is on cpu, where nothing is launched: only CUDA has graphs
        """
        with self._lock:
            reason = why_not(self._held)
            if reason is None:
                self._captured = CapturedStep(self._held, self._state, self._streams)
                self._take(self._state)
            return reason

    @property
    def streams(self) -> torch.Size:
        """The axes of streams, before a sample's own axis: `(k,)`, or `()` for one stream."""
        return self._streams

    @property
    def state(self) -> Tensor:
        """The state of every stream, `(*streams, n)`: copied when it is read and when it is set."""
        with self._lock:
            return self._state.clone()

    @state.setter
    def state(self, state: Tensor) -> None:
        with self._lock:
            self._take(self._checked(state, self._state.shape))

    def reset(self, indices: Indices | None = None) -> None:
        """Set the states of streams back to zeros.

        Args:
            indices: the streams, on the first axis: a number, numbers, a slice or a mask. None:
                all.

        Raises:
            ValueError: there is no such stream.
        """
        with self._lock:
            if indices is None:
                self._take(torch.zeros_like(self._state))
                return
            rows = self._rows(indices)
            state = self._state.clone()
            state[rows] = 0
            self._take(state)

    def join(self, streams: int = 1, *, state: Tensor | None = None) -> range:
        """Add new streams behind the present ones.

        Args:
            streams: the number of new streams.
            state (streams, *other axes, n): the states to continue from, as `leave` returned them;
                their number is then the number of new streams. None: zeros.

        Returns:
            Their indices on the first axis.

        Raises:
            ValueError: the stream has no axis of streams, or the state does not fit.

        Example:
            >>> import linrec
            >>> stream = linrec.Stream(linrec.LinearRecurrence(A=[[0.5]]), streams=3)
            >>> stream.join(2), stream.streams
            (range(3, 5), torch.Size([5]))
        """
        with self._lock:
            self._check_axis()
            if state is None:
                count = check_count("streams", streams)
                added = self._zeros(torch.Size((count, *self._streams[1:])))
            else:
                count = len(state) if isinstance(state, Tensor) and state.ndim else 0
                added = self._checked(state, (count, *self._state.shape[1:]))
            before = self._streams[0]
            self._streams = torch.Size((before + count, *self._streams[1:]))
            self._take(torch.cat([self._state, added]))
            return range(before, before + count)

    def leave(self, indices: Indices) -> Tensor:
        """Remove streams; the ones behind them move up.

        Args:
            indices: the streams, on the first axis: a number, numbers, a slice or a mask.

        Returns:
            Their states, in the given order, `(len(indices), *other axes, n)`, from which
            `join(state=...)` can continue later.

        Raises:
            ValueError: there is no such stream, or one is named twice.

        Example:
            >>> import linrec
            >>> stream = linrec.Stream(linrec.LinearRecurrence(A=[[0.5]]), streams=3)
            >>> stream.leave([0, 2]).shape, stream.streams
            (torch.Size([2, 1]), torch.Size([1]))
        """
        with self._lock:
            rows = self._rows(indices)
            gone = self._state[rows]
            kept = torch.ones(self._streams[0], dtype=torch.bool, device=self._state.device)
            kept[rows] = False
            state = self._state[kept]
            self._streams = torch.Size((len(state), *self._streams[1:]))
            self._take(state)
            return gone

    def save(self, path: str | PathLike[str]) -> None:
        """Write the states into a file, with a fingerprint of the system.

        The file is a safetensors file of the states and a fingerprint of the system (classes,
        shapes and dtypes, a digest of its numbers). It is written under a temporary name in the
        same folder and then renamed, so that it is complete or absent. It does not hold the system.

        Args:
            path: the file.

        Raises:
            ModuleNotFoundError: safetensors is not installed.
            OSError: the file cannot be written.
        """
        with self._lock:
            state, streams = self._state.clone(), self._streams
        saved.save(path, saved.fingerprint(self._held), state, streams)

    def load(self, path: str | PathLike[str]) -> None:
        """Continue from states that `save` wrote, with the number of streams in the file.

        Args:
            path: the file.

        Raises:
            ModuleNotFoundError: safetensors is not installed.
            FileNotFoundError: there is no such file.
            ValueError: the file is of another system or of a newer version, is damaged, or has
                something else in it.
        """
        streams, state = saved.load(path, saved.fingerprint(self._held))
        with self._lock:
            batch = broadcast(streams=streams, recurrence=self._held.batch_shape)
            fits = state.shape == (*batch, self._held.state_size)
            if len(streams) != len(self._streams) or not fits:
                raise ValueError(
                    f"`{path}` has streams {show(streams)}, and this stream {show(self._streams)}: "
                    "expected as many axes. Make the stream with "
                    f"`streams={tuple(streams) or None}`."
                )
            self._streams = streams
            self._take(state.to(self._held.device))

    def __repr__(self) -> str:
        kind = self._held
        system = kind.module if isinstance(kind, HeldModule) else kind.given
        return (
            f"Stream({type(system).__name__}, inputs={kind.input_size}, states={kind.state_size}, "
            f"streams={tuple(self._streams)})"
        )

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {"held": self._held, "streams": self._streams, "state": self._state.clone()}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self._held, self._streams = kept["held"], kept["streams"]
        self._lock, self._captured = threading.Lock(), None
        self._take(kept["state"])

    def _take(self, state: Tensor) -> None:
        """Continue from a state, and set the shape of a sample for `push`."""
        kind = self._held
        self._state = state
        self._step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = kind.fast_step()
        self._dtype, self._device = kind.state_dtype, kind.device
        if self._captured is not None:
            if not self._captured.fits(state):
                self._captured = CapturedStep(kind, state, self._streams)
            self._step, self._dtype = self._captured, kind.dtype
        self._sample_shape = torch.Size((*self._streams, kind.input_size))
        self._casts = torch.amp.is_autocast_available(kind.device.type)

    def _zeros(self, streams: torch.Size) -> Tensor:
        kind = self._held
        shape = (*broadcast_shapes(streams, kind.batch_shape), kind.state_size)
        return torch.zeros(shape, dtype=kind.state_dtype, device=kind.device)

    def _checked(self, state: Tensor, shape: Sequence[int]) -> Tensor:
        """Check a state, and copy it."""
        state = check_tensor("state", state)
        if tuple(state.shape) != tuple(shape):
            raise ValueError(f"`state` has shape {show(state.shape)}: expected {show(shape)}.")
        if torch.promote_types(state.dtype, self._state.dtype) != self._state.dtype:
            raise TypeError(
                f"`state` has dtype {state.dtype}: expected {self._state.dtype}, that of the "
                f"stream. Pass `state.to({self._state.dtype})`."
            )
        return state.detach().to(self._state, copy=True)

    def _check_axis(self) -> None:
        """Refuse to change the number of streams if they have no axis of their own."""
        batch = self._held.batch_shape
        if len(self._streams) <= len(batch):
            more = f" before those of the recurrence, {show(batch)}" if batch else ""
            raise ValueError(
                f"The stream has streams {show(self._streams)}: expected an axis for them{more}. "
                f"Make it with `streams={(1, *batch) if batch else 1}`."
            )

    def _rows(self, indices: Indices) -> Tensor:
        """Convert indices, a slice or a mask to indices of the first axis, each once."""
        self._check_axis()
        rows = check_rows(indices, self._streams[0])
        return torch.tensor(rows, dtype=torch.int64, device=self._state.device)
