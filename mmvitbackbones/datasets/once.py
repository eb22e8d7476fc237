"""Folders of data that are made once."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def make_once(root: str, meta: dict[str, Any], write: Callable[[Path], None], what: str) -> str:
    """Make a folder of data, unless it is there already; it appears only when it is complete.

    Args:
        root (str): The folder.
        meta (dict): What the data are made from, kept in its ``meta.json``.
        write (Callable[[Path], None]): Writes the data into the folder that it is given.
        what (str): What they are, for messages: 'digit scenes'.

    Returns:
        str: ``root``.

    Raises:
        FileExistsError: If ``root`` holds something else; nothing of it is touched.
    """
    folder = Path(root).resolve()
    if _is_made(folder, meta, what):
        return root
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{folder.name}-', dir=folder.parent) as temporary:
        unfinished = Path(temporary) / folder.name
        unfinished.mkdir()
        write(unfinished)
        (unfinished / 'meta.json').write_text(json.dumps(meta))
        try:
            unfinished.rename(folder)
        except OSError:
            # Another process may have finished the same data in the meantime.
            if not _is_made(folder, meta, what):
                raise
    return root


def _is_made(folder: Path, meta: dict[str, Any], what: str) -> bool:
    """Whether ``folder`` holds the data of ``meta``; False if there is nothing in it."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / 'meta.json').read_text())
    except (OSError, ValueError):
        raise FileExistsError(
            f'{folder} is there but does not hold {what}: move it away, or choose another root'
        ) from None
    if found != meta:
        raise FileExistsError(
            f'{folder} holds other {what} (made with {found}, asked for {meta}): '
            'move it away, or choose another root'
        )
    return True
