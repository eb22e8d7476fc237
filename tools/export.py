"""Export a model: ``python tools/export.py CONFIG [CHECKPOINT] --out FILE``."""

import os

# Before torch loads: idle threads must not spin on cores that others need.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from mmvitbackbones.commands.export import main

if __name__ == '__main__':
    main()
