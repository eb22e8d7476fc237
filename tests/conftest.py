"""Settings of the whole suite."""

import gc
import os
import sys
from pathlib import Path

# Before torch loads: idle threads must not spin on cores that worker processes need.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
if 'PYTEST_XDIST_WORKER' in os.environ:  # as many processes as cores
    os.environ.setdefault('OMP_NUM_THREADS', '1')
sys.path.insert(0, str(Path(__file__).parent))


def pytest_collection_finish():
    """Spare the garbage collector what was imported, as nothing of it is ever freed."""
    gc.freeze()
