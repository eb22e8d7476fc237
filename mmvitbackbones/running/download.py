"""Fetching published weights, once and whole."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from ..checkpoints.family import published_by
from ..checkpoints.reading import is_checkpoint
from ..zoo import read_zoo
from .nodes import dicts

FOLDER = Path('checkpoints')
SUMS = 'SHA256SUMS'  # as of sha256sum: `sha256sum -c SHA256SUMS` checks all
_BLOCK = 1 << 20
_SECONDS = 30  # without a byte


def weights_of(cfg: Config) -> list[Path]:
    """The files that a config is trained from or, in the zoo, has been trained to.

    Args:
        cfg (Config): The config.

    Returns:
        list[Path]: The trained model first, if its authors publish one.
    """
    files = []
    row = read_zoo().rows.get(Path(cfg.filename).stem)
    if row and row.trained:
        files.append(FOLDER / row.trained)
    starts = [part.get('checkpoint') for part in dicts(cfg.model.backbone.get('init_cfg'))]
    starts.append(cfg.get('load_from'))
    files += [Path(start).expanduser() for start in starts if start and '://' not in start]
    return list(dict.fromkeys(files))


def fetch(path: Path) -> str:
    """Fetch a published file, unless it is there.

    What an interrupted call has fetched stays in ``NAME.part``, and the next one goes on there.

    Args:
        path (Path): Where to; its name says which.

    Returns:
        str: What was done: the file, its size and its SHA-256, which is also written into
        ``SHA256SUMS`` beside it.

    Raises:
        FileNotFoundError: If nobody publishes such a file.
        ValueError: If its SHA-256 is not that of ``SHA256SUMS``.
        OSError: If it cannot be fetched; in one line.
    """
    source = published_by(path)
    if path.is_file():
        return f'{path} is there: {_described(path)}'
    if os.path.lexists(path):
        raise FileExistsError(f'{path} is there, but is no file: move it away')
    if source is None:
        raise FileNotFoundError(
            f'nobody publishes a file {path.name}: either you make it, or it is not to be had'
        )
    address = source.files[path.name]
    if source.access == 'shared':
        raise OSError(
            f'{path.name} is {source.state}. Open {address} in a browser, and save it as {path}'
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.part')
    try:
        _download(address, part)
    except (OSError, http.client.HTTPException) as error:
        state = '' if source.access == 'open' else f'; users report: {source.state}'
        kept = ' What was fetched is kept: the same command goes on.' if part.is_file() else ''
        raise OSError(
            f'could not fetch {address}: {_reason(error)}{state}. Fetched elsewhere, it belongs '
            f'in {path}.{kept}'
        ) from None
    if not is_checkpoint(part):
        part.unlink()
        raise OSError(f'{address} answered with something that is no checkpoint: a page, perhaps')
    described = _described(part, path.name)
    if os.path.lexists(path):
        raise FileExistsError(f'{path} has appeared meanwhile, and stays; {part} is the same file')
    part.replace(path)
    _tag_of(part).unlink(missing_ok=True)
    return f'{path}: {described}'


def _download(address: str, part: Path) -> None:
    """Fetch what a partial file lacks.

    Raises:
        OSError: Also where the connection ends early.
    """
    tag, done = _tag_of(part), part.stat().st_size if part.is_file() else 0
    headers = {'User-Agent': 'mmvitbackbones'}
    if done and (version := tag.read_text() if tag.is_file() else ''):
        # The server sends the rest, or all of it where the file has changed.
        headers |= {'Range': f'bytes={done}-', 'If-Range': version}
    try:
        answer = _open(address, headers)
    except urllib.error.HTTPError as error:
        whole = re.fullmatch(r'bytes \*/(\d+)', error.headers.get('Content-Range', ''))
        if error.code != 416:
            raise
        if whole and int(whole[1]) == done:
            return
        part.unlink()
        answer = _open(address, {'User-Agent': headers['User-Agent']})
    with answer:
        if answer.status != 206:
            done = 0
        elif not answer.headers.get('Content-Range', '').startswith(f'bytes {done}-'):
            part.unlink()
            raise ConnectionError('the server sent another part than was asked for')
        left = answer.headers.get('Content-Length')
        total = done + int(left) if left else None
        tag.write_text(answer.headers.get('ETag') or answer.headers.get('Last-Modified') or '')
        with part.open('ab' if done else 'wb') as file, _progress() as progress:
            task = progress.add_task(part.stem, total=total, completed=done)
            while block := answer.read(_BLOCK):
                file.write(block)
                progress.advance(task, len(block))
    size = part.stat().st_size
    if total is None:
        raise ConnectionError('the server does not say how large the file is')
    if size != total:
        raise ConnectionError(f'the connection ended after {size} of {total} bytes')


def _open(address: str, headers: dict[str, str]) -> Any:
    return urllib.request.urlopen(
        urllib.request.Request(address, headers=headers), timeout=_SECONDS
    )


def _progress() -> Progress:
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )


def _tag_of(part: Path) -> Path:
    """The file that says which version of the address a partial file is of."""
    return part.with_name(f'{part.name}.tag')


def _reason(error: Exception) -> str:
    """An error's own words."""
    if isinstance(error, urllib.error.HTTPError):
        return f'HTTP {error.code} {error.reason}'
    if isinstance(error, urllib.error.URLError):
        error = error.reason if isinstance(error.reason, Exception) else error
        return f'no connection ({error})'
    return str(error) or type(error).__name__


def _described(path: Path, name: str | None = None) -> str:
    """A file's size and SHA-256, which is checked where it is known, and noted where not.

    Raises:
        ValueError: If another is known.
    """
    name = name or path.name
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    found = digest.hexdigest()
    sums = path.with_name(SUMS)
    known = dict(_known(sums)).get(name)
    size = f'{path.stat().st_size / 1e6:.1f} MB, SHA-256 {found}'
    if known is None:
        before = sums.read_text() if sums.is_file() else ''
        glue = '' if not before or before.endswith('\n') else '\n'
        with sums.open('a') as file:
            file.write(f'{glue}{found}  {name}\n')
        return f'{size} (noted in {sums})'
    if known != found:
        raise ValueError(
            f'{path} has the SHA-256 {found}, but {sums} has {known} for {name}: remove the file '
            'and fetch it again, or that line if the authors have published another'
        )
    return f'{size} (as in {sums})'


def _known(sums: Path) -> Iterator[tuple[str, str]]:
    """Names and sums of a file of sha256sum."""
    for line in sums.read_text().splitlines() if sums.is_file() else ():
        found, _, name = line.partition(' ')
        yield name.lstrip(' *'), found.lower()
