"""Work on many files at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO, TypeVar

from mmengine.utils import track_iter_progress

T = TypeVar('T')
R = TypeVar('R')


def on_all_cores(
    work: Callable[[T], R], items: Sequence[T], a_process: int, bar: TextIO | None = None
) -> Iterator[R]:
    """What ``work`` returns for each item, in their order, with a progress bar.

    Args:
        work: What is to be done; other processes must be able to find it.
        items: What it is done with.
        a_process: So many items make a process worth its start.
        bar: Where the bar is drawn; None: standard output.

    Yields:
        What ``work`` returns.
    """
    bar, count = bar or sys.stdout, len(items)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    processes = min(cores or 1, count // a_process)
    if processes < 2:
        yield from track_iter_progress((map(work, items), count), file=bar)
        return
    # An interrupt ends this process, and this process the others.
    with multiprocessing.Pool(processes, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield from track_iter_progress((pool.imap(work, items, chunksize=8), count), file=bar)
