"""Varying systems, diagonal or diagonal plus low rank, in chunks of steps."""
