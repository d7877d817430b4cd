"""Dtypes: which ones are computed in, and in which one several tensors meet."""

import torch
from torch import Tensor

# The dtypes that are computed with; half precision is accumulated in float32.
COMPUTED = (
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
    torch.float16,
    torch.bfloat16,
)


def common_dtype(*tensors: Tensor | None) -> torch.dtype:
    """Find the dtype that holds all of these."""
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
    """Kernels and powers are computed in double precision and cast last."""
    return torch.complex128 if dtype.is_complex else torch.float64
