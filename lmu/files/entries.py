"""Check the entries of a JSON object against kinds of values before they are used."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """A kind of value.

    Args:
        test: from a value to whether it is of this kind.
        name: the expected kind, in a few words.
    """

    test: Callable[[object], bool]
    name: str


def is_text(value: object) -> bool:
    """Tell whether a value is text for one line, without escape sequences or lone surrogates."""
    return isinstance(value, str) and value.isprintable()


def is_count(value: object) -> bool:
    """Tell whether a value is a count; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def is_number(value: object) -> bool:
    """Tell whether a value is a number that can be squared and summed."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e100  # NaN is not


def _are(kind: Callable[[object], bool], value: object) -> bool:
    """Tell whether a value is an object whose values are all of a kind."""
    return isinstance(value, dict) and all(map(is_text, value)) and all(map(kind, value.values()))


TEXT = Kind(is_text, "a line of text")
COUNT = Kind(is_count, "a whole number, 0 or more")
NUMBER = Kind(is_number, "a finite number")
SEED = Kind(is_count, "a whole number from 0 to 2^63 - 1")
TEXTS = Kind(lambda value: _are(is_text, value), "lines of text by name")
FIGURES = Kind(
    lambda value: value != {} and _are(is_number, value), "one or more finite numbers by name"
)


def check_entries(content: object, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """Check that a value from JSON is an object with exactly the expected entries.

    Args:
        content: the value.
        kinds: the kind of each entry.

    Returns:
        The same value.

    Raises:
        ValueError: it is not; the message names the entry and the expected kind.
    """
    if not isinstance(content, dict):
        raise ValueError(f"it is a {type(content).__name__}, and not an object")
    missing, unknown = kinds.keys() - content.keys(), content.keys() - kinds.keys()
    if missing or unknown:
        parts = [f"lacks {sorted(missing)}"] * bool(missing)
        parts += [f"has {sorted(unknown)[:3]} beside"] * bool(unknown)
        raise ValueError(f"it {' and '.join(parts)}")
    for name, kind in kinds.items():
        if not kind.test(content[name]):
            raise ValueError(f"`{name}` is {repr(content[name])[:60]}, and not {kind.name}")
    return content
