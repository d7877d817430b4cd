"""Numpy arrays and tensors of every kind: used as they appear, or refused with a clear message."""

import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy
import torch
from torch import Tensor

import linrec
import lmu

SHOWN = np.array([[0.5, 0.1], [0.25, 0.2]])


def readonly(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.setflags(write=False)
    return array


def unaligned(array: np.ndarray) -> np.ndarray:
    fields = np.zeros(array.shape, dtype=np.dtype([("flag", "i1"), ("value", "f8")]))
    fields["value"] = array
    return fields["value"]


def matrix_of(array: object) -> Tensor:
    return linrec.LinearRecurrence(array).A.to_dense()


class Table:
    """Something that converts itself to an array."""

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return readonly(SHOWN)


ARRAYS = {
    "plain": SHOWN,
    "reversed": SHOWN[::-1, ::-1][::-1, ::-1][::1],
    "flipped": np.flip(np.flip(SHOWN).copy()),
    "one axis flipped": SHOWN[::-1].copy()[::-1],
    "transposed": SHOWN.T.copy().T,
    "big-endian": SHOWN.astype(">f8"),
    "read-only": readonly(SHOWN),
    "from bytes": np.frombuffer(SHOWN.tobytes()).reshape(2, 2),
    "strided": np.kron(SHOWN, np.ones((2, 3)))[::2, ::3],
    "unaligned": unaligned(SHOWN),
    "long double": SHOWN.astype(np.longdouble),
    "masked, nothing": np.ma.masked_array(SHOWN, mask=False),
    "matrix": np.asmatrix(SHOWN),
    "objects": SHOWN.astype(object),
    "fractions": np.array([[Fraction(x) for x in row] for row in SHOWN]),
    "sympy's": np.array([[sympy.Float(x, 20) for x in row] for row in SHOWN]),
    "table": Table(),
    "list of arrays": [readonly(row) for row in SHOWN],
    "list of reversed arrays": [row[::-1].copy()[::-1] for row in SHOWN],
    "list of both": [readonly(SHOWN[0]), [0.25, 0.2]],
    "list of arrays of no axes": [[np.asarray(0.5), 0.1], [0.25, np.asarray(0.2)]],
    "list of numpy's numbers": [list(row) for row in SHOWN],
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_taken_as_they_show(name: str) -> None:
    array = ARRAYS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        system = linrec.LinearRecurrence(array, array, array, array)
        continuous = linrec.StateSpace(array, array)
    matrices = [system.A.to_dense(), system.B, system.C, system.D, continuous.A.to_dense()]
    for matrix in matrices:
        assert isinstance(matrix, Tensor)
        assert matrix.dtype == torch.float64
        np.testing.assert_array_equal(matrix.numpy(), SHOWN)


def test_complex_arrays_of_all_kinds() -> None:
    shown = SHOWN * (1 + 2j)
    for array in (shown, np.flip(np.flip(shown).copy()), shown.astype(">c16"), shown.astype("O")):
        made = matrix_of(array)
        np.testing.assert_array_equal(made.resolve_conj().numpy(), shown)
    np.testing.assert_array_equal(
        matrix_of(shown.astype(">c8")).numpy(), shown.astype(np.complex64)
    )
    assert matrix_of(shown.astype(np.clongdouble)).dtype == torch.complex128


@pytest.mark.parametrize("kind", ["?", "i1", ">i4", "u2", ">u8", "object"])
def test_whole_numbers_become_floats(kind: str) -> None:
    identity = matrix_of(np.eye(2).astype(kind))
    assert torch.equal(identity, torch.eye(2, dtype=identity.dtype))


def test_memory_of_a_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "matrix.npy"
    np.save(path, SHOWN)
    for mode in ("r", "c"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            matrix = matrix_of(np.load(path, mmap_mode=mode))
        np.testing.assert_array_equal(matrix.numpy(), SHOWN)
        matrix.zero_()
        np.testing.assert_array_equal(np.load(path), SHOWN)


def test_plain_numbers_beside_tensors_keep_their_digits() -> None:
    tenth = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    matrix = matrix_of([[tenth, 0.1], [0.1, 0.1]])
    assert torch.equal(matrix.detach(), torch.full((2, 2), 0.1, dtype=torch.float64))
    assert matrix.requires_grad


REFUSED_ARRAYS = {
    "masked": (np.ma.masked_array(SHOWN, mask=[[True, False], [False, False]]), "filled"),
    "text": (np.array([["a", "b"]]), "dtype <U1"),
    "text of numbers": (np.array([["1", "2"]], dtype=object), "'1'"),
    "None": (np.array([[None, 1.0]], dtype=object), "None"),
    "symbols": (np.array([[sympy.Symbol("a")]]), "numbers"),
    "dates": (np.array([["2020-01-01"]], dtype="M8[D]"), "datetime64"),
    "fields": (np.zeros((2, 2), dtype=[("a", "f8")]), "dtype"),
    "ragged": ([np.ones(2), np.ones(3)], "shape"),
}


@pytest.mark.parametrize("name", REFUSED_ARRAYS)
@pytest.mark.parametrize("matrix", "ABCD")
def test_arrays_without_numbers_are_refused(matrix: str, name: str) -> None:
    array, said = REFUSED_ARRAYS[name]
    arguments: dict[str, Any] = {"A": SHOWN, matrix: array}
    with pytest.raises(TypeError, match=f"`{matrix}` is .*{said}"):
        linrec.LinearRecurrence(**arguments)


def nested() -> Tensor:
    return torch.nested.nested_tensor([torch.ones(3, 2), torch.ones(1, 2)], layout=torch.jagged)


TENSORS = {
    "float8": (lambda t: t.to(torch.float8_e4m3fn), ".float()"),
    "float8 of the other kind": (lambda t: t.to(torch.float8_e5m2), ".float()"),
    "complex half": (lambda t: t.to(torch.complex32), ".to(torch.complex64)"),
    "whole": (lambda t: t.long(), ".float()"),
    "truth": (lambda t: t.bool(), ".float()"),
    "sparse": (lambda t: t.to_sparse(), ".to_dense()"),
    "sparse rows": (lambda t: t[..., 0, :, :].to_sparse_csr(), ".to_dense()"),
    "quantized": (
        lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
        ".dequantize()",
    ),
    "nested": (lambda _: nested(), "to_padded_tensor"),
}


@pytest.mark.filterwarnings("ignore")  # torch says that some of these are prototypes
@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.parametrize("name", ["A", "B", "C", "D", "inputs", "initial_state", "input"])
def test_tensors_of_other_kinds_are_refused(name: str, kind: str) -> None:
    make, said = TENSORS[kind]
    wrong = make(torch.eye(2).expand(1, 2, 2))
    right = linrec.LinearRecurrence(torch.eye(2) / 2, torch.eye(2))
    module, inputs = linrec.nn.Recurrence(right), torch.ones(2, 3, 2)
    module(inputs)
    with pytest.raises(TypeError, match=f"`{name}`.*") as refusal:
        if name in "ABCD":
            arguments: dict[str, Any] = {"A": torch.eye(2), name: wrong}
            linrec.LinearRecurrence(**arguments)
        elif name == "inputs":
            with pytest.raises(TypeError):
                module(wrong)
            linrec.run(right, wrong)
        elif name == "input":
            linrec.step(right, wrong, torch.ones(2))
        else:
            with pytest.raises(TypeError):
                module(inputs, wrong)
            linrec.run(right, inputs, wrong)
    assert said in str(refusal.value)


@pytest.mark.parametrize("array", [SHOWN, np.flip(SHOWN), SHOWN.astype(">f8"), readonly(SHOWN)])
def test_what_is_suggested_for_inputs_works(array: Any) -> None:
    recurrence = linrec.LinearRecurrence(SHOWN)
    with pytest.raises(TypeError, match="Pass `") as refusal:
        linrec.run(recurrence, array)
    suggested = str(refusal.value).split("Pass `")[1].rstrip("`.")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inputs = eval(suggested, {"torch": torch, "numpy": np, "inputs": array})
    linrec.run(recurrence, inputs)


@pytest.mark.parametrize(
    "lengths",
    [
        [3, 1],
        (3, 1),
        np.array([3, 1]),
        np.array([1, 3])[::-1],
        np.array([3, 1], dtype=">i4"),
        np.array([3, 1], dtype="u2"),
        readonly(np.array([3, 1])),
    ],
)
def test_lengths_of_all_kinds(lengths: object) -> None:
    inputs, given = torch.ones(2, 4, 2), torch.tensor([3, 1])
    recurrence = linrec.LinearRecurrence(torch.eye(2) / 2)
    layer = lmu.ParallelLMU(2, 3, channels=1, order=2, theta=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in (
            lambda lengths: linrec.run(recurrence, inputs, lengths=lengths),
            lambda lengths: linrec.final(recurrence, inputs, lengths=lengths),
            lambda lengths: layer(inputs, lengths=lengths),
            lambda lengths: layer.final(inputs, lengths=lengths),
        ):
            for got, expected in zip(call(lengths), call(given), strict=True):
                assert torch.equal(got, expected)
