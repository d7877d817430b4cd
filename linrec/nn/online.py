"""Learning online: exact gradients, forward in time."""

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from linrec.executors import Result
from linrec.nn.checks import check_step
from linrec.nn.pretrained import Pretrained
from linrec.nn.recurrent import RecurrentLayer, real
from linrec.systems import LinearRecurrence

PROBES = 3  # random inputs that are tried to find which state a parameter moves


class OnlineState(NamedTuple):
    """A layer's state, and its derivatives with respect to the layer's parameters.

    `states (*batch, units)` are the recurrence's, and complex if it is; `traces` has a tensor
    `(*batch, *parameter.shape)` for each parameter that moves states.
    """

    states: Tensor
    traces: dict[str, Tensor]


class OnlineLayer(Pretrained, nn.Module):
    """A layer that learns at every step, without going back in time.

        x_t = a_t ∘ x_{t-1} + b_t        e_t = a_t ∘ e_{t-1} + ∂a_t/∂θ ∘ x_{t-1} + ∂b_t/∂θ

    e = dx/dθ is the derivative through the whole past, carried forward (real-time recurrent
    learning). In a diagonal recurrence each parameter moves one state, so e has as many numbers as
    there are parameters; with a full matrix it would have n times as many. The outputs of a step
    are differentiable: `loss.backward()` adds the gradient of backpropagation through all steps so
    far, although no step keeps the graph of the previous one. If parameters change from step to
    step, e mixes the derivatives at their past values.

    The gradient with respect to the step's *input* is of this step only, so a layer below learns
    from the present alone (Zucchet et al. 2023, section 3, measure the cost).

    Args:
        layer: a layer whose recurrence is diagonal and whose parameters move one state each:
            `EMA`, `LRU`, `S5`, `MinGRU`, `MinLSTM`, or one of your own. (The time step of a
            channel of `S4D` moves all of its states.)

    Raises:
        TypeError: the layer is not a `RecurrentLayer`.
        ValueError: its recurrence is not diagonal, or a parameter moves several states; the
            message names the parameter.

    Example:
        >>> import torch, linrec
        >>> online = linrec.nn.OnlineLayer(linrec.nn.MinGRU(input_size=1, hidden_size=4))
        >>> optimizer, state = torch.optim.SGD(online.parameters(), lr=0.1), None
        >>> for sample in torch.randn(5, 2, 1):  # five steps of two series
        ...     outputs, state = online.step(sample, state)
        ...     outputs.square().mean().backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        >>> state.traces["projection.weight"].shape
        torch.Size([2, 8, 1])

    References:
        Williams and Zipser 1989, A learning algorithm for continually running fully recurrent
        neural networks. Mozer 1989, A focused backpropagation algorithm (diagonal recurrences).
        Zucchet, Meier, Schug, Mujika and Sacramento 2023, Online learning of long-range
        dependencies.
    """

    def __init__(self, layer: RecurrentLayer) -> None:
        super().__init__()
        if not isinstance(layer, RecurrentLayer):
            raise TypeError(
                f"`layer` is of type {type(layer).__name__}: expected a linrec.nn.RecurrentLayer, "
                "such as `linrec.nn.LRU`."
            )
        self.layer = layer
        self.moves = find_states(layer)  # for each parameter, the state that each number moves

    def step(self, input: Tensor, state: OnlineState | None = None) -> Result:
        """Run one step.

        Args:
            input (*batch, input_size): x_t.
            state: the state that the previous step returned. None: zeros.

        Returns:
            `outputs (*batch, output_size)`, differentiable with respect to the parameters through
            the whole past, and the `OnlineState` as `state`.
        """
        check_step(self.layer, input)
        batch = input.shape[:-1]
        before = self.starting(input) if state is None else state
        if before.states.shape[:-1] != batch:
            raise ValueError(
                f"`state` is of {tuple(before.states.shape[:-1])} series and `input` of "
                f"{tuple(batch)}: expected as many."
            )
        parameters = dict(self.layer.named_parameters())
        fixed = {name: value.detach() for name, value in parameters.items()}
        moved, parts = {name: fixed[name] for name in self.moves}, Parts(self.layer)
        rows, flat = (each.reshape(-1, each.shape[-1]) for each in (input, before.states))
        # Through the input of this step as usual; then, at the value 0, through the traces.
        gates, added = parts.given(fixed, rows)
        states = (gates * flat + added).reshape(before.states.shape)
        now, traces = derivatives(parts, fixed, moved, rows.detach(), flat), {}
        for name, place in self.moves.items():
            old = before.traces[name].reshape(len(rows), *place.shape)
            trace = gates.detach()[:, place] * old + now[name]
            traces[name] = trace.reshape(*batch, *place.shape)
        final = states.detach()
        for name, place in self.moves.items():
            change = parameters[name] - parameters[name].detach()
            given = (traces[name] * change).flatten(len(batch))
            states = states.index_add(-1, place.flatten(), given.to(states.dtype))
        return Result(self.read(states, input), cast(Tensor, OnlineState(final, traces)))

    def forward(self, inputs: Tensor, state: OnlineState | None = None) -> Result:
        """Run all steps without learning, and return the outputs of each."""
        outputs = []
        for each in inputs.unbind(-2):
            now, state = cast(tuple[Tensor, OnlineState], self.step(each, state))
            outputs.append(now)
        return Result(torch.stack(outputs, -2), cast(Tensor, state))

    def read(self, states: Tensor, input: Tensor) -> Tensor:
        """Read a step's outputs from its states."""
        recurrence, drive = of_step(self.layer, input)
        heads = drive.ndim - input.ndim
        if heads:
            states = states.unflatten(-1, (*drive.shape[-1 - heads : -1], recurrence.state_size))
        read = recurrence.read(states, drive.to(states.dtype))
        read = real(read.flatten(read.ndim - 1 - heads)).to(input.dtype)
        return self.layer.read_out(read, input)

    def starting(self, input: Tensor) -> OnlineState:
        """Make the state before the first step and its derivatives, all zeros."""
        batch = input.shape[:-1]
        with torch.no_grad():
            gates, _ = Parts(self.layer)(input)
        zeros = torch.zeros_like(gates)
        traces = {name: zeros.new_zeros(*batch, *place.shape) for name, place in self.moves.items()}
        return OnlineState(zeros, traces)


