"""What sets one paper's published files apart from another's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..backbones.pyramid import Pyramid
    from .conversion import Conversion

NOTHING = re.compile(r'(?!)')
FAMILIES: list[Family] = []  # each adds itself where it is made


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
        weights (str): Where its authors publish weights.
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
    weights: str
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
