"""A transition matrix for each step, passed in place of A."""

from dataclasses import dataclass

from torch import Tensor

from linrec._tensors.shapes import show
from linrec.structures import Structure
from linrec.systems.four_matrices import as_structure


@dataclass(frozen=True, eq=False)
class Varying:
    """A transition matrix for each step: `LinearRecurrence(Varying(A))` is time-varying.

    The same as `LinearRecurrence(A, time_varying=True)`.

    Args:
        A (*batch, time, ...): a structure whose last batch axis is time, or a tensor
            `(*batch, time, n, n)`, which is taken as `Dense`.

    Raises:
        ValueError: there is no axis of time.

    Example:
        >>> import torch, linrec
        >>> gates = torch.tensor([[0.5], [0.0], [1.0]])
        >>> recurrence = linrec.LinearRecurrence(linrec.Varying(linrec.Diagonal(gates)))
        >>> linrec.run(recurrence, torch.ones(3, 1)).outputs.squeeze()
        tensor([1., 1., 2.])
    """

    A: Structure

    def __init__(self, A: Structure | Tensor | object) -> None:
        if isinstance(A, Varying):
            raise ValueError("`Varying(Varying(A))`: expected one axis of time. Pass `Varying(A)`.")
        structure = as_structure(A)
        if not structure.batch_shape:
            raise ValueError(
                "`Varying` got a single matrix of shape "
                f"{show(structure.to_dense().shape)}: expected one a step, (*batch, time, n, n). "
                "For the same matrix at every step pass it without `Varying`."
            )
        object.__setattr__(self, "A", structure)
