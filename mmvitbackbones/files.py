"""Files that are there whole, or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

_UNFINISHED = '.unfinished-'


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file beside its place, then move it there.

    Whatever ends the program, ``path`` holds what it held before or all of ``content``. Several
    processes may write the same file.

    Args:
        path (str | os.PathLike[str]): The file; its folder is made where it is missing.
        content (bytes): What it shall hold.

    Raises:
        OSError: If it cannot be written, as on a full disk; nothing of it is left then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f'.{path.name}{_UNFINISHED}{uuid.uuid4().hex}')
    try:
        with open(unfinished, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a machine that stops may keep the name alone
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def remove_unfinished(folder: str | os.PathLike[str]) -> None:
    """Remove what a process that was killed has left of :func:`write_whole`.

    Args:
        folder (str | os.PathLike[str]): Where; nobody else may write there now.
    """
    for path in Path(folder).glob(f'.*{_UNFINISHED}*'):
        path.unlink(missing_ok=True)
