"""The sizes of a run, and the cost estimated from them."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch

from linrec._tensors.open_sizes import NOMINAL_BATCH, NOMINAL_STEPS, nominal_size
from linrec.systems import LinearRecurrence

DOUBLE = (torch.float64, torch.complex128)


@dataclass(slots=True)  # (a choice makes about twenty, and frozen ones take three times as long)
class Cost:
    """The cost of a run: operations, bytes and rounds.

    Attributes:
        operations: multiplications and additions in matrix products.
        bytes: memory written and read, beyond what the caches hold.
        rounds: operations that have to wait for one another.
        transforms: multiplications and additions in Fourier transforms.
        memory: bytes held at once, beyond the inputs.
    """

    operations: float
    bytes: float
    rounds: float
    transforms: float = 0.0
    memory: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.operations + other.operations,
            self.bytes + other.bytes,
            self.rounds + other.rounds,
            self.transforms + other.transforms,
            self.memory + other.memory,
        )

    def __mul__(self, times: "Cost") -> "Cost":
        """Multiply each part by its own factor."""
        return Cost(
            self.operations * times.operations,
            self.bytes * times.bytes,
            self.rounds * times.rounds,
            self.transforms * times.transforms,
            self.memory * times.memory,
        )


class Workload(NamedTuple):
    """The sizes of a run; estimates of its cost depend on nothing else.

    Attributes:
        states: n, of one copy.
        inputs: m, of one copy.
        outputs: p, of one copy.
        steps: T.
        batch: the number of sequences, counting copies of a system separately.
        systems: the number of different systems.
        multiplications: the number of multiplications to apply one A.
        itemsize: the bytes of a number.
        driven: whether there is a B.
        read: whether there is a C.
        time_varying: whether any of the matrices changes from step to step.
        A_varies: whether A changes.
        diagonal: whether A is diagonal.
        device: the type of the device, such as "cpu".
        roundoff: the unit roundoff of the sums' dtype.
        one_gate: whether A varies and each step's diagonal is a single number.
        tied: whether A varies, and its U is B.
        gradient: whether a gradient in the inputs is computed afterwards.
        trained: whether a gradient in the system is computed, and so through its preparation.
    """

    states: int
    inputs: int
    outputs: int
    steps: int
    batch: int
    systems: int
    multiplications: int
    itemsize: int
    driven: bool
    read: bool
    time_varying: bool
    A_varies: bool
    diagonal: bool
    device: str
    roundoff: float
    one_gate: bool = False
    tied: bool = False
    gradient: bool = False
    trained: bool = False

    @property
    def numbers(self) -> int:
        """The steps of all sequences together."""
        return self.batch * self.steps

    @property
    def double(self) -> bool:
        """Whether numbers are in double precision."""
        return self.roundoff < 2.0**-24

    @staticmethod
    def of(
        recurrence: LinearRecurrence, length: int, batch: int, gradient: bool = False
    ) -> "Workload":
        """Describe running a recurrence over `length` steps of `batch` sequences.

        A nominal size replaces one that a graph leaves open: a choice by the traced size would tie
        the graph to it.
        """
        # (Written for speed: small calls spend much of their time on choosing.)
        A, B, C, D = recurrence.A, recurrence.B, recurrence.C, recurrence.D
        leaves, n, varies = A.leaves(), A.state_size, recurrence.time_varying
        alone, apart, double, trained, itemsize = True, False, False, False, 4
        tensors = list(leaves.values())
        for name, leaf in leaves.items():
            alone = alone and leaf.ndim == A.core_axes.get(name)
        for matrix in (B, C, D):
            if matrix is not None:
                apart = apart or matrix.ndim > 2
                tensors.append(matrix)
        for leaf in tensors:
            double = double or leaf.dtype in DOUBLE
            trained = trained or leaf.requires_grad
            itemsize = max(itemsize, leaf.element_size())
        systems = 1
        if apart or not alone:
            systems = max(nominal_size(math.prod(recurrence.batch_shape), NOMINAL_BATCH), 1)
        parts = A.as_diagonal_plus_low_rank() if varies else None
        return Workload(
            states=n,
            inputs=n if B is None else B.shape[-1],
            outputs=n if C is None else C.shape[-2],
            steps=nominal_size(length, NOMINAL_STEPS),
            batch=nominal_size(batch, NOMINAL_BATCH),
            systems=systems,
            multiplications=A.multiplications,
            itemsize=itemsize,
            driven=B is not None,
            read=C is not None,
            time_varying=varies,
            A_varies=not alone and A.batch_shape[-1] > 1 and varies,
            diagonal=A.as_diagonal() is not None,
            device=tensors[0].device.type,
            roundoff=2.0**-53 if double else 2.0**-24,
            one_gate=parts is not None and parts[0].stride(-1) == 0,
            tied=parts is not None and parts[1] is B,
            gradient=gradient,
            trained=trained and torch.is_grad_enabled(),
        )


class Estimates:
    """Estimates of the cost and the error of an executor, from a workload."""

    # The measured cost of the gradient in the inputs, in multiples of the forward cost. The
    # gradient in the system costs as much again; where states follow from states it needs the first
    # one too.
    gradient: ClassVar[Cost] = Cost(operations=1, bytes=1, rounds=1, transforms=1, memory=0.2)
    recursive: ClassVar[bool] = True

    # Whether the error at each step is small relative to the terms summed at that step. It is not
    # where all steps are computed at once from the whole sequence, with the same error.
    errs_per_step: ClassVar[bool] = True

    def cost(self, work: Workload) -> Cost:
        """Estimate the cost of `execute`, given a plan.

        By default it is unknown, and `Auto` chooses any other candidate first.
        """
        return Cost(math.inf, 0, 0)

    def final_cost(self, work: Workload) -> Cost:
        """Estimate the cost of `final_state`, given a plan."""
        return self.cost(work)

    def preparation_cost(self, work: Workload) -> Cost:
        """Estimate the cost of `prepare`."""
        return Cost(0, 0, 0)

    def error(self, work: Workload) -> float:
        """Estimate the error of a long run, relative to the magnitudes summed in its outputs.

        The estimate is the square root of the number of roundings on the longest path, times the
        unit roundoff. The worst-case bounds in the docstrings count the roundings themselves; but
        roundings of either sign cancel, and with a probability very close to one their sum stays
        below a small multiple of this estimate.

        References:
            Higham and Mary 2019, A new approach to probabilistic rounding error analysis.
        """
        return math.inf
