"""The checkpoint that a training which was ended goes on from."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from .reading import UnreadableCheckpointError, read_checkpoint

LAST = 'last_checkpoint'  # mmengine's file: the name of the last one
# Those of epochs or iterations; a best one lacks the optimizer's state.
_SERIES = re.compile(r'(?!best_).*_\d+\.pth')


def newest_checkpoint(folder: str | os.PathLike[str]) -> tuple[str | None, list[str]]:
    """Find the newest checkpoint in a folder that a training can go on from.

    That is the one which ``last_checkpoint`` names; where it cannot be read, the latest other one,
    as the files themselves say when they were written.

    Args:
        folder (str | os.PathLike[str]): A training's work folder.

    Returns:
        tuple: The file, or None if there is no checkpoint; and what is wrong with files that
        should be better, a line each.

    Raises:
        UnreadableCheckpointError: If there are checkpoints, but none can be used.
    """
    folder = Path(folder)
    others = [path for path in sorted(folder.glob('*.pth')) if _SERIES.fullmatch(path.name)]
    named, remarks = _named(folder / LAST, bool(others))
    if named is not None:
        found = _meta(named, 'epoch', 'iter')
        if not isinstance(found, str):
            return str(named), remarks
        remarks.append(found)
    others = [path for path in others if named is None or path.name != named.name]
    if not others and named is None:
        return None, remarks
    dated, broken = [], []
    for path in others:
        found = _meta(path, 'epoch', 'iter', 'time')
        if isinstance(found, str):
            broken.append(found)
        else:
            dated.append((found['time'], found['iter'], path))
    if dated:
        _, _, path = max(dated)
        return str(path), [*remarks, f'resuming from {path} instead']
    raise UnreadableCheckpointError(
        f'none of the checkpoints in {folder} can be resumed from: '
        f'{"; ".join([*remarks, *broken])}. To start anew, take another --work-dir'
    )


def _named(path: Path, expected: bool) -> tuple[Path | None, list[str]]:
    """What ``last_checkpoint`` names, if it does; and what is wrong with it."""
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return None, [f'{path} is missing'] if expected else []
    except (OSError, UnicodeDecodeError) as error:
        return None, [f'{path} cannot be read ({error})']
    if not text:
        return None, [f'{path} is empty']
    named = path.parent / text
    if named.exists():
        return named, []
    # An absolute path of another machine, or of a folder that was moved.
    beside = path.parent / named.name
    if beside.exists():
        return beside, []
    return None, [f'{path} names {text}, which is not there']


def _meta(path: Path, *needed: str) -> dict[str, Any] | str:
    """What a file says about its training; or why a training cannot go on from it."""
    if path.is_dir():
        return f'{path} is a folder'
    try:
        meta = read_checkpoint(path, mmap=True).get('meta')
    except (UnreadableCheckpointError, OSError) as error:
        return str(error)
    if not isinstance(meta, dict) or not {*needed} <= meta.keys():
        return f'{path} is no checkpoint of a training'
    return meta
