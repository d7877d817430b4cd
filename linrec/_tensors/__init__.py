"""Arguments as tensors, dtypes, shapes and devices, and what torch itself leaves undone."""
