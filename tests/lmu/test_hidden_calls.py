"""A hidden module is called as what it is: whatever f does, the unit is its definition."""

# What is known to be there is used as such, and modules are changed as users change them.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportOperatorIssue=false, reportOptionalCall=false, reportOptionalMemberAccess=false
# pyright: reportOptionalOperand=false

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, prune

import lmu

INPUTS, CHANNELS, ORDER, THETA, UNITS, STEPS = 3, 2, 4, 20.0, 5, 9
MEMORY = CHANNELS * ORDER


class SigmoidCell(nn.RNNCell):
    def forward(self, x: Tensor, h: Tensor) -> Tensor:  # pyright: ignore
        return torch.sigmoid(x @ self.weight_ih.mT + h @ self.weight_hh.mT + self.bias_ih)


class LeakyCell(nn.RNNCell):
    """Writes into both of its arguments, and returns one of them."""

    def forward(self, x: Tensor, h: Tensor) -> Tensor:  # pyright: ignore
        with torch.no_grad():
            x.mul_(0.5)
        return h.mul_(0.9).add_(torch.tanh(x @ self.weight_ih.mT), alpha=0.1)


class HalvedGRU(nn.GRUCell):
    def forward(self, x: Tensor, h: Tensor) -> Tensor:  # pyright: ignore
        return super().forward(x, h) / 2


