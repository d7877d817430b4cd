"""Similarity transforms and balanced realisations, against scipy's Gramians and runs."""

# Of scipy's overloads those that return two arrays are meant; some arguments are wrong on purpose.
# pyright: reportOptionalIterable=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportOptionalOperand=false, reportOptionalMemberAccess=false
# pyright: reportOptionalSubscript=false

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg, signal

import linrec
from linrec.coordinates import similarity_transform
from linrec.interop import from_scipy


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def butterworth(order: int = 4, cutoff: float = 0.1) -> linrec.LinearRecurrence:
    return linrec.LinearRecurrence(
        *(torch.tensor(m) for m in signal.tf2ss(*signal.butter(order, cutoff)))
    )


def analog(cutoff: float):
    return from_scipy(signal.lti(*signal.butter(4, cutoff, analog=True)))


def test_a_transform_there_and_back_is_the_same_system():
    system, basis = butterworth(), torch.randn(4, 4, dtype=torch.float64)
    there = linrec.similarity_transform(system, basis)
    back = linrec.similarity_transform(there, torch.linalg.inv(basis))
    for mine, given in zip(
        (back.A.to_dense(), back.B, back.C, back.D),
        (system.A.to_dense(), system.B, system.C, system.D),
        strict=True,
    ):
        assert torch.allclose(mine, given, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128])
def test_outputs_stay_and_states_are_read_in_the_old_coordinates(dtype):
    A = torch.randn(3, 3, dtype=dtype) * 0.3
    recurrence, u = linrec.LinearRecurrence(A), torch.randn(2, 20, 3, dtype=dtype)
    moved = linrec.similarity_transform(recurrence, torch.eye(3).double() + 0.2)
    assert moved.dtype == dtype
    found, given = linrec.run(moved, u).outputs, linrec.run(recurrence, u).outputs
    assert (found - given).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("basis", "words"),
    [
        (torch.eye(3), "has shape"),
        (torch.ones(4, 4), "singular"),
        (torch.full((4, 4), 1e400), "singular"),
    ],
)
def test_a_basis_that_is_none_is_refused(basis, words):
    with pytest.raises(ValueError, match=words):
        linrec.similarity_transform(butterworth(), basis)


def test_a_varying_recurrence_is_refused():
    varying = linrec.LinearRecurrence(linrec.Varying(torch.rand(5, 2, 2)))
    with pytest.raises(ValueError, match="time-varying"):
        linrec.similarity_transform(varying, torch.eye(2))


@pytest.mark.parametrize(("order", "cutoff"), [(2, 0.3), (4, 0.1), (6, 0.05), (8, 0.1)])
def test_gramians_of_a_balanced_recurrence_are_one_diagonal(order, cutoff):
    balanced = linrec.balanced_realization(butterworth(order, cutoff))
    A = balanced.system.A.to_dense().numpy()
    B, C = balanced.system.B.numpy(), balanced.system.C.numpy()
    values = np.diag(balanced.singular_values.numpy())
    driven, read = (
        linalg.solve_discrete_lyapunov(A, B @ B.T),
        linalg.solve_discrete_lyapunov(A.T, C.T @ C),
    )
    # The equations are solved to a few hundred roundings of 1 / (1 - radius²) there.
    assert np.abs(driven - values).max() < 1e-10 * values.max()
    assert np.abs(read - values).max() < 1e-10 * values.max()


@pytest.mark.parametrize("cutoff", [1.0, 2 * np.pi * 1e6])
def test_gramians_of_a_balanced_state_space_are_one_diagonal_in_any_unit_of_time(cutoff):
    balanced = linrec.balanced_realization(analog(cutoff))
    A = balanced.system.A.to_dense().numpy() / cutoff
    B = balanced.system.B.numpy() / np.sqrt(cutoff)
    values = np.diag(balanced.singular_values.numpy())
    driven = linalg.solve_continuous_lyapunov(A, -B @ B.T)
    assert np.abs(driven - values).max() < 1e-11 * values.max()


def test_singular_values_do_not_depend_on_coordinates():
    system = butterworth(5, 0.2)
    moved = linrec.similarity_transform(system, torch.randn(5, 5, dtype=torch.float64))
    mine, others = (linrec.balanced_realization(s).singular_values for s in (system, moved))
    assert torch.allclose(mine, others, rtol=1e-8)


