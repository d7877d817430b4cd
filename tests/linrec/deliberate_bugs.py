"""Realistic bugs to plant one by one: each must be found, by its property."""

# Functions are replaced by others of any signature, which is the point.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

import linrec
from linrec import Chunked, FFTConvolution, LinearRecurrence, Recurrent, Result, Toeplitz
from linrec.testing import transitions

Planter = Callable[[pytest.MonkeyPatch], None]
Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Distorted(linrec.Executor):
    """Runs step by step; outputs, final state or inputs are changed, where a condition holds."""

    outputs: Change = lambda y: y
    state: Change = lambda x: x
    inputs: Change = lambda u: u
    when: Callable[[LinearRecurrence, Tensor], bool] = lambda recurrence, inputs: True
    keeps_state: bool = True

    def execute(
        self,
        recurrence: LinearRecurrence,
        plan: linrec.Plan,
        inputs: Tensor,
        state: Tensor | None,
    ) -> Result:
        if not self.when(recurrence, inputs):
            return Recurrent().execute(recurrence, plan, inputs, state)
        state = state if self.keeps_state else None
        result = Recurrent().execute(recurrence, plan, self.inputs(inputs), state)
        return Result(self.outputs(result.outputs), self.state(result.final_state))


@dataclass(frozen=True)
class ShortOfOne(Distorted):
    """Its last step is the one before."""

    def final_state(
        self,
        recurrence: LinearRecurrence,
        plan: linrec.Plan,
        inputs: Tensor,
        state: Tensor | None,
    ) -> Tensor:
        return Recurrent().final_state(recurrence, plan, inputs[..., :-1, :], state)


class Bug(NamedTuple):
    """What is planted, whom it befalls, and which property finds it.

    Attributes:
        executor: who is checked; where nothing is planted, who is wrong.
        property: the name of the property that must fail.
        plant: changes the library; None: the executor itself is wrong.
        drawn: the transitions around which it is looked for.
    """

    executor: linrec.Executor
    property: str
    plant: Planter | None = None
    drawn: st.SearchStrategy = transitions()


def patched(target: str, make: Callable[[Any], Any]) -> Planter:
    """Replace what `package.module.name` names by something made of it."""

    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        holder, name = resolve(target)
        monkeypatch.setattr(holder, name, make(getattr(holder, name)))

    return plant


def resolve(target: str) -> tuple[Any, str]:
    """Find the module or class that holds a name."""
    *path, name = target.split(".")
    for cut in range(len(path), 0, -1):
        try:
            holder: Any = importlib.import_module(".".join(path[:cut]))
        except (ModuleNotFoundError, AttributeError):
            continue
        for part in path[cut:]:
            holder = getattr(holder, part)
        return holder, name
    raise ValueError(target)


def complex_(*forms: type) -> st.SearchStrategy:
    """Complex transitions, of some forms."""
    return only(transitions(dtypes=st.just(torch.complex128)), *forms)


def only(drawn: st.SearchStrategy, *forms: type) -> st.SearchStrategy:
    """Structures of some forms, varying or not."""
    if not forms:
        return drawn
    return drawn.filter(lambda A: isinstance(A.A if isinstance(A, linrec.Varying) else A, forms))


def first_system(recurrence: LinearRecurrence) -> LinearRecurrence:
    """Give every sequence of a batch the first system."""

    def first(leaf: Tensor, core: int) -> Tensor:
        axis = leaf.ndim - core - (2 if recurrence.time_varying else 1)
        return leaf if axis < 0 else leaf.narrow(axis, 0, 1).expand_as(leaf)

    return recurrence.map_batched(first)


def scaled_gradient(factor: float) -> Callable[[Tensor], Tensor]:
    """The same numbers, with a gradient that is off by a factor."""
    return lambda x: factor * x + (1 - factor) * x.detach()


