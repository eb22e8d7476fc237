"""Options: architectures looked up, values checked, one value for each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Stochastic depth's rates, rising linearly from 0 to ``rate`` over the blocks of all stages.

    Returns:
        list[list[float]]: One list a stage.
    """
    # On the CPU even where models are built on 'meta'.
    rates = torch.linspace(0, rate, sum(depths), dtype=torch.float64, device='cpu').tolist()
    rising = iter(rates)
    return [[next(rising) for _ in range(depth)] for depth in depths]


def check_choice(option: str, value: object, allowed: Sequence[object]) -> None:
    """Raise a ValueError that names the option unless the value is one of those allowed."""
    if value not in allowed:
        raise ValueError(f'{option} must be one of {", ".join(map(repr, allowed))}, got {value!r}')


def check_flags(**flags: bool) -> None:
    """Raise a ValueError that names the option for anything but True and False."""
    for option, flag in flags.items():
        if not isinstance(flag, bool):
            raise ValueError(f'{option} must be True or False, got {flag!r}')


def check_positive(**numbers: int) -> None:
    """Raise a ValueError that names the option for anything but integers of at least 1."""
    for option, number in numbers.items():
        if type(number) is not int or number < 1:
            raise ValueError(f'{option} must be a positive integer, got {number!r}')


def check_rates(**rates: float) -> None:
    """Raise a ValueError that names the option for a rate outside [0, 1)."""
    for option, rate in rates.items():
        if not isinstance(rate, (int, float)) or not 0 <= rate < 1:
            raise ValueError(
                f'{option} must be a number of at least 0 and less than 1, got {rate!r}'
            )


def check_heads(dims: Sequence[int], heads: Sequence[int]) -> None:
    """Raise a ValueError unless the heads of each stage divide its channels."""
    for dim, head in zip(dims, heads):
        if dim % head:
            raise ValueError(f'arch: {head} heads do not divide {dim} channels')


def for_each_stage(value: Any, stages: int) -> list[Any]:
    """A list's or a tuple's own values, or one value for each stage; nothing is checked."""
    return list(value) if isinstance(value, (list, tuple)) else [value] * stages


def one_each(option: str, value: int | Sequence[int], stages: int, least: int = 0) -> list[int]:
    """An option's value for each stage, from one for all or one each.

    Raises:
        ValueError: If there are not as many values as stages, or one is no integer of at least
            ``least``.
    """
    values = for_each_stage(value, stages)
    if len(values) != stages or any(type(v) is not int or v < least for v in values):
        raise ValueError(
            f'{option} must be an integer of at least {least}, or {stages} of them, one for each '
            f'stage; got {value!r}'
        )
    return values


def each_of(
    option: str, value: str | Sequence[str], allowed: Sequence[str], stages: int
) -> list[str]:
    """An option's choice for each stage, from one for all or one each.

    Raises:
        ValueError: If there are not as many choices as stages, or one is not allowed.
    """
    values = for_each_stage(value, stages)
    if len(values) != stages or any(v not in allowed for v in values):
        raise ValueError(
            f'{option} must be {" or ".join(map(repr, allowed))}, or {stages} of them, one for '
            f'each stage; got {value!r}'
        )
    return values


def resolve_arch(
    arch: str | Mapping[str, Any],
    zoo: Mapping[str, Mapping[str, Any]],
    per_stage: Sequence[str],
    optional: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Look an architecture up, or check one given as a dict.

    Args:
        arch (str | Mapping): A name in ``zoo``, or a mapping with the same keys as its entries; or
            one with a name in ``zoo`` as ``base``, which has what the mapping leaves out.
        zoo (Mapping): The published architectures.
        per_stage (Sequence[str]): The keys that hold one positive integer a stage.
        optional (Mapping, optional): What a mapping or an entry may leave out, with the values it
            then has.

    Returns:
        dict: The architecture.

    Raises:
        ValueError: For an unknown name, a missing or unknown key, or lengths that differ.
    """
    optional = optional or {}
    if isinstance(arch, str):
        check_choice('arch', arch, tuple(zoo))
        return {**optional, **zoo[arch]}
    if isinstance(arch, Mapping) and 'base' in arch:
        check_choice("arch['base']", arch['base'], tuple(zoo))
        arch = {**zoo[arch['base']], **arch}
        del arch['base']
    keys = set(next(iter(zoo.values()))) - set(optional)
    wrong = None
    if isinstance(arch, Mapping):
        missing, unknown = keys - set(arch), set(arch) - keys - set(optional)
        wrong = '; '.join(
            f'{title}: {", ".join(sorted(map(str, found)))}'
            for title, found in (('missing', missing), ('unknown', unknown))
            if found
        )
    if not isinstance(arch, Mapping) or wrong:
        more = f' and perhaps {", ".join(sorted(optional))}' if optional else ''
        raise ValueError(
            f'arch must be one of {", ".join(map(repr, zoo))}, or a dict with the keys '
            f'{", ".join(sorted(keys))}{more} (or a base, and those that differ); '
            f'{wrong or f"got {arch!r}"}'
        )
    for key in per_stage:
        numbers = arch[key]
        if (
            not isinstance(numbers, Sequence)
            or not numbers
            or not all(isinstance(n, int) and n > 0 for n in numbers)
        ):
            raise ValueError(f'arch: {key} must be a list of positive integers, got {numbers!r}')
    if len({len(arch[key]) for key in per_stage}) != 1:
        raise ValueError(f'arch must give {", ".join(per_stage)} for as many stages, got {arch!r}')
    return {**optional, **arch}
