"""Closed-form responses of a system, its poles and its adjoint."""

import math

import torch
from torch import Tensor

from linrec._tensors.annotated import eigvals, lu_factor_ex
from linrec._tensors.arguments import as_tensor, check_whole
from linrec._tensors.devices import has_double
from linrec._tensors.dtypes import double_dtype
from linrec.coordinates import take_powers
from linrec.discretization.methods import divide
from linrec.powers import Powers, impulse_kernel, state_kernel
from linrec.structures import Structure
from linrec.systems import LinearRecurrence, StateSpace, check_invariant, require_recurrence


def impulse_response(recurrence: LinearRecurrence, length: int) -> Tensor:
    """Compute the impulse response: outputs for a single 1 on each input.

        h_0 = C B + D        h_k = C A^k B

    Args:
        recurrence: a time-invariant recurrence; if it has copies, the response is that of one copy.
        length: the number of steps.

    Returns:
        The response, `(*batch, length, p, m)`, computed in double precision and cast last.

    Raises:
        ValueError: the recurrence is time-varying, or the length is negative.

    Example:
        >>> import linrec
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> linrec.impulse_response(average, 3).squeeze()
        tensor([0.5000, 0.2500, 0.1250])

    References:
        Chilkuri and Eliasmith 2021, eq. 23 (there H, for C = I and D = 0).
    """
    response = response_in_double(recurrence, length)
    return response.to(recurrence.dtype).to(recurrence.device)


def response_in_double(recurrence: LinearRecurrence, length: int) -> Tensor:
    """Compute an impulse response, still in double precision."""
    require_recurrence(recurrence)
    check_invariant(recurrence, "impulse_response")
    check_whole("length", length)
    if length < 0:
        raise ValueError(f"`length` is {length}: expected 0 or more steps.")
    one = LinearRecurrence(recurrence.A, recurrence.B, recurrence.C, recurrence.D)
    steps = max(length, 1)

    def kernel_of(system: LinearRecurrence, powers: Powers) -> Tensor:
        return impulse_kernel(system, state_kernel(system, steps, powers), one)

    kernel, _, _ = take_powers(one, steps, kernel_of)
    return kernel[..., :length, :, :].mT


def step_response(recurrence: LinearRecurrence, length: int) -> Tensor:
    """Compute the step response: outputs for inputs of ones, the sums of `impulse_response`.

    Args:
        recurrence: a time-invariant recurrence; if it has copies, the response is that of one copy.
        length: the number of steps.

    Returns:
        The response, `(*batch, length, p, m)`, summed in double precision and cast last.

    Raises:
        ValueError: the recurrence is time-varying, or the length is negative.

    Example:
        >>> import linrec
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> linrec.step_response(average, 3).squeeze()
        tensor([0.5000, 0.7500, 0.8750])
    """
    response = response_in_double(recurrence, length).cumsum(-3)
    return response.to(recurrence.dtype).to(recurrence.device)


def frequency_response(system: LinearRecurrence | StateSpace, frequencies: Tensor) -> Tensor:
    """Compute how a system answers sinusoids: gain and phase as one complex number.

        discrete    H(ω) = C (I - A e^(-iω))^(-1) B + D
        continuous  H(ω) = C (iω I - A)^(-1) B + D

    Args:
        system: a time-invariant recurrence (if it has copies, one copy) or a StateSpace.
        frequencies (frequency,): ω, in radians per step, or per unit of time of a StateSpace.

    Returns:
        The response, complex, `(*batch, frequency, p, m)`.

    Raises:
        ValueError: the recurrence is time-varying, or frequencies are not a vector.

    At a frequency that is exactly a pole the response is inf + nan i, of infinite modulus.

    Example:
        >>> import torch, linrec
        >>> average = linrec.LinearRecurrence(A=[[0.5]], B=[[0.5]])
        >>> linrec.frequency_response(average, torch.tensor([0.0])).real.squeeze()
        tensor(1.)

    References:
        Oppenheim and Schafer 2010, Discrete-Time Signal Processing, chapter 5.
    """
    check_invariant(system, "frequency_response")
    device = system.device if has_double(system.device) else torch.device("cpu")
    frequencies = as_tensor("frequencies", frequencies, torch.float64, device)
    if frequencies.ndim != 1 or frequencies.is_complex():
        raise ValueError(
            f"`frequencies` has shape {tuple(frequencies.shape)} and dtype {frequencies.dtype}: "
            "expected a vector of real angular frequencies. Pass `torch.linspace(0, 3.14, 100)`."
        )
    if device != system.device:
        frequencies = frequencies.to("cpu")
        return frequency_response(system.to("cpu"), frequencies).to(system.device)
    A = system.A.to(torch.complex128).to_dense().unsqueeze(-3)
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    B = (identity if system.B is None else system.B.to(A.dtype)).unsqueeze(-3)
    omega = frequencies.to(A.device, torch.float64)[:, None, None]
    if isinstance(system, StateSpace):
        matrices = 1j * omega * identity - A
    else:
        matrices = identity - A * torch.exp(-1j * omega)
    # Singular matrices are replaced before the division: with `torch.where` only after it, their
    # results would still spoil the gradients of the other samples.
    at_pole = (lu_factor_ex(matrices.detach())[2] != 0)[..., None, None]
    states = divide(torch.where(at_pole, identity, matrices), B)
    response = states if system.C is None else system.C.to(A.dtype).unsqueeze(-3) @ states
    if system.D is not None:
        response = response + system.D.to(A.dtype).unsqueeze(-3)
    response = torch.where(at_pole, complex(math.inf, math.nan), response)
    single = system.dtype in (torch.float64, torch.complex128)
    return response if single else response.to(torch.complex64)


