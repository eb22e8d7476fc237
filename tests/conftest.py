"""Settings of the whole suite."""

import ast
import functools
import gc
import os
import sys
from pathlib import Path

# Before torch loads: idle threads must not spin on cores that worker processes need.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
if 'PYTEST_XDIST_WORKER' in os.environ:  # as many processes as cores
    os.environ.setdefault('OMP_NUM_THREADS', '1')
sys.path.insert(0, str(Path(__file__).parent))

import pytest
import torch.distributed
from mmengine.config import config, utils
from yapf.yapflib import yapf_api

from mmvitbackbones.stack import is_onedl

# For every file of a toolbox that a config is based on, mmengine looks for the toolbox and reads
# all of its metafiles, which takes most of the time of reading a config: once is enough here.
config.is_installed = functools.cache(config.is_installed)
utils.load = functools.cache(utils.load)


def read_only(text, **style):
    """Refuse what is no Python, as yapf does, but lay nothing out."""
    ast.parse(text)
    return text, True


# A run prints and saves its config several times: laying that text out takes most of a short run.
# OneDL's mmengine imports what lays it out anew for each text.
layout = config if hasattr(config, 'FormatCode') else yapf_api
layout.FormatCode = read_only


# What one of the two stacks cannot run, and why.
CANNOT = {
    'onedl': {
        'test_setuptools_too_new_for_mmengine': "OneDL's mmengine does not import pkg_resources",
    },
    'openmmlab': {},
}


def pytest_collection_modifyitems(items):
    """Skip what the stack that is here cannot run."""
    reasons = CANNOT['onedl' if is_onedl() else 'openmmlab']
    for item in items:
        if item.originalname in reasons:
            item.add_marker(pytest.mark.skip(reason=reasons[item.originalname]))


def pytest_collection_finish():
    """Spare the garbage collector what was imported, as nothing of it is ever freed."""
    gc.freeze()


@pytest.fixture
def second_process(monkeypatch):
    """This one is the second of two on a machine; for the first, torch's stand-in waits."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    monkeypatch.setenv('LOCAL_RANK', '1')
    torch.distributed.init_process_group('fake', rank=1, world_size=2, store=FakeStore())
    yield
    torch.distributed.destroy_process_group()
