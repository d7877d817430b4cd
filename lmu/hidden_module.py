"""How the unit of 2019 calls its hidden module, h_t = f(m_t, x_t; h_{t-1})."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.modules.batchnorm import _BatchNorm

CELLS = (nn.RNNCell, nn.GRUCell, nn.LSTMCell)

# Modules that never write into their arguments, nor return them.
READERS = (*CELLS, nn.Linear, nn.LayerNorm, nn.Tanh, nn.Sigmoid, nn.GELU, nn.Softmax)

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}

States = tuple[Tensor, ...]


class HiddenCall(ABC):
    """The hidden module, as called in all steps of one call of a unit.

    Between calls the module can change: hooks are added, weights are parametrised, another module
    takes its place. So each call of the unit makes a new object of this class.
    """

    def inputs(self, inputs: Tensor) -> Tensor:
        """Prepare `inputs (rows, time, input_size)` for `step`, all steps at once."""
        return inputs

    @abstractmethod
    def step(
        self, memory: Tensor, inputs: Tensor, states: States, own: Tensor | None = None
    ) -> tuple[Tensor, States]:
        """Run one step, or, if there are no states, all steps as rows.

        Args:
            memory (rows, channels·order): m_t.
            inputs (rows, features): the result of `inputs` for the step.
            states: h_{t-1}, and c_{t-1} of an LSTM, each `(rows, output_size)`.
            own (rows, 1): True in rows that are not padding. None: no row is padding.

        Returns:
            `output (rows, output_size)`, and the states for the next step.
        """


@dataclass(frozen=True, eq=False)
class NoModule(HiddenCall):
    """No hidden module: h is the memory, followed by the input if `sees_input`.

    Args:
        sees_input: whether h includes the input.
    """

    sees_input: bool

    def step(
        self, memory: Tensor, inputs: Tensor, states: States, own: Tensor | None = None
    ) -> tuple[Tensor, States]:
        """Run one step; arguments and result as of `HiddenCall.step`."""
        return (torch.cat([memory, inputs], -1) if self.sees_input else memory), ()


class PlainRNN(HiddenCall):
    """An `nn.RNNCell` taken apart: h_t = f(W_m m_t + W_h h_{t-1} + (W_x x_t + b)).

    The inner bracket is computed for all steps at once. The products are added up, since
    concatenating m and x would cost a copy in each step.

    Args:
        cell: a cell for which `is_plain` holds, with a known nonlinearity.
        memory_size: channels·order.
    """

    def __init__(self, cell: nn.RNNCell, memory_size: int) -> None:
        self.cell, self.memory_size = cell, memory_size
        self.W_h, self.W_m = cell.weight_hh.mT, cell.weight_ih[:, :memory_size].mT
        self.activation = ACTIVATIONS[cell.nonlinearity]

    def inputs(self, inputs: Tensor) -> Tensor:
        """Compute W_x x + b for all steps."""
        cell = self.cell
        bias = inputs.new_zeros(cell.hidden_size) if cell.bias_ih is None else cell.bias_ih
        bias = bias if cell.bias_hh is None else bias + cell.bias_hh
        W_x = cell.weight_ih[:, self.memory_size :]
        return linear(inputs, W_x, bias) if W_x.numel() else bias.expand(*inputs.shape[:2], -1)

    def step(
        self, memory: Tensor, inputs: Tensor, states: States, own: Tensor | None = None
    ) -> tuple[Tensor, States]:
        """Run one step; arguments and result as of `HiddenCall.step`."""
        both = torch.addmm(torch.addmm(inputs, states[0], self.W_h), memory, self.W_m)
        output = self.activation(both)
        return output, (output,)


class ModuleCall(HiddenCall):
    """A call of any module, as it is.

    A module may write into its arguments, return a part of them, or keep and reuse its results. So
    it gets copies of arguments that are also the unit's state, and results of modules that are not
    torch's own are copied.

    Args:
        module: the hidden module.
        sees_input: whether it is given x after m.
        output_size: the size of its outputs.
        states: how many state tensors are kept from step to step.
        dtype: the unit's dtype, in which states are kept.
        padded: whether some rows may be padding.
    """

    def __init__(
        self,
        module: nn.Module,
        sees_input: bool,
        output_size: int,
        states: int,
        dtype: torch.dtype,
        padded: bool,
    ) -> None:
        self.module, self.sees_input, self.output_size = module, sees_input, output_size
        self.recurrent, self.gated, self.count = is_cell(module), is_lstm(module), states
        self.dtype = dtype
        self.foreign = not all(is_of_torch(each) for each in module.modules())
        self.copies_memory = not (sees_input or only_reads(module))
        self.copies_states = not is_plain(module, CELLS)
        self.picks_rows = padded and (self.foreign or any(map(mixes_rows, module.modules())))

    def step(
        self, memory: Tensor, inputs: Tensor, states: States, own: Tensor | None = None
    ) -> tuple[Tensor, States]:
        """Run one step; arguments and result as of `HiddenCall.step`."""
        if self.sees_input:
            seen = torch.cat([memory, inputs], -1)
        else:
            seen = memory.clone() if self.copies_memory else memory
        if self.recurrent and self.copies_states:
            states = tuple(state.clone() for state in states)
        rows = number_rows(own) if own is not None and self.picks_rows else None
        if rows is None:
            return self.called(seen, states)
        if not rows.shape[0]:
            return seen.new_zeros(seen.shape[0], self.output_size), states
        output, after = self.called(seen[rows], tuple(state[rows] for state in states))
        return scatter_rows(output, rows, seen), tuple(
            scatter_rows(state, rows, seen) for state in after
        )

    def called(self, seen: Tensor, states: States) -> tuple[Tensor, States]:
        """Call the module, and check its result."""
        told: tuple[object, ...] = ((states,) if self.gated else states) if self.recurrent else ()
        result = self.module(seen, *told)
        pair = self.gated and isinstance(result, tuple) and len(result) == 2
        given = [self.check_result(each, seen) for each in (result if pair else (result,))]
        after = given if self.recurrent else given[:1] * self.count
        return given[0], tuple(state.to(self.dtype) for state in after)

    def check_result(self, result: object, seen: Tensor) -> Tensor:
        """Check that a result is a tensor of the unit's output size."""
        if not isinstance(result, Tensor):
            raise TypeError(wrong_type(self.module, result, seen.shape[-1]))
        shape = (seen.shape[0], self.output_size)
        if tuple(result.shape) != shape:
            raise ValueError(
                f"`hidden` returned shape {tuple(result.shape)}: expected {shape}, as when the "
                "unit was made. Make a new unit of another hidden module."
            )
        return result.clone() if self.foreign else result


