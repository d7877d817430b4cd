"""Hidden cells of Keras as modules of torch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from linrec.nn import Pretrained


class Exponential(Pretrained, nn.Module):
    """The exponential function, elementwise."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute it."""
        return inputs.exp()


class HardSigmoidOfKeras2(Pretrained, nn.Module):
    """x / 5 + 1/2 between 0 and 1; Keras 3 and torch have x / 6 + 1/2."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute it."""
        return (0.2 * inputs + 0.5).clamp(0, 1)


# Keras 3's functions of these names. The leaky_relu of Keras 2 has had other slopes.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "hard_sigmoid": nn.Hardsigmoid,
    "softmax": lambda: nn.Softmax(-1),
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "mish": nn.Mish,
    "exponential": Exponential,
    "celu": nn.CELU,
    "glu": nn.GLU,
    "hard_shrink": nn.Hardshrink,
    "hard_silu": nn.Hardswish,
    "hard_swish": nn.Hardswish,
    "hard_tanh": nn.Hardtanh,
    "log_sigmoid": nn.LogSigmoid,
    "log_softmax": lambda: nn.LogSoftmax(-1),
    "soft_shrink": nn.Softshrink,
    "tanh_shrink": nn.Tanhshrink,
}


class Activated(Pretrained, nn.RNNCellBase):
    """The base of torch's cells with other activations.

    Args:
        input_size: the size of x.
        hidden_size: the size of h.
        bias: whether there are biases.
        activation: f.
        recurrent_activation: σ, of the gates; None where there are none.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        activation: nn.Module,
        recurrent_activation: nn.Module | None = None,
    ) -> None:
        # The next class in line is a cell of torch, which knows how many gates it has.
        super().__init__(input_size, hidden_size, bias)  # pyright: ignore[reportCallIssue]
        self.activation = activation
        self.recurrent_activation = recurrent_activation or nn.Identity()


class SimpleRNNCell(Activated, nn.RNNCell):
    """A `SimpleRNNCell` with an activation that `nn.RNNCell` lacks: h' = f(W x + U h + b)."""

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Run one step, `input (rows, input_size)` and `hx (rows, hidden_size)`."""
        below = nn.functional.linear(input, self.weight_ih, self.bias_ih)
        h = below.new_zeros(below.shape) if hx is None else hx
        return self.activation(below + nn.functional.linear(h, self.weight_hh, self.bias_hh))


class LSTMCell(Activated, nn.LSTMCell):
    """An `LSTMCell` with other activations: c' = σ(f) c + σ(i) f(g), h' = σ(o) f(c')."""

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run one step, `input (rows, input_size)` and h and c `(rows, hidden_size)`."""
        zeros = input.new_zeros(len(input), self.hidden_size)
        h, c = (zeros, zeros) if hx is None else hx
        gates = nn.functional.linear(input, self.weight_ih, self.bias_ih)
        gates = gates + nn.functional.linear(h, self.weight_hh, self.bias_hh)
        i, f, g, o = gates.chunk(4, -1)
        σ = self.recurrent_activation
        c = σ(f) * c + σ(i) * self.activation(g)
        return σ(o) * self.activation(c), c


class GRUCell(Activated, nn.GRUCell):
    """A `GRUCell` with other activations, which resets h after multiplying it by U.

    n = f(W x + b + r (U h + b')), h' = (1 - z) n + z h
    """

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Run one step, `input (rows, input_size)` and `hx (rows, hidden_size)`."""
        h = input.new_zeros(len(input), self.hidden_size) if hx is None else hx
        r, z, n = nn.functional.linear(input, self.weight_ih, self.bias_ih).chunk(3, -1)
        r, z, n = self.gates(r, z, n, h)
        return (1 - z) * n + z * h

    def gates(self, r: Tensor, z: Tensor, n: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add what h contributes to what x does."""
        r_h, z_h, n_h = nn.functional.linear(h, self.weight_hh, self.bias_hh).chunk(3, -1)
        r, z = self.recurrent_activation(r + r_h), self.recurrent_activation(z + z_h)
        return r, z, self.activation(n + r * n_h)


class GRUCellResetBefore(GRUCell):
    """A `GRUCell` that resets h before multiplying it by U: n = f(W x + b + U (r h))."""

    def gates(self, r: Tensor, z: Tensor, n: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add what h contributes to what x does."""
        U_r, U_z, U_n = self.weight_hh.chunk(3)
        r = self.recurrent_activation(r + h @ U_r.mT)
        z = self.recurrent_activation(z + h @ U_z.mT)
        return r, z, self.activation(n + (r * h) @ U_n.mT)


def activation(setting: Any, keras_2: bool = False) -> nn.Module:
    """Make the module of an activation, from its name or from a record with the name as `config`.

    Raises:
        ValueError: an activation that is not in `ACTIVATIONS`.
    """
    name = setting
    if isinstance(setting, Mapping) and setting.get("class_name") == "function":
        name = setting.get("config")
    name = "linear" if name is None else name
    if keras_2 and name == "hard_sigmoid":
        return HardSigmoidOfKeras2()
    changed = keras_2 and name == "leaky_relu"
    if not isinstance(name, str) or name not in ACTIVATIONS or changed:
        raise ValueError(
            f"the activation {name!r}{' of Keras 2' * changed} is not known here: expected one of "
            f"{', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]()


def dense(settings: Mapping[str, Any], weights: Sequence[np.ndarray], keras_2: bool) -> nn.Module:
    """Make a `Dense` layer: a linear layer, followed by its activation if it has one."""
    kernel, bias = match_names(weights, ["kernel"] + ["bias"] * has_bias(settings), "Dense")[:2]
    linear = nn.Linear(*kernel.shape, bias=bias is not None)
    fill(linear.weight, kernel.T, "the kernel of Dense")
    fill(linear.bias, bias, "the bias of Dense")
    after = activation(settings.get("activation"), keras_2)
    return linear if isinstance(after, nn.Identity) else nn.Sequential(linear, after)


def simple_rnn(
    settings: Mapping[str, Any], weights: Sequence[np.ndarray], keras_2: bool
) -> nn.Module:
    """Make a `SimpleRNNCell`; torch's own for tanh and ReLU."""
    kernel, recurrent, bias = recurrent_weights(weights, settings, "SimpleRNNCell", 1)
    sizes, name = (
        (len(kernel), len(recurrent), bias is not None),
        settings.get("activation", "tanh"),
    )
    if name in ("tanh", "relu"):
        cell = nn.RNNCell(*sizes, nonlinearity=name)
    else:
        cell = SimpleRNNCell(*sizes, activation(name, keras_2))
    return fill_cell(cell, kernel, recurrent, bias)


def lstm(settings: Mapping[str, Any], weights: Sequence[np.ndarray], keras_2: bool) -> nn.Module:
    """Make an `LSTMCell`, whose gates i, f, g, o are in torch's order."""
    kernel, recurrent, bias = recurrent_weights(weights, settings, "LSTMCell", 4)
    names = settings.get("activation", "tanh"), settings.get("recurrent_activation", "sigmoid")
    sizes = len(kernel), len(recurrent), bias is not None
    if names == ("tanh", "sigmoid"):
        cell = nn.LSTMCell(*sizes)
    else:
        cell = LSTMCell(*sizes, activation(names[0], keras_2), activation(names[1], keras_2))
    return fill_cell(cell, kernel, recurrent, bias)


def gru(settings: Mapping[str, Any], weights: Sequence[np.ndarray], keras_2: bool) -> nn.Module:
    """Make a `GRUCell`, whose gates z, r, h become r, z, n."""
    reset_after = bool(settings.get("reset_after", not keras_2))
    kernel, recurrent, bias = recurrent_weights(weights, settings, "GRUCell", 3)
    names = settings.get("activation", "tanh"), settings.get("recurrent_activation", "sigmoid")
    sizes = len(kernel), len(recurrent), bias is not None
    if names == ("tanh", "sigmoid") and reset_after:
        cell = nn.GRUCell(*sizes)
    else:
        kind = GRUCell if reset_after else GRUCellResetBefore
        cell = kind(*sizes, *(activation(name, keras_2) for name in names))
    z, r, h = np.split(np.arange(kernel.shape[1]), 3)
    order = np.concatenate([r, z, h])
    if bias is not None:
        wanted = (2, len(order)) if reset_after else (len(order),)
        if bias.shape != wanted:
            raise ValueError(
                f"the bias of GRUCell has shape {bias.shape}: expected {wanted}, with "
                f"reset_after={reset_after}"
            )
        bias = bias[..., order]
    return fill_cell(cell, kernel[:, order], recurrent[:, order], bias)


# The functions that make hidden cells, by the names of their classes.
HIDDEN: dict[str, Callable[[Mapping[str, Any], Sequence[np.ndarray], bool], nn.Module]] = {
    "Dense": dense,
    "SimpleRNNCell": simple_rnn,
    "LSTMCell": lstm,
    "GRUCell": gru,
}


def has_bias(settings: Mapping[str, Any]) -> bool:
    """Return whether a cell has a bias; in Keras it does by default."""
    return bool(settings.get("use_bias", True))


def match_names(
    weights: Sequence[np.ndarray], names: Sequence[str], owner: str
) -> tuple[np.ndarray, ...]:
    """Check the number of variables, and put None for optional ones that are missing."""
    if len(weights) != len(names):
        raise ValueError(
            f"{owner} has {len(weights)} variables of shapes {[w.shape for w in weights]}: "
            f"expected {len(names)} by its options, {', '.join(names)}"
        )
    return (*weights, None, None)  # pyright: ignore[reportReturnType]  # for missing variables


def recurrent_weights(
    weights: Sequence[np.ndarray], settings: Mapping[str, Any], owner: str, gates: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Check that kernel, recurrent kernel and bias fit together."""
    names = ["kernel", "recurrent_kernel"] + ["bias"] * has_bias(settings)
    kernel, recurrent, bias = match_names(weights, names, owner)[:3]
    units = recurrent.shape[0] if recurrent.ndim == 2 else 0
    if kernel.ndim != 2 or not kernel.shape[1] == recurrent.shape[-1] == gates * units > 0:
        raise ValueError(
            f"the kernels of {owner} have shapes {kernel.shape} and {recurrent.shape}: expected "
            f"(inputs, {gates} units) and (units, {gates} units)"
        )
    return kernel, recurrent, bias


def fill_cell(
    cell: nn.RNNCellBase, kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray | None
) -> nn.RNNCellBase:
    """Put weights into a cell. Where Keras has one bias, torch's second is zero and not trained."""
    fill(cell.weight_ih, kernel.T, "the kernel of the hidden cell")
    fill(cell.weight_hh, recurrent.T, "the recurrent kernel of the hidden cell")
    if bias is not None:
        fill(cell.bias_ih, bias[0] if bias.ndim == 2 else bias, "the bias of the hidden cell")
        second = bias[1] if bias.ndim == 2 else np.zeros(len(bias), bias.dtype)
        fill(cell.bias_hh, second, "the bias of the hidden cell")
        cell.bias_hh.requires_grad_(bias.ndim == 2)
    return cell


def fill(parameter: Tensor, values: np.ndarray | None, name: str) -> None:
    """Set a parameter's values, and check their shape."""
    if values is None:
        return
    if tuple(parameter.shape) != values.shape:
        shapes = f"{values.shape[::-1]}: expected {tuple(parameter.shape)[::-1]}"
        raise ValueError(f"{name} has shape {shapes}")
    parameter.data = torch.from_numpy(np.ascontiguousarray(values))
