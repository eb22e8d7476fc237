"""The checkpoint that a training which was ended goes on from."""

from __future__ import annotations

import os
import re
from pathlib import Path

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
        problem = _problem(named)
        if problem is None:
            return str(named), remarks
        remarks.append(problem)
    others = [path for path in others if named is None or path.name != named.name]
    if not others and named is None:
        return None, remarks
    dated, broken = [], []
    for path in others:
        try:
            meta = read_checkpoint(path, mmap=True)['meta']
            dated.append((meta['time'], meta['iter'], path))
        except (UnreadableCheckpointError, OSError, KeyError, TypeError) as error:
            broken.append(_in_words(path, error))
    for _, _, path in sorted(dated, reverse=True):
        problem = _problem(path)
        if problem is None:
            return str(path), [*remarks, f'resuming from {path} instead']
        remarks.append(problem)
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


def _problem(path: Path) -> str | None:
    """Why a training cannot go on from a file; None if it can."""
    try:
        checkpoint = read_checkpoint(path, mmap=True)
    except (UnreadableCheckpointError, OSError) as error:
        return _in_words(path, error)
    meta = checkpoint.get('meta')
    if not isinstance(meta, dict) or not {'iter', 'epoch'} <= meta.keys():
        return f'{path} is no checkpoint of a training'
    return None


def _in_words(path: Path, error: Exception) -> str:
    if path.is_dir():
        return f'{path} is a folder'
    if isinstance(error, (KeyError, TypeError)):
        return f'{path} is no checkpoint of a training'
    return str(error)
