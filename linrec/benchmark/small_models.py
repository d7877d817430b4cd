"""Training steps of small models, compared with the same models in plain torch.

In small models a step is mostly overhead: a library's checks and preparations cost as much as its
arithmetic. The plain forms are written by hand for one model alone: a loop over the steps, a
convolution by FFT with a kernel in closed form, a sum in logarithms. They have the layer's own
parameters and give its outputs.

References:
    Feng et al. 2024, Were RNNs All We Needed?, appendix B (minGRU in logarithms); Gu et al. 2022,
    On the Parameterization and Initialization of Diagonal State Space Models, section 3.3 (S4D).
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from linrec.benchmark.cases import legendre
from linrec.benchmark.recurrences import quickest
from linrec.nn import S4D, MinGRU, Recurrence

BATCH, STEPS = 8, (64, 256)
ORDER, WIDTH = 16, 32

Form = Callable[[Tensor], Tensor]


class SmallModel(NamedTuple):
    """A layer, and plain forms of it.

    Attributes:
        make: makes the layer.
        inputs: the number of inputs of a step.
        plain: functions that make forms of the layer for a number of steps, by name.
    """

    make: Callable[[], nn.Module]
    inputs: int
    plain: Mapping[str, Callable[[Any, int], Form]]


def matrices_of(layer: Recurrence) -> tuple[Tensor, Tensor]:
    """Return A and B of a dense system with inputs."""
    system = layer.recurrence
    assert system.B is not None
    return system.A.to_dense(), system.B


def memory_in_a_loop(layer: Recurrence, steps: int) -> Form:
    """Step a dense system, x_t = A x_{t-1} + B u_t."""

    def run(inputs: Tensor) -> Tensor:
        A, B = matrices_of(layer)
        driven, state, states = inputs @ B.mT, inputs.new_zeros(len(inputs), len(A)), []
        for step in range(steps):
            state = torch.addmm(driven[:, step], state, A.mT)
            states.append(state)
        return torch.stack(states, 1)

    return run


def memory_by_transform(layer: Recurrence, steps: int) -> Form:
    """Convolve with the kernel A^k B, which is computed once."""
    with torch.no_grad():
        A, B = matrices_of(layer)
        columns = [B]
        for _ in range(steps - 1):
            columns.append(A @ columns[-1])
        spectrum = torch.fft.rfft(torch.cat(columns, 1), 2 * steps)

    def run(inputs: Tensor) -> Tensor:
        product = torch.fft.rfft(inputs.mT, 2 * steps) * spectrum
        return torch.fft.irfft(product, 2 * steps)[..., :steps].mT

    return run


def gru_in_a_loop(layer: MinGRU, steps: int) -> Form:
    """Step a minGRU, h_t = (1 - z_t) h_{t-1} + z_t g(h̃_t)."""

    def run(inputs: Tensor) -> Tensor:
        z, candidate = layer.projection(inputs).chunk(2, -1)
        kept, added = torch.sigmoid(-z), torch.sigmoid(z) * layer.activation(candidate)
        state, states = torch.zeros_like(added[:, 0]), []
        for step in range(steps):
            state = torch.addcmul(added[:, step], kept[:, step], state)
            states.append(state)
        return torch.stack(states, 1)

    return run


def gru_in_logarithms(layer: MinGRU, steps: int) -> Form:
    """Sum a minGRU in logarithms, as in its paper."""

    def run(inputs: Tensor) -> Tensor:
        z, candidate = layer.projection(inputs).chunk(2, -1)
        positive = (torch.relu(candidate) + 0.5).log()
        log_candidate = torch.where(candidate >= 0, positive, -softplus(-candidate))
        decayed = (-softplus(z)).cumsum(1)
        return (decayed + (log_candidate - softplus(-z) - decayed).logcumsumexp(1)).exp()

    return run


def s4d_by_transform(layer: S4D, steps: int) -> Form:
    """Convolve with the kernel of S4D, 2 Re Σ_n C_n (e^(Λ_n Δ) - 1) / Λ_n e^(Λ_n Δ k)."""

    def run(inputs: Tensor) -> Tensor:
        poles = torch.complex(-layer.log_decay.exp(), layer.frequency)
        sampled = poles * layer.log_dt.exp().unsqueeze(-1)
        weights = torch.view_as_complex(layer.C) * torch.expm1(sampled) / poles
        powers = (sampled.unsqueeze(-1) * torch.arange(steps)).exp()
        kernel = 2 * torch.einsum("hn,hnk->hk", weights, powers).real
        spectrum = torch.fft.rfft(kernel, 2 * steps)
        product = torch.fft.rfft(inputs.mT, 2 * steps) * spectrum
        convolved = torch.fft.irfft(product, 2 * steps)[..., :steps].mT
        return convolved + layer.D * inputs

    return run


MODELS: dict[str, SmallModel] = {
    "memory, 16 states": SmallModel(
        lambda: Recurrence(legendre(ORDER, 64.0)),
        1,
        {"loop": memory_in_a_loop, "transform": memory_by_transform},
    ),
    "memory, trained": SmallModel(
        lambda: Recurrence(legendre(ORDER, 64.0), trainable=["A", "B"]),
        1,
        {"loop": memory_in_a_loop},
    ),
    "MinGRU of 32": SmallModel(
        lambda: MinGRU(WIDTH, WIDTH),
        WIDTH,
        {"loop": gru_in_a_loop, "logarithms": gru_in_logarithms},
    ),
    "S4D of 32": SmallModel(lambda: S4D(WIDTH), WIDTH, {"transform": s4d_by_transform}),
}


def forms_of(model: SmallModel, steps: int) -> tuple[nn.Module, dict[str, Form]]:
    """Make a layer and all its forms, linrec's first."""
    layer = model.make()
    forms: dict[str, Form] = {"ours": lambda inputs: layer(inputs)[0]}
    return layer, forms | {name: make(layer, steps) for name, make in model.plain.items()}


def forward(form: Form, inputs: Tensor) -> None:
    """Compute only the outputs."""
    with torch.no_grad():
        form(inputs)


def train(form: Form, layer: nn.Module, inputs: Tensor, weights: Tensor) -> None:
    """Compute the outputs and the gradients in inputs and parameters."""
    layer.zero_grad()
    inputs.grad = None
    (weights * form(inputs)).sum().backward()


def measure_small_models(seconds: float, quick: bool = False) -> Iterator[dict[str, Any]]:
    """Time small models and their plain forms in turn.

    Args:
        seconds: how long the forms take turns, for each model, number of steps and kind of call.
        quick: whether to take fewer turns.

    Returns:
        Rows of model, steps, what ("forward" or "training step") and seconds by form.
    """
    torch.manual_seed(0)
    for name, model in MODELS.items():
        for steps in STEPS:
            layer, forms = forms_of(model, steps)
            inputs = torch.randn(BATCH, steps, model.inputs, requires_grad=True)
            weights = torch.randn_like(forms["ours"](inputs))
            once = {which: partial(forward, form, inputs) for which, form in forms.items()}
            whole = {
                which: partial(train, form, layer, inputs, weights) for which, form in forms.items()
            }
            for what, calls in (("forward", once), ("training step", whole)):
                taken = quickest(calls, seconds, 1 if quick else 3)
                yield {"model": name, "steps": steps, "what": what, "seconds": taken}
