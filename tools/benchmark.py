"""Time a backbone, alone or against another: ``python tools/benchmark.py CONFIG``."""

import os

# Before torch loads: idle threads must not spin on cores that others need.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from mmvitbackbones.commands.benchmark import main

if __name__ == '__main__':
    main()
