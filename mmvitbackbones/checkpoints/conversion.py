"""What a family's rules make of its published tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import Tensor

# Published names of what only a classifier needs: the last norm, RMT's projection before it, the
# linear classifier. And what mmpretrain's ImageClassifier with our necks calls them.
CLASSIFIER = re.compile(r'^(norm|proj|head)\.(?=\w+$)')
_IN_CLASSIFIER = dict(norm='neck.norm.', proj='neck.proj.', head='head.fc.')


def in_classifier(name: str) -> str:
    """Our name of a published tensor of a classifier."""
    return CLASSIFIER.sub(lambda found: _IN_CLASSIFIER[found[1]], name)


@dataclass
class Conversion:
    """Published tensors under our names.

    Attributes:
        tensors (dict[str, Tensor]): By our name.
        tied (list[str]): Published names of second copies of tensors that are tied.
        unused (list[str]): Published names of what has no counterpart here.
        rest (dict[str, Tensor]): By published name, what a classifier has beyond the backbone; by
            that of mmdetection or mmsegmentation, what their models have.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    tied: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    rest: dict[str, Tensor] = field(default_factory=dict)


def rename(name: str, rules: Iterable[tuple[str, str | Callable[[re.Match[str]], str]]]) -> str:
    """Apply a family's rules to a name: patterns and replacements, one after the other."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
