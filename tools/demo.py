"""Train, evaluate and draw a small detector on real handwritten digits: ``make demo``."""

import os

# Before torch loads: idle threads must not spin on cores that others need.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from mmvitbackbones.commands.demo import main

if __name__ == '__main__':
    main()
