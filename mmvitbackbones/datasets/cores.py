"""Work on many files at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar('T')
R = TypeVar('R')


def on_all_cores(work: Callable[[T], R], items: Sequence[T], a_process: int) -> Iterator[R]:
    """What ``work`` returns for each item, in their order.

    Args:
        work: What is to be done; other processes must be able to find it.
        items: What it is done with.
        a_process: So many items make a process worth its start.

    Yields:
        What ``work`` returns.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    processes = min(cores or 1, len(items) // a_process)
    if processes < 2:
        yield from map(work, items)
        return
    # An interrupt ends this process, and this process the others.
    with multiprocessing.Pool(processes, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield from pool.imap(work, items, chunksize=8)
