"""A recurrence or a module as an exported program of torch."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from linrec.export.forms import (
    Example,
    Form,
    as_module,
    example_of,
    running,
    takes_steps,
)
from linrec.systems import LinearRecurrence

# Steps of an example, where no length is given.
TRACED = 8


def trace_form(
    target: LinearRecurrence | nn.Module,
    form: Form | str,
    example: Tensor | None,
    length: int | None,
) -> tuple[ExportedProgram, Example]:
    """Trace a form, its batch and time open; arguments as of `to_program`."""
    form = as_form(form)
    convolves = form in (Form.CONV, Form.FFT)
    if convolves and length is None:
        raise ValueError(
            f"The form `{form}` needs a length: its kernel is a constant, of so many steps. Say "
            "how long sequences may be (`length=…`, `--length …`)."
        )
    if length is not None and length < 2:
        raise ValueError(f"`length` is {length}: expected 2 steps or more.")
    module = as_module(target)
    training = module.training
    module.eval()
    try:
        try:
            program, made = trace_module(module, form, example, length)
        except ValueError:
            if form is not Form.SCAN or not takes_steps(module):
                raise
            program, made = trace_module(module, form, example, length, by_steps=True)
    finally:
        module.train(training)
    drop_unused(program)
    return program, made


def trace_module(
    module: nn.Module,
    form: Form,
    example: Tensor | None,
    length: int | None,
    *,
    by_steps: bool = False,
) -> tuple[ExportedProgram, Example]:
    """Trace a module in a form; `by_steps` as of `example_of`."""
    made = example_of(module, form, example, length or TRACED, by_steps=by_steps)
    longest = length if form in (Form.CONV, Form.FFT) else None
    with running(made, form, length or TRACED), torch.no_grad(), quietly():
        program = refuse(
            form,
            module,
            lambda: export(made.module, made.arguments, dynamic_shapes=open_axes(made, longest)),
        )
    return program, made


@contextmanager
def quietly() -> Iterator[None]:
    """Keep torch from telling, graph and all, of what cannot be traced: a sentence says it."""
    log = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # (LSTMs keep their weights in a list as well, which follows them.)
            warnings.filterwarnings("ignore", "The tensor attributes .*_flat_weights", UserWarning)
            # (torch 2.13 copies graphs by what it deprecates itself.)
            warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
            yield
    finally:
        log.setLevel(level)


def drop_unused(program: ExportedProgram) -> None:
    """Drop unused operations, such as the ones a constant has replaced.

    Checks that a tensor has the dtype that it was cast from would keep it.
    """
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()


def open_axes(example: Example, longest: int | None) -> tuple[dict[int, Dim], ...]:
    """Leave the batch open, and time up to the longest."""
    batch, axes = Dim("batch"), []
    for place, _ in enumerate(example.arguments):
        own = {0: batch}
        if place == 0 and example.time is not None:
            own[example.time] = Dim("time", max=longest)
        axes.append(own)
    return tuple(axes)


def refuse(form: Form, module: nn.Module, trace: Callable[[], ExportedProgram]) -> ExportedProgram:
    """Say in a sentence that a module cannot be traced in a form."""
    try:
        return trace()
    except ValueError:
        raise
    except Exception as error:  # whatever a module does that cannot be traced
        reason = str(error).strip().partition("\n")[0][:300]
        if "specialized" in str(error):
            reason = (
                "its graph would hold for the sizes of the example alone, as where a loop in "
                "Python goes through time"
            )
        raise ValueError(
            f"`{type(module).__name__}` cannot be exported in the form `{form}`: {reason}. Type "
            f"{'another form' if form is Form.STEP else 'the form `step`'}."
        ) from error


def as_form(form: Form | str) -> Form:
    """Return the form of a name; refuse an unknown one."""
    try:
        return Form(form)
    except ValueError:
        raise ValueError(
            f"`{form}` is no form: expected one of {', '.join(each.value for each in Form)}."
        ) from None


def to_program(
    target: LinearRecurrence | nn.Module,
    form: Form | str = Form.SCAN,
    *,
    example: Tensor | None = None,
    length: int | None = None,
) -> ExportedProgram:
    """Export a recurrence or a module with `torch.export`, its batch and its time left open.

    | form | it takes | it gives |
    |---|---|---|
    | `step` | `input (batch, m)`, `state (batch, n)` | `output`, `next_state` |
    | `scan` | `inputs (batch, time, m)`, `state (batch, n)` | `outputs`, `final_state` |
    | `conv`, `fft` | `inputs (batch, time, m)`, from a zero state | `outputs` |

    Args:
        target: the recurrence, or a module that runs recurrences. `step` needs a method `step`.
            `scan` takes a `forward` or `resume` with an `initial_state`; where there is none, or it
            loops in Python, the loop goes over `step`, and without a `step` there are no states.
        form: how time is gone through: `step`, `scan`, `conv` or `fft`.
        example (batch, time, m): inputs to trace a module with that does not say how many it takes
            (`input_size`); or (batch, time) of whole numbers, such as words.
        length: of `conv` and `fft` the longest sequence, which is the length of the kernel.

    Returns:
        The program; `torch.export.save` writes it.

    Raises:
        ValueError: the form cannot be had of the target; the message says why, and what can.

    Example:
        >>> import torch, linrec, linrec.export
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> program = linrec.export.to_program(average, "step")
        >>> program.module()(torch.ones(3, 1), torch.zeros(3, 1))[0].flatten()
        tensor([0.5000, 0.5000, 0.5000])
    """
    return trace_form(target, form, example, length)[0]


def save_program(program: ExportedProgram) -> bytes:
    """Write an exported program down, as `torch.export.load` reads it."""
    content = io.BytesIO()
    torch.export.save(program, content)
    return content.getvalue()
