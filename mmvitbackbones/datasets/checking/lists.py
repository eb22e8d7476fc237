"""Text files with an image a line."""

from __future__ import annotations

from pathlib import Path

from .findings import Finding


def read_lines(path: str, wanted: str) -> list[str] | Finding:
    """Read a list.

    Args:
        path: The file.
        wanted: What to write into it if it is empty.

    Returns:
        Its lines; or what is wrong with it.

    Raises:
        OSError: If it may not be read.
    """
    try:
        lines = Path(path).read_text(encoding='utf-8').split('\n')
    except UnicodeDecodeError as error:
        return Finding(path, f'is not in UTF-8 ({error.reason})', 'save it as that')
    if lines[-1] == '':
        lines.pop()
    return lines or Finding(path, 'is empty', wanted)
