"""Evaluate a detector, segmenter or classifier: ``python tools/test.py CONFIG CHECKPOINT``."""

import os

# Before torch loads: idle threads must not spin on cores that others need.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from mmvitbackbones.commands.test import main

if __name__ == '__main__':
    main()