class OnceDifferentiable(torch.autograd.Function):
    """The same numbers and gradient, whose own gradient is off."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]  # torch's base takes any number
        return scaled_gradient(0.5)(gradient)


DIAGONAL = only(transitions(), linrec.Diagonal)
DENSE = only(transitions(), linrec.Dense)

BUGS: dict[str, Bug] = {
    "outputs one step late": Bug(Distorted(lambda y: y.roll(1, -2)), "agreement"),
    "outputs one step early": Bug(Distorted(lambda y: y.roll(-1, -2)), "agreement"),
    "outputs look ahead": Bug(Distorted(lambda y: y + 1e-3 * y.roll(-1, -2)), "causality"),
    "outputs off by a millionth": Bug(Distorted(lambda y: y * (1 + 1e-6)), "streaming"),
    "outputs clipped": Bug(Distorted(lambda y: torch.where(y.abs() < 1, y, y.sgn())), "linearity"),
    "outputs drift": Bug(
        Distorted(lambda y: y * (1 + 1e-3 * torch.arange(y.shape[-2]).unsqueeze(-1))),
        "time invariance",
    ),
    "sequences of a batch leak into each other": Bug(
        Distorted(lambda y: y + 0 * y.sum(0, keepdim=True)), "independence"
    ),
    "initial state ignored": Bug(Distorted(keeps_state=False), "agreement"),
    "state reset at a join": Bug(Distorted(keeps_state=False), "continuation"),
    "inputs rounded to single precision": Bug(
        Distorted(inputs=lambda u: (u.cfloat() if u.is_complex() else u.float()).to(u.dtype)),
        "agreement",
    ),
    "gradient detached": Bug(Distorted(inputs=Tensor.detach), "gradient in inputs"),
    "half the gradient": Bug(Distorted(inputs=scaled_gradient(0.5)), "gradient in inputs"),
    "gradient of the outputs off": Bug(Distorted(scaled_gradient(0.9)), "first derivatives"),
    "gradient of the gradient off": Bug(Distorted(OnceDifferentiable.apply), "second derivatives"),
    "last step is the one before": Bug(ShortOfOne(), "last step"),
    "first system of a batch for all": Bug(
        Recurrent(),
        "agreement",
        patched(
            "linrec.executors.recurrent.Recurrent.execute",
            lambda run: lambda self, r, plan, u, x: run(self, first_system(r), plan, u, x),
        ),
        transitions(batch_shapes=st.just((3,))),
    ),
    "transposed A": Bug(
        Recurrent(),
        "agreement",
        patched(
            "linrec.structures.dense.Dense.apply",
            lambda apply: lambda self, x: apply(replace(self, matrix=self.matrix.mT), x),
        ),
        DENSE,
    ),
    "transposed A, in the gradient alone": Bug(
        Toeplitz(),
        "adjoint",
        patched(
            "linrec.structures.dense.Dense.adjoint",
            lambda adjoint: lambda self: linrec.Dense(self.matrix.conj()),
        ),
        DENSE,
    ),
    "adjoint without the conjugate": Bug(
        Chunked(size=3),
        "agreement",
        patched(
            "linrec.structures.dense.Dense.adjoint",
            lambda adjoint: lambda self: linrec.Dense(self.matrix.mT),
        ),
        complex_(linrec.Dense),
    ),
    "adjoint of a diagonal without the conjugate": Bug(
        Recurrent(),
        "adjoint of A",
        patched("linrec.structures.diagonal.Diagonal.adjoint", lambda adjoint: lambda self: self),
        complex_(linrec.Diagonal),
    ),
    "complex gradient of the scan without the conjugate": Bug(
        linrec.AssociativeScan(),
        "gradient in inputs",
        patched(
            "linrec.scan.sensitivities",
            lambda scan: lambda decay, *rest: scan(decay.conj(), *rest),
        ),
        complex_(linrec.Diagonal),
    ),
    "forward derivative of the scan halved": Bug(
        linrec.AssociativeScan(),
        "forward mode",
        patched(
            "linrec.scan.ScanWithTangents.jvp",
            lambda jvp: staticmethod(lambda ctx, *tangents: jvp(ctx, *tangents) / 2),
        ),
        DIAGONAL,
    ),
    "mapped sequences of the scan in the wrong order": Bug(
        linrec.AssociativeScan(),
        "vmap",
        patched(
            "linrec.scan.Scan.vmap",
            lambda vmap: staticmethod(lambda *given: (vmap(*given)[0].flip(0), 0)),
        ),
        DIAGONAL,
    ),
    "matrices composed in the wrong order": Bug(
        linrec.AssociativeScan(),
        "agreement",
        patched(
            "linrec.structures.dense.Dense.compose",
            lambda compose: lambda self, earlier: compose(earlier, self),
        ),
        only(transitions(sizes=st.just(2)), linrec.Dense).filter(
            lambda A: isinstance(A, linrec.Varying)
        ),
    ),
    "low rank multiplied in the wrong order": Bug(
        Recurrent(),
        "apply",
        patched(
            "linrec.structures.low_rank.DiagonalPlusLowRank.apply",
            lambda apply: lambda self, x: apply(replace(self, left=self.right, right=self.left), x),
        ),
        only(transitions(), linrec.DiagonalPlusLowRank),
    ),
    "a transform that wraps around": Bug(
        FFTConvolution(),
        "agreement",
        patched("linrec.executors.fft.fast_length", lambda length: lambda n: (n + 1) // 2),
    ),
    "a carry dropped between chunks": Bug(
        Chunked(size=3),
        "agreement",
        patched(
            "linrec.executors.carry.doublings",
            lambda doublings: lambda powers, count: 0 * doublings(powers, count),
        ),
    ),
    "pairs of chunks carried like one": Bug(
        Chunked(size=1),
        "agreement",
        patched(
            "linrec.executors.carry.doublings",
            lambda doublings: lambda powers, count: doublings(powers, 0).expand(count + 1, -1, -1),
        ),
    ),
    "gradients in a spectrum not conjugated": Bug(
        FFTConvolution(),
        "first derivatives",
        patched(
            "linrec.executors.fft.Convolution.grad_constant_now",
            lambda to_constant: lambda self, *given: to_constant(self, *given).conj(),
        ),
    ),
    "gradients in a block from the states alone": Bug(
        Chunked(size=2),
        "first derivatives",
        patched(
            "linrec.executors.chunked.ChunkProduct.grad_constant",
            lambda to_constant: (
                lambda self, g, rows, before: to_constant(self, g, 0 * rows, before)
            ),
        ),
    ),
    "every step has the matrices of the one before": Bug(
        Recurrent(),
        "agreement",
        patched(
            "linrec.executors.recurrent.each_step",
            lambda each_step: (
                lambda self, length: [list(each_step(self, length))[t - 1] for t in range(length)]
            ),
        ),
        transitions(sizes=st.just(2)).filter(lambda A: isinstance(A, linrec.Varying)),
    ),
    "kernels in single precision": Bug(
        Toeplitz(),
        "agreement",
        patched(
            "linrec.coordinates.similarity.double_dtype",
            lambda wide: lambda dtype: torch.complex64 if dtype.is_complex else torch.float32,
        ),
    ),
    "initial state added twice": Bug(
        Toeplitz(),
        "agreement",
        patched(
            "linrec.executors.impulse_response.free_response",
            lambda free: lambda A, state, length: 2 * free(A, state, length),
        ),
    ),
    "D forgotten": Bug(
        FFTConvolution(),
        "agreement",
        patched(
            "linrec.powers.output_kernel",
            lambda kernel: lambda r, states: kernel(LinearRecurrence(r.A, r.B, r.C), states),
        ),
    ),
    "C applied twice where it is square": Bug(
        Recurrent(),
        "agreement",
        patched(
            "linrec.systems.LinearRecurrence.read",
            lambda read: (
                lambda self, x, u: read(
                    self,
                    linrec.Dense(self.C).apply(x)
                    if self.C is not None and self.C.shape[-1] == self.C.shape[-2]
                    else x,
                    u,
                )
            ),
        ),
        transitions(sizes=st.just(2), batch_shapes=st.just(())),
    ),
    "copies in the order of the states": Bug(
        Recurrent(),
        "agreement",
        patched("linrec._call.PreparedCall.finish", lambda finish: interleaved),
    ),
    "padding is taken for data": Bug(
        Recurrent(),
        "padding",
        patched(
            "linrec._call.prepared_call.zero_padding",
            lambda zero_padding: lambda outputs, _: outputs,
        ),
    ),
    "the state at the padded end": Bug(
        Recurrent(),
        "padding",
        patched(
            "linrec._call.prepared_call.last_step", lambda last_step: lambda y, *_: y[..., -1, :]
        ),
    ),
    "a stale plan is followed": Bug(
        Toeplitz(),
        "plans",
        patched("linrec.executors.base.Plan.why_not", lambda why_not: lambda *given: None),
    ),
    "the adjoint of a varying system one step off": Bug(
        Recurrent(),
        "adjoint",
        patched(
            "linrec.testing.case.adjoint",
            lambda adjoint: (
                lambda r: LinearRecurrence(
                    r.A.adjoint().map(lambda leaf, core: leaf.flip(-core - 1)),
                    *(None if M is None else M.mH for M in (r.C, r.B, r.D)),
                    copies=r.copies,
                )
            ),
        ),
        transitions(batch_shapes=st.just(())).filter(lambda A: isinstance(A, linrec.Varying)),
    ),
}


def interleaved(self: Any, outputs: Tensor, state: Tensor) -> Result:
    """Put copies side by side with the states outside and the copies inside."""
    if self.given.copies > 1:
        state = state.transpose(-1, -2).flatten(-2)
        axes = outputs.ndim - (self.inputs.ndim - 1)
        outputs = (outputs.movedim(-3, -1) if axes else outputs.transpose(-1, -2)).flatten(-2)
    return Result(outputs.to(self.result_dtype), state)
