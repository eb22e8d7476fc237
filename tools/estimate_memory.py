"""Estimate memory on a GPU without one: ``python tools/estimate_memory.py CONFIG...``."""

import os

# Before torch loads: idle threads must not spin on cores that others need.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from mmvitbackbones.commands.estimate_memory import main

if __name__ == '__main__':
    main()
