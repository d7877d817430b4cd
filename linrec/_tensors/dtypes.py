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