def test_a_balanced_system_runs_as_the_given_one_and_its_states_are_converted():
    system, u = butterworth(6, 0.05), torch.randn(2, 300, 1, dtype=torch.float64)
    start = torch.randn(2, 6, dtype=torch.float64)
    balanced = linrec.balanced_realization(system)
    found = linrec.run(balanced.system, u, balanced.coordinates.enter(start))
    given = linrec.run(system, u, start, executor=linrec.Recurrent())
    size = given.outputs.abs().max()
    assert (found.outputs - given.outputs).abs().max() < 1e-9 * size
    state = balanced.coordinates.leave(found.final_state)
    assert (state - given.final_state).abs().max() < 1e-9 * given.final_state.abs().max()


def test_a_bank_is_balanced_system_by_system():
    A = torch.stack([butterworth(3, c).A.to_dense() for c in (0.1, 0.3)])
    bank = linrec.LinearRecurrence(A, butterworth(3).B, torch.randn(2, 1, 3).double())
    balanced = linrec.balanced_realization(bank)
    for index in range(2):
        alone = linrec.balanced_realization(
            linrec.LinearRecurrence(A[index], bank.B, bank.C[index])
        )
        assert torch.allclose(balanced.singular_values[index], alone.singular_values, rtol=1e-10)


@pytest.mark.parametrize(
    ("system", "words"),
    [
        (linrec.LinearRecurrence([[1.0]]), "stable"),
        (linrec.StateSpace([[0.1]], [[1.0]]), "stable"),
        (linrec.LinearRecurrence([[0.5, 0.0], [0.0, 0.2]], [[1.0], [0.0]]), "minimal"),
    ],
)
def test_systems_without_a_balanced_realisation_are_refused(system, words):
    with pytest.raises(ValueError, match=words):
        linrec.balanced_realization(system)


def test_coordinates_of_values_that_cannot_be_seen_are_refused():
    with pytest.raises(ValueError, match="cannot be seen"):
        linrec.contracting_coordinates(butterworth().to("meta"), 10)


def test_gradients_pass_through_a_change_of_coordinates():
    system = butterworth(3, 0.2)
    coordinates = linrec.contracting_coordinates(system, 100)
    A = system.A.to_dense().clone().requires_grad_()

    def outputs(A):
        moved = coordinates.transform(linrec.LinearRecurrence(A, system.B, system.C))
        return linrec.run(moved, torch.ones(8, 1).double(), executor=linrec.Recurrent()).outputs

    torch.autograd.gradcheck(outputs, (A,))


def test_a_varying_recurrence_is_not_transformed_as_a_batch():
    coordinates = linrec.contracting_coordinates(linrec.LinearRecurrence(torch.eye(2) * 0.5), 9)
    varying = linrec.LinearRecurrence(torch.rand(5, 2, 2), time_varying=True)
    with pytest.raises(ValueError, match="time-varying"):
        coordinates.transform(varying)
    with pytest.raises(ValueError, match="2 states and the system has 3"):
        coordinates.transform(linrec.LinearRecurrence(torch.eye(3)))


@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_states_of_copies_are_converted_copy_by_copy(dtype, batch):
    generator = torch.Generator().manual_seed(1)
    A = torch.randn(*batch, 2, 2, generator=generator, dtype=torch.float64) * 0.4
    recurrence = linrec.LinearRecurrence(A.to(dtype), copies=4)
    coordinates = linrec.contracting_coordinates(recurrence, 50)
    states = torch.randn(*batch, 8, generator=generator, dtype=dtype)
    entered = coordinates.enter(states)
    one_by_one = [coordinates.enter(each) for each in states.split(2, -1)]
    assert entered.dtype == dtype
    # The sums are those of two products, in double precision, rounded last.
    torch.testing.assert_close(entered, torch.cat(one_by_one, -1), rtol=2**-23, atol=0)
    back = coordinates.leave(entered)
    # Two roundings of ‖T‖‖T⁻¹‖ times the state, and those of two products of two terms.
    condition = float(torch.linalg.cond(coordinates.basis.to_dense(), 2).max())
    assert (back - states).abs().max() <= 4 * condition * 2**-24 * states.abs().max()
    with pytest.raises(ValueError, match="multiple of 2"):
        coordinates.enter(states[..., :7])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(bad):
    recurrence = linrec.LinearRecurrence([[0.5, bad], [0.0, 0.5]], [[1.0], [1.0]], [[1.0, 0.0]])
    for verb in (
        lambda: linrec.contracting_coordinates(recurrence, 9),
        lambda: linrec.balanced_realization(recurrence),
    ):
        with pytest.raises(ValueError, match="`A` holds NaN or an infinity"):
            verb()