def poles(system: LinearRecurrence | StateSpace) -> Tensor:
    """Compute the poles (the eigenvalues of A), largest first.

    A recurrence is stable if all of them are inside the unit circle, a StateSpace if all have a
    negative real part. (Eigenvalues of badly conditioned matrices, such as the Legendre memory's of
    high order, are far less accurate than the matrices.)

    Args:
        system: a time-invariant recurrence (if it has copies, one copy) or a StateSpace.

    Returns:
        The poles, complex, `(*batch, n)`, by falling modulus.

    Raises:
        ValueError: the recurrence is time-varying.

    Example:
        >>> import torch, linrec
        >>> linrec.poles(linrec.LinearRecurrence(linrec.Diagonal(torch.tensor([0.5, -0.9]))))
        tensor([-0.9000+0.j,  0.5000+0.j])
    """
    check_invariant(system, "poles")
    if not has_double(system.device):
        return poles(system.to("cpu")).to(system.device)
    diagonal = system.A.as_diagonal()
    if diagonal is not None:
        values = diagonal.to(torch.complex128)
    else:
        values = eigvals(system.A.to(double_dtype(system.dtype)).to_dense())
    order = values.abs().argsort(dim=-1, descending=True)
    values = values.gather(-1, order)
    double = system.dtype in (torch.float64, torch.complex128)
    return values if double else values.to(torch.complex64)


def adjoint(recurrence: LinearRecurrence) -> LinearRecurrence:
    """Return the adjoint recurrence; run backwards in time, it computes the adjoint map.

        ⟨S u, v⟩ = ⟨u, S* v⟩        S* v = flip(run(adjoint(recurrence), flip(v)))

    for runs from a zero initial state: A, B, C, D become A*, C*, B*, D*. The gradient of a
    recurrence is made of it.

    Args:
        recurrence: the recurrence; a time-varying one is reversed in time as well, so that its
            adjoint takes flipped sequences just the same.

    Returns:
        The adjoint recurrence, with p inputs and m outputs.

    Example:
        >>> import linrec
        >>> linrec.adjoint(linrec.LinearRecurrence(A=[[0.5]], B=[[2.0]])).C
        tensor([[2.]])
    """
    require_recurrence(recurrence)
    structure: Structure = recurrence.A.adjoint()
    B, C, D = (
        None if matrix is None else matrix.mH
        for matrix in (recurrence.C, recurrence.B, recurrence.D)
    )
    back = recurrence.rebuilt(structure, B, C, D)
    if not recurrence.time_varying:
        return back
    # λ_t = A*_{t+1} λ_{t+1} + C*_t v_t: in reversed time the transitions come one step later than
    # the rest. The transition that wraps around multiplies the zero initial state.
    flipped = back.map_batched(lambda leaf, core: leaf.flip(-core - 1))
    late = flipped.A.map(
        lambda leaf, core: leaf.roll(1, dims=-core - 1) if leaf.ndim > core else leaf
    )
    return flipped.rebuilt(late, flipped.B, flipped.C, flipped.D)
