"""What is wrong with a configuration, and what would be right."""

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NO_SUCH_KEY = "there is no such key"
Place = tuple[str | int, ...]
"""The keys and positions that lead to a value."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake at a place; `nearest` is the known name that comes closest to an unknown one.

    `unset` marks no mistake of the file: a variable of the environment that it needs is not set here.
    """

    at: Place
    wrong: str
    right: str = ""
    nearest: str | None = None
    unset: bool = False


@dataclass(frozen=True, slots=True)
class Mistake:
    """A problem as it is told: with the file, the line, and the application that it concerns."""

    file: str
    line: int | None
    application: str | None
    field: str
    wrong: str
    right: str
    nearest: str | None
    unset: bool

    def __str__(self) -> str:
        """Three lines: where, what is wrong, and what would be right."""
        whose = f"application {self.application}, " if self.application else ""
        line = "" if self.line is None else f":{self.line}"
        suggestion = f"did you mean {self.nearest!r}?" if self.nearest else ""
        right = " ".join(part for part in (suggestion, self.right) if part)
        told = [f"{self.file}{line}: {whose}{self.field or 'the whole file'}", f"    wrong: {self.wrong}"]
        return "\n".join(told + ([f"    right: {right}"] if right else []))

    def told(self) -> dict[str, Any]:
        """The same for programs."""
        return asdict(self)


def located(problem: Problem, file: Path, line: int | None, content: Any) -> Mistake:
    """Say where in a file a problem is."""
    return Mistake(
        file=str(file),
        line=line,
        application=_application(problem.at, content),
        field=written(problem.at),
        wrong=problem.wrong,
        right=problem.right,
        nearest=problem.nearest,
        unset=problem.unset,
    )


def written(place: Place) -> str:
    """Write a place as `applications[0].args.name`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def nearest(name: object, known: Iterable[object]) -> str | None:
    """Find the known name that looks most like this one, if any does."""
    close = difflib.get_close_matches(str(name), [str(each) for each in known], n=1)
    return close[0] if close else None


def _application(place: Place, content: Any) -> str | None:
    if len(place) < 2 or place[0] != "applications":
        return None
    try:
        return str(content["applications"][place[1]]["name"])
    except (LookupError, TypeError):
        return None
