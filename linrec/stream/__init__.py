"""Streaming: a system with its state, fed samples or blocks as they come, for many streams."""

from linrec.stream.stream import Stream as Stream