class LeakyLSTM(nn.LSTMCell):
    def forward(self, x: Tensor, hx: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:  # pyright: ignore
        h, c = super().forward(x, hx)
        hx[0].zero_()
        hx[1].zero_()
        return h, c / 2


class OwnCell(nn.RNNCellBase):
    def __init__(self, seen: int) -> None:
        super().__init__(seen, UNITS, True, num_chunks=1)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.sin(x @ self.weight_ih.mT + h)


class Overwriter(nn.Module):
    """Returns what it was given, overwritten."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sin_()


class Part(nn.Module):
    """Returns a view that is not contiguous, and spoils the rest."""

    def forward(self, x: Tensor) -> Tensor:
        x[:, 1::2] = 7.0
        return x[:, ::2]


class Reusing(nn.Module):
    """Returns the same storage in every call."""

    kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.kept is None or len(self.kept) != len(x):
            self.kept = x.new_zeros(len(x), 3)
        return self.kept.copy_(x[:, :3])


class Repeated(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1].expand(-1, UNITS)


class Narrow(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float()


def with_own_forward(seen: int) -> nn.Module:
    cell = nn.RNNCell(seen, UNITS)
    cell.forward = lambda x, h: torch.cos(x @ cell.weight_ih.mT) + h / 2
    return cell


def hooked(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda module, given, output: output / 2)
    return module


def told(module: nn.Module) -> nn.Module:
    module.register_forward_pre_hook(lambda module, given: (given[0] * 2, *given[1:]))
    return module


def pruned(seen: int) -> nn.Module:
    cell = nn.RNNCell(seen, UNITS)
    return prune.random_unstructured(cell, "weight_hh", 0.5)


def rectified(made: nn.Module) -> nn.Module:
    return nn.Sequential(made, nn.ReLU(inplace=True))


CELLS: dict[str, Callable[[int], nn.Module]] = {
    "sigmoid": lambda seen: SigmoidCell(seen, UNITS),
    "leaky": lambda seen: LeakyCell(seen, UNITS),
    "halved gru": lambda seen: HalvedGRU(seen, UNITS),
    "leaky lstm": lambda seen: LeakyLSTM(seen, UNITS),
    "own": OwnCell,
    "own forward": with_own_forward,
    "hook": lambda seen: hooked(nn.RNNCell(seen, UNITS)),
    "hook before": lambda seen: told(nn.RNNCell(seen, UNITS)),
    "gru with hook": lambda seen: hooked(nn.GRUCell(seen, UNITS)),
    "pruned": pruned,
    "orthogonal": lambda seen: parametrizations.orthogonal(nn.RNNCell(seen, UNITS), "weight_hh"),
    "weight norm": lambda seen: parametrizations.weight_norm(nn.RNNCell(seen, UNITS), "weight_ih"),
    "compiled": lambda seen: torch.compile(nn.GRUCell(seen, UNITS), backend="eager"),
}
OTHERS: dict[str, Callable[[int], nn.Module]] = {
    "in place": lambda seen: nn.ReLU(inplace=True),
    "in place, first": lambda seen: nn.Sequential(nn.Hardtanh(-0.1, 0.1, inplace=True)),
    "in place, later": lambda seen: rectified(nn.Linear(seen, UNITS)),
    "in place after itself": lambda seen: rectified(nn.Identity()),
    "in place after a view": lambda seen: rectified(nn.Flatten()),
    "dropout in place": lambda seen: nn.Dropout(0.5, inplace=True).eval(),
    "overwritten": lambda seen: Overwriter(),
    "part": lambda seen: Part(),
    "reused": lambda seen: Reusing(),
    "repeated": lambda seen: Repeated(),
    "narrow": lambda seen: Narrow(),
    "identity": lambda seen: nn.Identity(),
    "linear with hook": lambda seen: told(nn.Linear(seen, UNITS)),
    "weight norm of a layer": lambda seen: parametrizations.weight_norm(nn.Linear(seen, UNITS)),
    "spectral norm": lambda seen: parametrizations.spectral_norm(nn.Linear(seen, UNITS)),
    "old weight norm": lambda seen: nn.utils.weight_norm(nn.Linear(seen, UNITS)),
    "norm": lambda seen: nn.BatchNorm1d(seen),
}
MODULES = CELLS | OTHERS
OPTIONS: dict[str, dict[str, bool]] = {
    "none": {},
    "input": {"input_to_hidden": True},
    "hidden": {"hidden_to_memory": True},
    "all": {"hidden_to_memory": True, "memory_to_memory": True, "input_to_hidden": True},
}


def unit(hidden: Callable[[int], nn.Module], **options: Any) -> lmu.LMU:
    torch.manual_seed(0)
    seen = MEMORY + INPUTS * options.get("input_to_hidden", False)
    torch.set_default_dtype(torch.float64)
    try:
        return lmu.LMU(INPUTS, CHANNELS, ORDER, THETA, hidden(seen), **options).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def inputs(*batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*batch, STEPS, INPUTS, generator=generator, dtype=torch.float64)


def defined(made: lmu.LMU, x: Tensor) -> tuple[Tensor, Tensor]:
    """The unit by its definition, f called on what nobody else holds: outputs and final state."""
    A, B, f = made.memory.A, made.memory.B, made.hidden
    m, zeros = torch.zeros(len(x), MEMORY).double(), torch.zeros(len(x), made.output_size).double()
    lstm, cell = isinstance(f, nn.LSTMCell), made.hidden_states and not made.hidden_to_memory
    cell = cell or isinstance(getattr(f, "_orig_mod", f), nn.RNNCellBase)
    h, c, outputs = zeros, zeros, []
    for x_t in x.unbind(1):
        u = made.input_to_memory(x_t)
        u = u if made.hidden_to_memory is None else u + made.hidden_to_memory(h)
        u = u if made.memory_to_memory is None else u + made.memory_to_memory(m)
        m = (m.view(-1, CHANNELS, ORDER) @ A.mT + u.unsqueeze(-1) @ B.mT).flatten(1)
        seen = torch.cat([m, x_t], -1) if made.input_to_hidden else m.clone()
        if lstm:
            h, c = (part.clone() for part in f(seen, (h.clone(), c.clone())))
            output = h
        else:
            output = (f(seen, h.clone()) if cell else f(seen)).clone()
            h = output.double()
        outputs.append(output)
    kept = [m, *([h] if made.hidden_states else []), *([c] if lstm else [])]
    return torch.stack(outputs, 1), torch.cat(kept, -1)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", MODULES)
@torch.no_grad()
def test_every_form_is_the_definition(name: str, options: str) -> None:
    made, x = unit(MODULES[name], **OPTIONS[options]), inputs(3)
    expected, state = defined(made, x)
    first, middle = made(x[:, :4])
    before = middle.clone()
    second, end = made(x[:, 4:], middle)
    assert torch.equal(middle, before)
    torch.testing.assert_close(torch.cat([first, second], 1), expected)
    torch.testing.assert_close(end, state)
    last = made.final(x)
    torch.testing.assert_close(last.outputs, expected[:, -1])
    torch.testing.assert_close(last.final_state, state)
    said, running = [], None
    for step in range(STEPS):
        output, running = made.step(x[:, step], running)
        said.append(output)
    torch.testing.assert_close(torch.stack(said, 1), expected)
    torch.testing.assert_close(running, state)
    lengths = torch.tensor([STEPS, 5, 0])
    padded, ends = made(x, lengths=lengths)
    own = torch.arange(STEPS) < lengths.unsqueeze(-1)
    torch.testing.assert_close(padded, torch.where(own[..., None], expected, 0))
    torch.testing.assert_close(ends[1:2], defined(made, x[1:2, :5])[1])


@pytest.mark.parametrize("name", ["in place", "in place, first", "overwritten", "in place, later"])
@pytest.mark.parametrize("options", OPTIONS)
def test_what_writes_in_place_is_trained_as_what_does_not(name: str, options: str) -> None:
    made, x = unit(MODULES[name], **OPTIONS[options]), inputs(2).requires_grad_()
    weights = [x, *made.parameters()]
    expected = torch.autograd.grad(defined(made, x)[0].square().sum(), weights, allow_unused=True)
    got = torch.autograd.grad(made(x).outputs.square().sum(), weights, allow_unused=True)
    for one, other in zip(got, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", ["before", "after", "everywhere", "backward", "backward before"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("cell", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_hooks_are_called_in_every_step(cell: Any, options: str, kind: str) -> None:
    made, called = unit(lambda seen: cell(seen, UNITS), **OPTIONS[options]), []
    taken = {
        "before": made.hidden.register_forward_pre_hook,
        "after": made.hidden.register_forward_hook,
        "everywhere": register_module_forward_hook,
        "backward": made.hidden.register_full_backward_hook,
        "backward before": made.hidden.register_full_backward_pre_hook,
    }[kind](lambda module, *_: called.append(module) if module is made.hidden else None)
    made(inputs(2)).outputs.sum().backward()
    assert len(called) == STEPS
    taken.remove()
    made(inputs(2)).outputs.sum().backward()
    assert len(called) == STEPS


def test_a_module_may_be_changed_or_replaced() -> None:
    made, x = unit(lambda seen: nn.RNNCell(seen, UNITS), hidden_to_memory=True), inputs(2)
    replaced = (nn.RNNCell(MEMORY, UNITS, nonlinearity="relu"), nn.GRUCell(MEMORY, UNITS))
    for hidden in (*replaced, nn.LSTMCell(MEMORY, UNITS), nn.Linear(MEMORY, UNITS)):
        made.hidden = hidden.double()
        expected, state = defined(made, x)
        outputs, end = made(x)
        torch.testing.assert_close(outputs, expected)
        torch.testing.assert_close(end, state)
        assert end.shape[-1] == made.state_size
    made.hidden = nn.RNNCell(MEMORY, UNITS).double()
    parametrizations.orthogonal(made.hidden, "weight_hh")
    torch.testing.assert_close(made(x).outputs, defined(made, x)[0])
    made.hidden = nn.RNNCell(MEMORY, UNITS).double()
    made.hidden.nonlinearity = "relu"
    torch.testing.assert_close(made(x).outputs, defined(made, x)[0])
    made.hidden.nonlinearity = "sigmoid"
    with pytest.raises(RuntimeError, match="Unknown nonlinearity: sigmoid"):
        made(x)
    for hidden, message in (
        (nn.LSTM(MEMORY, UNITS), "returns a tuple"),
        (nn.Linear(MEMORY, UNITS + 1), r"returned shape \(2, 6\): expected \(2, 5\)"),
    ):
        made.hidden = hidden.double()
        with pytest.raises((TypeError, ValueError), match=message):
            made(x)
    for takes in (MEMORY + 1, MEMORY - 1):  # not the first columns of a wider one
        made.hidden = nn.RNNCell(takes, UNITS).double()
        with pytest.raises(RuntimeError):
            made(x)


class Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ["batch norm", "without statistics", "own"])
def test_padding_has_no_effect_on_what_mixes_rows(name: str, options: str) -> None:
    """A batch of which one sequence is padded, with other steps and other sequences of no steps."""

    def hidden(seen: int) -> nn.Module:
        norm = nn.BatchNorm1d(seen, track_running_stats=name == "batch norm")
        return Centred() if name == "own" else norm

    made, x = unit(hidden, **OPTIONS[options]).train(), inputs(5)
    lengths = torch.tensor([7, 4, 7, 0, 7])
    others = torch.cat([x, torch.randn(5, 30, INPUTS).double()], 1)
    outputs, state = made(x, lengths=lengths)
    again = copy.deepcopy(made)(others, lengths=lengths)
    torch.testing.assert_close(again.outputs[:, :STEPS], outputs)
    torch.testing.assert_close(again.final_state, state)
    if options in ("none", "input"):
        m = made.memory(made.input_to_memory(x), lengths=lengths).outputs
        rows = torch.cat([m, x], -1) if made.input_to_hidden else m
        own = torch.arange(STEPS) < lengths.unsqueeze(-1)
        torch.testing.assert_close(outputs[own], made.hidden(rows[own]))


def test_dropout_of_a_hidden_module_draws_for_each_step() -> None:
    for options in ({}, {"hidden_to_memory": True}):
        made = unit(lambda seen: nn.Sequential(nn.Linear(seen, 50), nn.Dropout(0.5)), **options)
        dropped = made.train()(inputs(40)).outputs == 0
        share = dropped.double().mean()
        spread = 0.5 / dropped.numel() ** 0.5
        assert abs(share - 0.5) < 5 * spread
        assert not torch.equal(dropped[:, 0], dropped[:, 1])


def test_no_module_lets_the_input_around() -> None:
    made, x = lmu.LMU(INPUTS, CHANNELS, ORDER, THETA, input_to_hidden=True), inputs(2).float()
    without = lmu.LMU(INPUTS, CHANNELS, ORDER, THETA)
    without.load_state_dict(made.state_dict())
    expected = torch.cat([without(x).outputs, x], -1)
    assert made.output_size == MEMORY + INPUTS and made.state_size == MEMORY
    torch.testing.assert_close(made(x).outputs, expected)
    torch.testing.assert_close(made.final(x).outputs, expected[:, -1])
    torch.testing.assert_close(made.step(x[:, 0]).outputs, expected[:, 0])


@pytest.mark.parametrize("kind", [lmu.LMU, lmu.LMUCell])
def test_what_no_unit_can_be_made_of(kind: Any) -> None:
    class Two(nn.RNNCell):
        def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore
            return h, h

    class Wide(nn.RNNCell):
        def forward(self, x: Tensor, h: Tensor) -> Tensor:  # pyright: ignore
            return torch.cat([h, h], -1)

    for hidden, message in (
        (nn.RNNCell(MEMORY, UNITS, nonlinearity="sigmoid"), "nonlinearity='sigmoid': expected"),
        (Two(MEMORY, UNITS), "type Two and returns a tuple"),
        (Wide(MEMORY, UNITS), "returned 10 numbers: expected 5"),
        (SigmoidCell(MEMORY + 1, UNITS), "does not take 8 numbers"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            kind(INPUTS, CHANNELS, ORDER, THETA, hidden)


def test_initialisers_leave_alone_what_is_parametrised() -> None:
    for name in ("spectral norm", "weight norm of a layer", "old weight norm"):
        hidden = MODULES[name](MEMORY)
        before = {key: value.clone() for key, value in hidden.state_dict().items()}
        lmu.LMU(INPUTS, CHANNELS, ORDER, THETA, hidden)
        assert all(torch.equal(value, before[key]) for key, value in hidden.state_dict().items())


def test_a_module_is_tried_without_a_trace() -> None:
    norm = nn.BatchNorm1d(MEMORY)
    old = nn.utils.weight_norm(nn.Linear(MEMORY, MEMORY))
    old.train()
    hidden = nn.Sequential(old, norm, nn.Dropout())
    lmu.LMU(INPUTS, CHANNELS, ORDER, THETA, hidden)
    assert all(module.training for module in hidden.modules())
    assert norm.num_batches_tracked == 0 and not norm.running_mean.any()


@pytest.mark.parametrize("projected", [False, True])
def test_activations_in_place_leave_the_inputs_as_they_were(projected: bool) -> None:
    def made(inplace: bool) -> lmu.ParallelLMU:
        torch.manual_seed(0)
        options = {"input_activation": nn.ReLU(inplace), "activation": nn.ReLU(inplace)}
        return lmu.ParallelLMU(2, UNITS, 2, ORDER, THETA, input_projection=projected, **options)

    x = torch.randn(3, STEPS, 2)
    before = x.clone()
    for form in ("forward", "final", "step"):
        given = x[:, 0] if form == "step" else x
        got, expected = (getattr(made(inplace), form)(given) for inplace in (True, False))
        assert torch.equal(x, before)
        assert all(map(torch.equal, got, expected))
