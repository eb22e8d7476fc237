"""What a family's rules make of its published tensors."""

from __future__ import annotations

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
