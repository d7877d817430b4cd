"""Dtypes used for computing, and the common dtype of several tensors."""

import torch
from torch import Tensor

# The dtypes used for computing; half precision is accumulated in float32.
COMPUTED = (
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
    torch.float16,
    torch.bfloat16,
)


def common_dtype(*tensors: Tensor | None) -> torch.dtype:
    """Find the dtype that holds all the tensors."""
    dtype: torch.dtype | None = None
    for tensor in tensors:
        if tensor is None or tensor.dtype is dtype:
            continue
        dtype = tensor.dtype if dtype is None else torch.promote_types(dtype, tensor.dtype)
    assert dtype is not None, "there is no tensor"
    return dtype


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of sums: float32 for half precision, else the dtype itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def double_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which kernels and powers are computed: double precision, cast last."""
    return torch.complex128 if dtype.is_complex else torch.float64


def check_cast(dtype: torch.dtype, target: torch.dtype | torch.device | str) -> None:
    """Refuse a dtype that cannot hold the numbers of a system of another dtype."""
    if not isinstance(target, torch.dtype):
        return
    if target not in COMPUTED:
        raise ValueError(
            f"The system of {dtype} cannot be of {target}: expected one of "
            f"{', '.join(map(str, COMPUTED))}."
        )
    if dtype.is_complex and not target.is_complex:
        wide = torch.promote_types(target, torch.complex64)
        raise ValueError(
            f"The system of {dtype} cannot be of {target}, which has no imaginary part: expected "
            f"{wide}, say. `linrec.real_part` makes a real system of a complex one."
        )
