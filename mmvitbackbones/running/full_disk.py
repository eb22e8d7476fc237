"""A disk that becomes full during a run."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.runner import Runner

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def full_disk_in_words(runner: Runner) -> Iterator[None]:
    """End a run that cannot write any more with one line.

    Args:
        runner (Runner): What runs in this context. Its log files, too, end the run, where Python
            would print a traceback for each line and go on.
    """
    for handler in runner.logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handleError = _raise  # type: ignore[method-assign]
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        print(
            f'error: the disk of {runner.work_dir} is full ({error.strerror}), so the run has '
            'ended. Checkpoints written before are whole: make room, then train.py --resume',
            file=sys.stderr,
        )
        sys.exit(1)


def _raise(record: logging.LogRecord) -> None:
    """Raise what :mod:`logging` caught."""
    raise
