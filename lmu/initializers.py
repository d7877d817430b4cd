"""Initial weights of a unit: the recipes of both papers and of keras-lmu."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import init

__all__ = [
    "CHILKURI_2021",
    "KERAS_LMU",
    "PSMNIST_2019",
    "VOELKER_2019",
    "Initializers",
]

Initializer = Callable[[Tensor], object]


def lecun_uniform(weight: Tensor) -> None:
    """Fill `weight (outputs, inputs)` from ±√(3 / inputs), of variance 1 / inputs."""
    init.kaiming_uniform_(weight, nonlinearity="linear")


def as_linear(weight: Tensor) -> None:
    """Fill `weight (outputs, inputs)` as `torch.nn.Linear` does, from ±1 / √inputs."""
    init.kaiming_uniform_(weight, a=5**0.5)


@dataclass(frozen=True)
class Initializers:
    """The initialisers of the matrices of an `LMU`; each fills its matrix in place.

        u_t = e_x x_t + e_h h_{t-1} + e_m m_{t-1} + b_u
        h_t = f(W_x x_t + W_h h_{t-1} + W_m m_t)

    Each is a function like those of `torch.nn.init`. It gets the matrix `(outputs, inputs)` of one
    kind of input, even where several matrices share a parameter. The matrices of the hidden module
    are those of a recurrent cell, or of the first linear layer in it.

    Args:
        input_to_memory: e_x.
        hidden_to_memory: e_h.
        memory_to_memory: e_m.
        input_to_hidden: W_x. None, here and below: left as the hidden module has it.
        hidden_to_hidden: W_h.
        memory_to_hidden: W_m.

    Biases of the memory's input begin at zero.

    Example:
        >>> import torch, lmu
        >>> mine = lmu.Initializers(input_to_memory=torch.nn.init.ones_)
        >>> lmu.LMUCell(1, 1, order=4, theta=9, initializers=mine).input_to_memory.weight
        Parameter containing:
        tensor([[1.]], requires_grad=True)
    """

    input_to_memory: Initializer = lecun_uniform
    hidden_to_memory: Initializer = lecun_uniform
    memory_to_memory: Initializer = init.zeros_
    input_to_hidden: Initializer | None = None
    hidden_to_hidden: Initializer | None = None
    memory_to_hidden: Initializer | None = None


# Voelker, Kajić and Eliasmith 2019, section 3.
VOELKER_2019 = Initializers(
    input_to_hidden=init.xavier_normal_,
    hidden_to_hidden=init.xavier_normal_,
    memory_to_hidden=init.xavier_normal_,
)

# The same for psMNIST: at first only the input reaches the memory, and only the memory the units.
PSMNIST_2019 = Initializers(
    input_to_memory=init.ones_,
    hidden_to_memory=init.zeros_,
    input_to_hidden=init.zeros_,
    hidden_to_hidden=init.zeros_,
    memory_to_hidden=init.xavier_normal_,
)

# Chilkuri and Eliasmith 2021; `ParallelLMU` begins like this.
CHILKURI_2021 = Initializers(
    input_to_memory=as_linear, input_to_hidden=as_linear, memory_to_hidden=init.xavier_normal_
)

# The defaults of keras-lmu, which draws e_x and e_h as one matrix.
KERAS_LMU = Initializers(
    input_to_memory=init.xavier_uniform_,
    hidden_to_memory=init.xavier_uniform_,
    memory_to_memory=init.orthogonal_,
)
