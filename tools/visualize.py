"""Draw what backbones see: ``python tools/visualize.py IMAGE CHECKPOINT... --out FOLDER``."""

import os

# Before torch loads: idle threads must not spin on cores that others need.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from mmvitbackbones.commands.visualize import main

if __name__ == '__main__':
    main()