@pytest.mark.parametrize("kind", [linrec.LinearRecurrence, linrec.StateSpace])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_complex_basis_gives_a_complex_system(kind: Any, dtype: torch.dtype) -> None:
    A = torch.tensor([[0.5, -0.25], [0.25, 0.5]], dtype=dtype)
    B, C, D = torch.tensor([[1.0], [2.0]]), torch.tensor([[4.0, 1.0]]), torch.ones(1, 1)
    system = kind(A, *(each.to(dtype) for each in (B, C, D)))
    # Columns are eigenvectors of A, and T⁻¹ = T* / 2.
    basis = torch.tensor([[1, 1j], [1j, 1]], dtype=torch.complex128)
    moved = similarity_transform(system, basis)
    assert moved.dtype == torch.promote_types(dtype, torch.complex64)
    right = {
        "A": [[0.5 - 0.25j, 0], [0, 0.5 + 0.25j]],
        "B": [[0.5 - 1j], [1 - 0.5j]],
        "C": [[4 + 1j, 1 + 4j]],
        "D": [[1]],
    }
    for name, values in right.items():
        found = moved.A.to_dense() if name == "A" else getattr(moved, name)
        assert torch.equal(found, torch.tensor(values, dtype=moved.dtype))
    plain = kind(A, system.B)
    assert torch.equal(similarity_transform(plain, basis).C, basis.to(moved.dtype))
    again = similarity_transform(system, torch.linalg.eig(A.double())[1])
    assert torch.allclose(again.A.to_dense().diag().abs(), A.new_tensor(0.3125).sqrt())
    back = similarity_transform(moved, torch.linalg.inv(basis))
    assert torch.equal(back.A.to_dense(), A.to(moved.dtype))


A_BASIS = np.array([[1.0, 2.0, 0.5], [0.25, -1.0, 3.0], [1.0, 1.5, -0.75]])


def transformed_exactly(A: np.ndarray, T: np.ndarray) -> np.ndarray:
    """Compute T⁻¹ A T in fractions, by Gauss-Jordan elimination, each entry rounded once."""
    n = len(A)
    exact = [[Fraction(float(each)) for each in row] for row in T]
    moved = [[Fraction(float(each)) for each in row] for row in A]
    columns = range(n)
    moved = [[sum(row[k] * exact[k][j] for k in columns) for j in columns] for row in moved]
    rows = [left + right for left, right in zip(exact, moved, strict=True)]
    for column in columns:
        pivot = next(row for row in range(column, n) if rows[row][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [each / rows[column][column] for each in rows[column]]
        for other in set(columns) - {column}:
            factor = rows[other][column]
            rows[other] = [a - factor * b for a, b in zip(rows[other], rows[column], strict=True)]
    return np.array([[float(each) for each in row[n:]] for row in rows])


@pytest.mark.parametrize("kind", [linrec.LinearRecurrence, linrec.StateSpace])
@pytest.mark.parametrize(
    ("size", "above", "below"),
    [
        (1.0, [1.0, 1e-60, 1.0], [1.0, 1.0, 1.0]),
        (1.0, [1.0, 1.0, 1.0], [1e-100, 1.0, 1e30]),
        (1.0, [1e-70, 1e-76, 1e80], [1.0, 1e40, 1e-60]),
        (1e-75, [1.0, 1.0, 2.0], [1.0, 1.0, 1.0]),
        (1e-150, [1e-70, 1.0, 1e70], [1.0, 1.0, 1.0]),
        (1e-300, [1.0, 1.0, 2.0], [1.0, 1.0, 1.0]),
        (1e200, [1e-90, 1.0, 1.0], [1e-200, 1e-200, 1e-200]),
        (1e300, [1.0, 1.0, 2.0], [1e290, 1e290, 1e290]),
    ],
)
def test_numbers_of_any_size_are_transformed_with_all_digits(
    kind: Any, size: float, above: list[float], below: list[float]
) -> None:
    A = size * np.array([[0.5, 0.25, -0.125], [0.125, 0.3, 0.7], [0.1, -0.2, 0.4]])
    for matrix in (A_BASIS, np.eye(3)):
        T = np.array(below)[:, None] * matrix * np.array(above)
        system = kind(torch.tensor(A), torch.zeros(3, 1).double())
        found = similarity_transform(system, torch.tensor(T)).A.to_dense().numpy()
        assert (found == transformed_exactly(A, T)).all()


def test_tiny_inputs_and_huge_outputs_are_balanced_with_all_digits() -> None:
    system = butterworth(3, 0.2)
    assert system.B is not None and system.C is not None
    scaled = linrec.LinearRecurrence(system.A, system.B * 2.0**-500, system.C * 2.0**500)
    balanced, plain = (linrec.balanced_realization(each) for each in (scaled, system))
    assert torch.equal(balanced.singular_values, plain.singular_values)
    assert torch.equal(balanced.system.A.to_dense(), plain.system.A.to_dense())
