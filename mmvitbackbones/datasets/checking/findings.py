"""What a check found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

SHOWN = 3  # offenders that are named


@dataclass(frozen=True)
class Finding:
    """A kind of fault in a file or folder; as text, one line.

    Attributes:
        file: Where it is.
        problem: What is wrong.
        consequence: What happens: what the toolbox does with it, or what to do where it is refused.
        refused: Whether nothing is run with it.
        first: The first offenders, at most ``SHOWN``.
        count: How many there are.
    """

    file: str
    problem: str
    consequence: str
    refused: bool = True
    first: tuple[str, ...] = ()
    count: int = 0

    def __str__(self) -> str:
        more = self.count - len(self.first)
        named = '; '.join([*self.first, *([f'and {more} more'] if more > 0 else [])])
        outcome = f'refused: {self.consequence}' if self.refused else self.consequence
        return f'{self.file}: {self.problem}{f" ({named})" if named else ""}: {outcome}'


@dataclass(frozen=True)
class Kind:
    """A kind of fault that rows or files of one place may have.

    Attributes:
        problem: What they are or have, after their number: 'images are empty files'.
        consequence: As in :class:`Finding`.
        refused: As in :class:`Finding`.
    """

    problem: str
    consequence: str
    refused: bool = True


class Tally:
    """Counts the offenders of each kind and keeps the first of them, however many there are."""

    def __init__(self) -> None:
        self._first: dict[Kind, list[str]] = {}
        self._count: dict[Kind, int] = {}

    def add(self, kind: Kind, name: Callable[..., str], *of: object) -> None:
        """Count one, whose name is ``name(*of)``: that is asked for only of the first."""
        first = self._first.setdefault(kind, [])
        if len(first) < SHOWN:
            first.append(name(*of))
        self._count[kind] = self._count.get(kind, 0) + 1

    def findings(self, file: str) -> Iterable[Finding]:
        """One for each kind that was met, in the order in which they were."""
        for kind, first in self._first.items():
            count = self._count[kind]
            problem = f'{count} {kind.problem}'
            yield Finding(file, problem, kind.consequence, kind.refused, tuple(first), count)


def raise_it(error: OSError) -> None:
    """For ``os.walk``, which passes over folders that may not be read."""
    raise error