def make_hidden_call(
    module: nn.Module | None,
    memory_size: int,
    input_size: int,
    output_size: int,
    states: int,
    dtype: torch.dtype,
    padded: bool = False,
) -> HiddenCall:
    """Choose how to call a hidden module.

    Args:
        module: the hidden module.
        memory_size: channels·order.
        input_size: the size of x if the module is given it, else 0.
        output_size: the size of h.
        states: how many tensors are kept for the next step.
        dtype: the unit's dtype.
        padded: whether some rows may be padding.
    """
    if module is None:
        return NoModule(input_size > 0)
    # Any other module, such as a replacement of another size, is called as it is, and fails with
    # torch's own message where it does not fit.
    if (
        isinstance(module, nn.RNNCell)
        and is_plain(module, (nn.RNNCell,))
        and tuple(module.weight_ih.shape) == (output_size, memory_size + input_size)
        and module.nonlinearity in ACTIVATIONS
    ):
        return PlainRNN(module, memory_size)
    return ModuleCall(module, input_size > 0, output_size, states, dtype, padded)


def is_plain(module: nn.Module, types: tuple[type[nn.Module], ...]) -> bool:
    """Return whether calling a module runs the forward of one of these classes and nothing else.

    It does not for a subclass (parametrising a module makes one), with hooks, or where the
    instance has a forward of its own.
    """
    return (
        type(module) in types
        and "forward" not in module.__dict__
        and not (
            module._forward_hooks
            or module._forward_pre_hooks
            or module._backward_hooks
            or module._backward_pre_hooks
            or any_global_hook()
        )
    )


def any_global_hook() -> bool:
    """Return whether there are global hooks, as from `register_module_forward_hook`."""
    return bool(torch.nn.modules.module._has_any_global_hook())


def only_reads(module: nn.Module) -> bool:
    """Return whether a module is known not to write into its arguments."""
    while is_plain(module, (nn.Sequential,)) and len(module):  # pyright: ignore[reportArgumentType]
        module = module[0]  # pyright: ignore[reportIndexIssue]  # a Sequential
    return is_plain(module, READERS)


def is_of_torch(module: nn.Module) -> bool:
    """Return whether a module's forward is torch's own."""
    return type(module).__module__.startswith("torch.nn.") and "forward" not in module.__dict__


