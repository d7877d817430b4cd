"""Helpers for tensors: arguments, dtypes, shapes, devices, and gaps in torch itself."""
