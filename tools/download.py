"""Fetch the weights that are published for a config: ``python tools/download.py CONFIG``."""

import os

# Before torch loads: idle threads must not spin on cores that others need.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from mmvitbackbones.commands.download import main

if __name__ == '__main__':
    main()
