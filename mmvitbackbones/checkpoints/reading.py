"""Reading checkpoint files without ever running code that is in them."""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import re
import zipfile
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader

from .family import published_by, where_published

_MOST_UNPACKED = 20  # times the size of a file; weights hardly become smaller
_URL = ('http://', 'https://')


class UnreadableCheckpointError(RuntimeError):
    """A file that is no checkpoint, is damaged, or holds more than plain data."""


@functools.cache
def _safe_classes() -> tuple[Callable[..., Any], ...]:
    """What checkpoints hold besides tensors.

    Those of mmengine hold logs, as numpy arrays; those of many published training scripts the
    arguments of the command line.
    """
    # NumPy 2 renamed the module; files of either version are read under either version.
    core = '_core' if int(np.__version__.split('.')[0]) >= 2 else 'core'
    multiarray = importlib.import_module(f'numpy.{core}.multiarray')
    functions = [
        _named(function, f'numpy.{core}.multiarray')
        for function in (multiarray._reconstruct, multiarray.scalar)
        for core in ('core', '_core')
    ]
    codes = np.typecodes['AllInteger'] + np.typecodes['Float'] + '?'
    numbers = {type(np.dtype(code)) for code in codes}
    functions.append(_named(_statistic, 'builtins', 'getattr'))
    return (Namespace, HistoryBuffer, np.ndarray, np.dtype, *functions, *numbers)


def _named(
    function: Callable[..., Any], module: str, name: str | None = None
) -> Callable[..., Any]:
    """A function under another name: torch looks up by name what a file asks for."""

    def call(*args: object) -> object:
        return function(*args)

    call.__module__ = module
    call.__name__ = call.__qualname__ = name or function.__name__
    return call


def _statistic(owner: object, name: str) -> Callable[..., Any]:
    """Stand in for ``getattr``, by which a log's own statistics are saved, and give no more."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise pickle.UnpicklingError(f'GLOBAL getattr({name!r})')
    return getattr(HistoryBuffer, name)


def allow_mmengine_classes() -> None:
    """Let ``torch.load(weights_only=True)`` take mmengine's own training checkpoints."""
    torch.serialization.add_safe_globals(list(_safe_classes()))


def read_checkpoint(
    path: str | os.PathLike[str],
    map_location: torch.serialization.MAP_LOCATION = 'cpu',
    mmap: bool = False,
) -> dict[str, Any]:
    """Read a checkpoint, and nothing but tensors and plain data; its checksums are verified.

    Args:
        path (str | os.PathLike[str]): A file, or a URL (http, https), which is kept in torch.hub's
            folder of checkpoints.
        map_location (torch.serialization.MAP_LOCATION): As in ``torch.load``. Defaults to 'cpu'.
        mmap (bool): Whether tensors stay in the file until they are used, as in ``torch.load``.
            Defaults to False.

    Returns:
        dict: What the file holds.

    Raises:
        FileNotFoundError: If there is no such file.
        UnreadableCheckpointError: If the file cannot be fetched, is damaged, or holds code or
            unknown classes.
    """
    path = os.fspath(path)
    if path.startswith(_URL):
        path = _download(path)
    path = os.path.expanduser(path)
    if not os.path.isfile(path):
        where = where_published(path)
        raise FileNotFoundError(f'there is no checkpoint {path!r}{where and f". {where}"}')
    try:
        _verify(path)
        allow_mmengine_classes()  # again: after its own reading timm takes some of them off
        checkpoint = torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        refused = re.search(
            r"GLOBAL \S+|Unsupported class \S+|class '[^']+'|reduce \S+|operand \d+", str(error)
        )
        if refused is None or not is_checkpoint(path):
            raise UnreadableCheckpointError(_damaged(path)) from error
        raise UnreadableCheckpointError(
            f'{path!r} was not loaded: it holds more than tensors and plain data '
            f'({refused.group(0)}), which could run code. Save its tensors alone '
            '(torch.save(model.state_dict(), ...)) where you trust it, and load that file.'
        ) from None
    except (MemoryError, PermissionError, UnreadableCheckpointError):
        raise
    # On damaged bytes torch.load fails with whatever the parts of its parser raise.
    except Exception as error:
        raise UnreadableCheckpointError(_damaged(path)) from error
    if not isinstance(checkpoint, dict):
        raise UnreadableCheckpointError(
            f'{path!r} holds a {type(checkpoint).__name__}, not a dict of tensors'
        )
    return checkpoint


def is_absent(path: str) -> bool:
    """Whether a checkpoint's path names no file; whether a URL leads to one is not known."""
    return '://' not in path and not os.path.isfile(os.path.expanduser(path))


def use_safe_loading() -> None:
    """Make mmengine's own loading (``load_from``, ``resume``) go through this module."""
    CheckpointLoader.register_scheme(('', *_URL), read_checkpoint, force=True)


def _verify(path: str) -> None:
    """Compare what a zip file holds with its checksums, as torch does not.

    Raises:
        zipfile.BadZipFile: If they differ.
        UnreadableCheckpointError: If it would unpack to many times its size.
    """
    if not zipfile.is_zipfile(path):
        return  # a pickle, as before torch 1.6; or no checkpoint, which torch finds out
    with zipfile.ZipFile(path) as archive:
        held, size = sum(entry.file_size for entry in archive.infolist()), os.path.getsize(path)
        if held > _MOST_UNPACKED * size:
            raise UnreadableCheckpointError(
                f'{path!r} was not read: its {size:,} bytes would unpack to {held:,}. torch does '
                'not compress checkpoints'
            )
        # torch can be told not to write checksums.
        if any(entry.CRC for entry in archive.infolist()):
            damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(damaged)


def _damaged(path: str) -> str:
    advice = ': fetch it again' if published_by(path) else ''
    return f'{path!r} is not a PyTorch checkpoint, or is damaged or cut short{advice}'


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether a file starts as torch's zip files or as pickles do, unlike a text."""
    with open(path, 'rb') as file:
        return file.read(4).startswith((b'PK\x03\x04', b'\x80'))


def _download(url: str) -> str:
    """Fetch a file once; other processes wait for the first."""
    folder = os.path.join(torch.hub.get_dir(), 'checkpoints')
    path = os.path.join(folder, os.path.basename(url.split('?')[0]))
    first = get_dist_info()[0] == 0
    if not first:
        barrier()
    try:
        # After the first process only those on other machines find nothing there.
        if not os.path.exists(path):
            os.makedirs(folder, exist_ok=True)
            torch.hub.download_url_to_file(url, path)
    except OSError as error:
        raise UnreadableCheckpointError(f'could not fetch {url!r}: {error}') from error
    finally:
        if first:
            barrier()
    return path
