"""What sets one paper's published files apart from another's."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..backbones.pyramid import Pyramid
    from .conversion import Conversion

NOTHING = re.compile(r'(?!)')
FAMILIES: list[Family] = []  # each adds itself where it is made


@dataclass(frozen=True)
class Source:
    """Where a paper's authors publish weights, and whether users still get them.

    Args:
        page (str): The authors' page.
        access (str): 'open': files can be fetched; 'closed': users report that they cannot;
            'shared': behind links that a browser has to open.
        state (str): What users report, in a few words.
        files (Mapping[str, str]): Addresses, by the names that configs give the files.
        others (str): What else they publish.
    """

    page: str
    access: Literal['open', 'closed', 'shared']
    state: str
    files: Mapping[str, str]
    others: str = ''


@dataclass(frozen=True)
class Hint:
    """What to do about tensors that are missing or unexpected.

    Args:
        words (str): What the file has, and what to set.
        missing (str, optional): Pattern of our names; None: whatever is missing.
        unexpected (str, optional): The same of names that the model has no use for.
    """

    words: str
    missing: str | None = None
    unexpected: str | None = None

    def fits(self, missing: Iterable[str], unexpected: Iterable[str]) -> bool:
        """Whether some of the missing names match, and some of the unexpected ones."""
        return all(
            pattern is None or any(re.search(pattern, name) for name in names)
            for pattern, names in ((self.missing, missing), (self.unexpected, unexpected))
        )


@dataclass(frozen=True)
class Family:
    """A paper's published files; its backbone names it in the class attribute ``family``.

    Args:
        name (str): The backbone's name, for messages.
        source (Source): Where its authors publish weights.
        recognise (Callable): Whether the names of a state dict are those of a published file.
        convert (Callable): From a published state dict to tensors under our names.
        resize (Callable): From our name of a tensor, the tensor and the model's shape to a tensor
            of that shape; None where no resizing is defined.
        starts_new (re.Pattern): Our names of what starts new, with a warning, where the file has
            none or one of another shape.
        switched_off (re.Pattern): Our names of what options may leave out of a model. A tensor of
            the file is left out if no loaded name begins as its own does up to the match's end.
        hints (tuple[Hint, ...]): What to do where names do not fit.
        check_classifier (Callable, optional): Raises a ValueError where a whole classifier would
            lose what it needs; takes the backbone, whether the file is a published one, its tensors
            under our names and the file's name.
    """

    name: str
    source: Source
    recognise: Callable[[Mapping[str, Tensor]], bool]
    convert: Callable[[Mapping[str, Tensor]], Conversion]
    resize: Callable[[str, Tensor, torch.Size], Tensor | None]
    starts_new: re.Pattern[str] = NOTHING
    switched_off: re.Pattern[str] = NOTHING
    hints: tuple[Hint, ...] = ()
    check_classifier: Callable[[Pyramid, bool, Mapping[str, Tensor], str], None] | None = None

    def __post_init__(self) -> None:
        FAMILIES.append(self)


def family_of(backbone: object) -> Family | None:
    """The family of a backbone, or of its class; None for those of other packages."""
    family = getattr(backbone, 'family', None)
    return family if isinstance(family, Family) else None


def published_by(path: str | os.PathLike[str]) -> Source | None:
    """Who publishes a file of this name; None: nobody."""
    name = os.path.basename(path)
    return next((f.source for f in FAMILIES if name in f.source.files), None)


def where_published(path: str | os.PathLike[str]) -> str:
    """Where to get a file of this name, as a sentence; '' where nobody publishes one."""
    name, source = os.path.basename(path), published_by(path)
    if source is None:
        return ''
    address = source.files[name]
    if source.access == 'open':
        return f'{name} is published: tools/download.py {name} fetches it from {address}'
    return f'{name} is published at {address} ({source.state})'
