"""What a family's rules make of its published tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Conversion:
    """Published tensors under our names.

    Attributes:
        tensors (dict[str, Tensor]): By our name.
        tied (list[str]): Published names of second copies of tensors that are tied.
        unused (list[str]): Published names of what a backbone does not need.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    tied: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


def rename(name: str, rules: Iterable[tuple[str, str | Callable]]) -> str:
    """Apply a family's rules to a name: patterns and replacements, one after the other."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
