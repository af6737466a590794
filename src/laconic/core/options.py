"""Hyper-parameters as frozen dataclasses whose fields are checked and explain themselves."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Self

from laconic.errors import LaconicError


def option(default: Any, text: str) -> Any:
    """A field with its default and one line on what it means."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of a method's configuration.

    Attributes:
        title: the method's name in messages.

    Raises:
        LaconicError: a value is not of its field's type, or not finite.
    """

    title: ClassVar[str]

    def __post_init__(self) -> None:
        for field_ in fields(self):
            value, kind = getattr(self, field_.name), type(field_.default)
            fits = isinstance(value, (int, float) if kind is float else kind)
            if not fits or isinstance(value, bool) != (kind is bool):  # a bool is an int to Python
                raise LaconicError(f"{field_.name} is {value!r}, which is no {kind.__name__}.")
            if kind is float and not math.isfinite(value):
                raise LaconicError(f"{field_.name} is {value!r}, which is not finite.")

    def require_one_of(self, name: str, choices: tuple[str, ...]) -> None:
        """Raise ``LaconicError`` unless the field has one of these values."""
        value = getattr(self, name)
        if value not in choices:
            raise LaconicError(f"Unknown {name} {value!r}.", f"Choose one of {', '.join(choices)}.")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        names = [f.name for f in fields(cls)]
        unknown = set(values) - set(names)
        if unknown:
            raise LaconicError(f"{cls.title} has no option {sorted(unknown)[0]!r}.", f"It has: {', '.join(names)}.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