class Parts(nn.Module):
    """A module that computes a and b of one step, for given parameters."""

    def __init__(self, layer: RecurrentLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Compute a and b.

        Args:
            inputs (*batch, input_size): x of one step.

        Returns:
            a and b, both `(*batch, units)`, with all heads side by side.
        """
        recurrence, drive = of_step(self.layer, inputs)
        diagonal = recurrence.A.as_diagonal()
        if diagonal is None or recurrence.copies > 1:
            form = type(recurrence.A).__name__ if diagonal is None else "copies of a diagonal"
            raise ValueError(
                f"The recurrence of {type(self.layer).__name__} is {form}: expected a diagonal A, "
                "for which the derivatives forward in time are as many as the parameters."
            )
        added = recurrence.drive(drive.to(recurrence.dtype))
        before = inputs.ndim - 1
        return diagonal.expand_as(added).flatten(before), added.flatten(before)

    def given(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Compute a and b with the given parameters instead of the layer's own."""
        named = {f"layer.{name}": value for name, value in parameters.items()}
        return cast(tuple[Tensor, Tensor], functional_call(self, named, (inputs,)))


def of_step(layer: RecurrentLayer, inputs: Tensor) -> tuple[LinearRecurrence, Tensor]:
    """Make the recurrence of one step, and its inputs `(*batch, *heads, m)`."""
    recurrence, drive = layer.recurrence(inputs.unsqueeze(-2))
    return recurrence.at(0), drive.squeeze(-2)


def derivatives(
    parts: Parts, fixed: dict[str, Tensor], moved: dict[str, Tensor], inputs: Tensor, states: Tensor
) -> dict[str, Tensor]:
    """Differentiate a ∘ x + b with respect to each parameter, for each series, at fixed x.

    Each parameter moves one state, so the derivative of the sum over states is that state's.
    """

    def total(moved: dict[str, Tensor], x: Tensor, state: Tensor, imaginary: bool) -> Tensor:
        gates, added = parts.given({**fixed, **moved}, x)
        new = gates * state + added
        return (new.imag if imaginary else real(new)).sum()

    each = vmap(grad(total), in_dims=(None, 0, 0, None))
    found = each(moved, inputs, states, False)
    if not states.is_complex():
        return found
    turned = each(moved, inputs, states, True)
    return {name: torch.complex(found[name], turned[name]) for name in found}


def find_states(layer: RecurrentLayer) -> dict[str, Tensor]:
    """Find which state each number of each parameter moves, from derivatives at random inputs.

    Parameters that move no state (they only affect outputs) are left out.
    """
    parameters = {name: each for name, each in layer.named_parameters() if each.requires_grad}
    parts, generator = Parts(layer), torch.Generator("cpu").manual_seed(0)
    first = next(iter(parameters.values()), torch.zeros(1))

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device="cpu").to(first)

    places = {name: torch.full_like(each, -1).long() for name, each in parameters.items()}
    for _ in range(PROBES):
        with torch.enable_grad():
            gates, added = parts(drawn(layer.input_size))
            new = gates * drawn(gates.shape[-1]) + added
            seen = new.real + 0.618 * new.imag if new.is_complex() else new
        for unit in range(len(seen)):
            found = torch.autograd.grad(
                seen[unit], list(parameters.values()), retain_graph=True, allow_unused=True
            )
            for name, gradient in zip(parameters, found, strict=True):
                if gradient is None:
                    continue
                touched, place = gradient != 0, places[name]
                if (touched & (place >= 0) & (place != unit)).any():
                    raise ValueError(
                        f"`{name}` of {type(layer).__name__} moves several states: expected "
                        "parameters that move one state each. Learn it by backpropagation, or give "
                        "each state a parameter of its own."
                    )
                places[name] = torch.where(touched, unit, place)
    moving = {name: place for name, place in places.items() if (place >= 0).any()}
    for name, place in moving.items():
        if (place < 0).any():
            raise ValueError(
                f"Some numbers of `{name}` of {type(layer).__name__} moved no state in "
                f"{PROBES} drawn steps: expected all of a parameter to, or none."
            )
    return moving
