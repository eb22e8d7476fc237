"""Check the data of a config: ``python tools/check_data.py CONFIG``."""

import os

# Before torch loads: idle threads must not spin on cores that others need.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from mmvitbackbones.commands.check_data import main

if __name__ == '__main__':
    main()
