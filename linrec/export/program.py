"""A recurrence or a module as an exported program of torch."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from linrec._tensors.arguments import check_whole
from linrec._tensors.devices import on_cpu
from linrec.export.forms import (
    Example,
    Form,
    as_module,
    example_of,
    running,
    takes_steps,
)
from linrec.systems import LinearRecurrence

# Steps of an example without a given length.
TRACED = 8


def trace_form(
    target: LinearRecurrence | nn.Module,
    form: Form | str,
    example: Tensor | None,
    length: int | None,
) -> tuple[ExportedProgram, Example]:
    """Trace a form with dynamic batch and time axes; arguments as in `to_program`."""
    form = as_form(form)
    convolves = form in (Form.CONV, Form.FFT)
    if convolves and length is None:
        raise ValueError(
            f"The form `{form}` needs a length: its kernel is a constant, of so many steps. Say "
            "how long sequences may be (`length=…`, `--length …`)."
        )
    if length is not None:
        check_whole("length", length)
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
    """Trace a module in a form; `by_steps` as in `example_of`."""
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
    """Silence torch's long messages about untraceable code: our own error says it."""
    log = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # (LSTMs also keep their weights in a list, which is updated with them.)
            warnings.filterwarnings("ignore", "The tensor attributes .*_flat_weights", UserWarning)
            # (torch 2.13 copies graphs by functions that it has deprecated.)
            warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
            yield
    finally:
        log.setLevel(level)


def drop_unused(program: ExportedProgram) -> None:
    """Drop unused operations, such as the ones a constant has replaced.

    (Checks of the dtype before a cast would otherwise keep the uncast tensor.)
    """
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()


def open_axes(example: Example, longest: int | None) -> tuple[dict[int, Dim], ...]:
    """Make the batch axis dynamic, and the time axis up to the longest sequence."""
    batch, axes = Dim("batch"), []
    for place, _ in enumerate(example.arguments):
        own = {0: batch}
        if place == 0 and example.time is not None:
            own[example.time] = Dim("time", max=longest)
        axes.append(own)
    return tuple(axes)


def refuse(form: Form, module: nn.Module, trace: Callable[[], ExportedProgram]) -> ExportedProgram:
    """Trace, and raise a readable error if a module cannot be traced in a form."""
    try:
        return trace()
    except ValueError:
        raise
    except Exception as error:  # tracing may fail in any way
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
    """Return the form with a name, or refuse an unknown name."""
    try:
        return Form(form)
    except ValueError:
        raise ValueError(
            f"`{form}` is no form: expected one of {', '.join(each.value for each in Form)}."
        ) from None


@on_cpu
def to_program(
    target: LinearRecurrence | nn.Module,
    form: Form | str = Form.SCAN,
    *,
    example: Tensor | None = None,
    length: int | None = None,
) -> ExportedProgram:
    """Export a recurrence or a module with `torch.export`, with dynamic batch and time axes.

    | form | inputs | outputs |
    |---|---|---|
    | `step` | `input (batch, m)`, `state (batch, n)` | `output`, `next_state` |
    | `scan` | `inputs (batch, time, m)`, `state (batch, n)` | `outputs`, `final_state` |
    | `conv`, `fft` | `inputs (batch, time, m)`, from a zero state | `outputs` |

    Args:
        target: the recurrence, or a module that runs recurrences. `step` needs a method `step`.
            `scan` uses a `forward` or `resume` with an `initial_state`; if there is none, or it
            loops in Python, the loop goes over `step`, and without a `step` there are no states.
        form: `step`, `scan`, `conv` or `fft`.
        example (batch, time, m): inputs to trace a module that does not declare its `input_size`;
            or (batch, time) of integers, such as words.
        length: for `conv` and `fft`, the longest sequence, which is the length of the kernel.

    Returns:
        The program; `torch.export.save` writes it.

    Raises:
        ValueError: the target cannot be exported in this form; the message says why, and which
            forms are possible.

    Example:
        >>> import torch, linrec, linrec.export
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> program = linrec.export.to_program(average, "step")
        >>> program.module()(torch.ones(3, 1), torch.zeros(3, 1))[0].flatten()
        tensor([0.5000, 0.5000, 0.5000])
    """
    return trace_form(target, form, example, length)[0]


def save_program(program: ExportedProgram) -> bytes:
    """Serialise an exported program, for `torch.export.load`."""
    content = io.BytesIO()
    torch.export.save(program, content)
    return content.getvalue()
