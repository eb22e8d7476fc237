"""Reading checkpoint files without ever running code that is in them."""

from __future__ import annotations

import os
import pickle
import re

import numpy as np
import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader

_URL = ('http://', 'https://')


class UnreadableCheckpointError(RuntimeError):
    """A file that is no checkpoint, is damaged, or holds more than plain data."""


def _mmengine_classes() -> list:
    """What a training checkpoint of mmengine holds besides tensors: logs, as numpy arrays."""
    multiarray = getattr(np, '_core', None) or np.core
    numpy_parts = [multiarray.multiarray._reconstruct, multiarray.multiarray.scalar]
    numbers = [np.dtype(kind) for kind in ('float64', 'float32', 'int64', 'int32', 'bool')]
    return [HistoryBuffer, np.ndarray, np.dtype, *numpy_parts, *{type(n) for n in numbers}]


def allow_mmengine_classes() -> None:
    """Let ``torch.load(weights_only=True)`` take mmengine's own training checkpoints.

    Torch before 2.4 has no such list; there, only checkpoints without logs can be read.
    """
    if hasattr(torch.serialization, 'add_safe_globals'):
        torch.serialization.add_safe_globals(_mmengine_classes())


def read_checkpoint(path: str | os.PathLike, map_location: object = 'cpu') -> dict:
    """Read a checkpoint, and nothing but tensors and plain data.

    Args:
        path (str | os.PathLike): A file, or a URL (http, https), which is kept in torch.hub's
            folder of checkpoints.
        map_location (object): As in ``torch.load``. Defaults to 'cpu'.

    Returns:
        dict: What the file holds.

    Raises:
        FileNotFoundError: If there is no such file.
        UnreadableCheckpointError: If the file is damaged, or holds code or unknown classes.
    """
    path = os.fspath(path)
    if path.startswith(_URL):
        path = _download(path)
    path = os.path.expanduser(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'there is no checkpoint {path!r}')
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r'GLOBAL (\S+)|Unsupported \w+ (\S+)|(reduce|class) \S+', str(error))
        if refused is None or 'truncated' in str(error):
            raise UnreadableCheckpointError(_damaged(path)) from error
        raise UnreadableCheckpointError(
            f'{path!r} was not loaded: it holds more than tensors and plain data '
            f'({refused.group(0)}), which could run code. Save its tensors alone '
            '(torch.save(model.state_dict(), ...)) where you trust it, and load that file.'
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise UnreadableCheckpointError(_damaged(path)) from error
    if not isinstance(checkpoint, dict):
        raise UnreadableCheckpointError(
            f'{path!r} holds a {type(checkpoint).__name__}, not a dict of tensors'
        )
    return checkpoint


def use_safe_loading() -> None:
    """Make mmengine's own loading (``load_from``, ``resume``) go through this module."""
    CheckpointLoader.register_scheme(('', *_URL), read_checkpoint, force=True)


def _damaged(path: str) -> str:
    return f'{path!r} is not a PyTorch checkpoint, or is damaged or cut short: fetch it again'


def _download(url: str) -> str:
    """Fetch a file once; other processes wait for the first."""
    folder = os.path.join(torch.hub.get_dir(), 'checkpoints')
    path = os.path.join(folder, os.path.basename(url.split('?')[0]))
    if get_dist_info()[0] == 0 and not os.path.exists(path):
        os.makedirs(folder, exist_ok=True)
        torch.hub.download_url_to_file(url, path)
    barrier()
    return path