def mixes_rows(module: nn.Module) -> bool:
    """Return whether a module of torch uses other rows to compute a row."""
    return isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)


def number_rows(own: Tensor) -> Tensor | None:
    """Return the numbers of the rows where `own (rows, 1)` holds; None if values are not known."""
    if torch.compiler.is_compiling():
        return None
    try:
        return own.squeeze(-1).nonzero().squeeze(-1)
    except RuntimeError:  # values cannot be inspected inside vmap
        return None


def scatter_rows(values: Tensor, rows: Tensor, like: Tensor) -> Tensor:
    """Put `values` into their rows, with zeros between them."""
    return values.new_zeros(like.shape[0], values.shape[-1]).index_copy(0, rows, values)


def unwrap(module: nn.Module | None) -> nn.Module | None:
    """Return the module inside the wrapper of `torch.compile`."""
    return module if module is None else module._modules.get("_orig_mod", module)


def is_cell(module: nn.Module | None) -> bool:
    """Return whether a hidden module is given its own state of the previous step."""
    return isinstance(unwrap(module), nn.RNNCellBase)


def is_lstm(module: nn.Module | None) -> bool:
    """Return whether a hidden module is an LSTM cell, whose state is a pair."""
    return isinstance(unwrap(module), nn.LSTMCell)


def infer_output_size(module: nn.Module, seen: int) -> int:
    """Find the number of outputs of a hidden module, and check that it takes `seen` numbers.

    Unless it is one of torch's cells, the module is called on zeros, or a copy of it if possible.
    """
    cell = unwrap(module)
    if type(cell) in CELLS:
        assert isinstance(cell, nn.RNNCellBase)
        if cell.input_size != seen:
            raise ValueError(wrong_size(cell.input_size, seen))
        if isinstance(cell, nn.RNNCell) and cell.nonlinearity not in ACTIVATIONS:
            raise ValueError(
                f"`hidden` has nonlinearity={cell.nonlinearity!r}: expected one of "
                f"{[*ACTIVATIONS]}. For another derive from `nn.RNNCell` and write its forward."
            )
        return cell.hidden_size
    try:
        made = call_on_zeros(module, seen)
    except RuntimeError as error:
        raise ValueError(wrong_size(error, seen)) from None
    if is_lstm(module) and isinstance(made, tuple) and len(made) == 2:
        made = made[0]
    if not isinstance(made, Tensor):
        raise TypeError(wrong_type(module, made, seen))
    size = made.shape[-1]
    if isinstance(cell, nn.RNNCellBase) and size != cell.hidden_size:
        raise ValueError(
            f"`hidden` returned {size} numbers: expected {cell.hidden_size}, its size."
        )
    return size


def call_on_zeros(module: nn.Module, seen: int) -> object:
    """Call a hidden module on zeros in evaluation mode, and leave it as it was."""
    try:
        trial = copy.deepcopy(module)
    except RuntimeError:  # such as modules with `torch.nn.utils.weight_norm`
        trial = module
    modes = [(each, each.training) for each in trial.modules()]
    tensors = [*trial.parameters(), *trial.buffers(), torch.empty(0)]
    like = next(tensor for tensor in tensors if tensor.is_floating_point())
    cell = unwrap(trial)
    states: tuple[object, ...] = ()
    if isinstance(cell, nn.RNNCellBase):
        zeros = like.new_zeros(2, cell.hidden_size)
        states = ((zeros, zeros.clone()),) if is_lstm(trial) else (zeros,)
    try:
        with torch.no_grad():
            return trial.eval()(like.new_zeros(2, seen), *states)
    finally:
        for each, training in modes:
            each.training = training


def wrong_size(takes: object, seen: int) -> str:
    """Write the message for a hidden module that takes another number of features."""
    return (
        f"`hidden` does not take {seen} numbers ({takes}): expected a module for the memory's "
        "channels·order, and input_size more with `input_to_hidden=True`."
    )


def wrong_type(module: nn.Module, gives: object, seen: int) -> str:
    """Write the message for a hidden module that returns no tensor."""
    wanted = "h and c" if is_lstm(module) else "one tensor"
    return (
        f"`hidden` is of type {type(module).__name__} and returns a {type(gives).__name__}: "
        f"expected a module of single steps, which returns {wanted}. Pass a cell in place of a "
        f"module of whole sequences, such as `nn.LSTMCell({seen}, size)` in place of `nn.LSTM`."
    )
