"""Tensors of arguments, their dtypes, shapes and devices, and what torch leaves to be done."""
