"""How what was exported is run and judged: as a share of the bound of its form."""

import numpy as np
import torch
from torch import Tensor, nn

import linrec
from linrec.export import Form
from linrec.testing import error_bound
from tests.cases import SYSTEMS, TRANSITIONS, data

LENGTH = 64
# By whose bound a form is judged.
EXECUTORS = {
    Form.STEP: linrec.Recurrent(),
    Form.SCAN: linrec.Recurrent(),
    Form.CONV: linrec.Toeplitz(),
    Form.FFT: linrec.FFTConvolution(),
}
SIZES = ((1, 1), (2, 3), (33, 2), (LENGTH, 1))  # of sequences and batches


class Program:
    """A program of torch or a package, run as onnxruntime runs a model."""

    def __init__(self, program, form: Form) -> None:
        self.program = program
        self.count = 1 if form in (Form.CONV, Form.FFT) else 2

    def get_inputs(self) -> list:
        """Name the inputs."""
        return [type("Input", (), {"name": str(place)}) for place in range(self.count)]

    def run(self, _: None, fed: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Run over arrays."""
        found = self.program(*(torch.from_numpy(each) for each in fed.values()))
        found = [found] if isinstance(found, Tensor) else found
        return [each.detach().numpy() for each in found]


def answers(running, *given: Tensor) -> list[Tensor]:
    names = [each.name for each in running.get_inputs()]
    fed = {name: each.numpy() for name, each in zip(names, given, strict=True)}
    return [torch.from_numpy(each) for each in running.run(None, fed)]


def streamed(running, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Run the model of a step over all steps."""
    outputs = []
    for input in inputs.unbind(-2):
        output, state = answers(running, input.contiguous(), state)
        outputs.append(output)
    return torch.stack(outputs, -2), state


def largest_share(
    recurrence: linrec.LinearRecurrence, form: Form, running, length: int, batch: int
) -> float:
    """Return the largest error of a model, as a share of the bound of its form."""
    inputs, state = data(recurrence, length, batch)
    if form in (Form.CONV, Form.FFT):
        got = answers(running, inputs)
        # The transforms are of the kernel's length, whatever the sequence's.
        whole = nn.functional.pad(inputs, (0, 0, 0, LENGTH - length))
        bounds = [error_bound(recurrence, whole, EXECUTORS[form]).outputs[..., :length, :]]
        exact = [linrec.run(recurrence.to(torch.float64), inputs.double()).outputs]
    else:
        got = (
            streamed(running, inputs, state)
            if form is Form.STEP
            else answers(running, inputs, state)
        )
        bounds = error_bound(recurrence, inputs, EXECUTORS[form], state)
        exact = linrec.run(recurrence.to(torch.float64), inputs.double(), state.double())
    return max(
        float(((mine - theirs).abs() / bound.clamp(min=1e-300)).max())
        for mine, theirs, bound in zip(got, exact, bounds, strict=True)
    )


def single(transition: str, system: str) -> linrec.LinearRecurrence:
    return SYSTEMS[system](TRANSITIONS[transition]()).to(torch.float32)
