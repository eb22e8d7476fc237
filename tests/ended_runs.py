"""A hook that ends a training as a machine might, named in a config's ``custom_imports``."""

import errno
import os
import resource
import signal

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class EndRun(Hook):
    """End the process in an iteration.

    Args:
        iteration (int): Which, from 1.
        how (str): 'killed': at once. 'in_a_write': as the next file is written beside its
            place, before it is moved there. 'disk_full_when_saving': no room for the next file.
            'disk_full_when_logging': no file can grow beyond a few bytes.
    """

    priority = 'VERY_HIGH'

    def __init__(self, iteration, how):
        self.iteration, self.how = iteration, how

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 != self.iteration:
            return
        if self.how == 'killed':
            _kill()
        elif self.how == 'in_a_write':
            os.fsync = _kill
        elif self.how == 'disk_full_when_saving':
            os.fsync = _no_room
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))


def _kill(*_):
    # With the workers: left alone, one of them may wait forever with our pipes open.
    alone = os.getpgid(0) == os.getpid()
    os.killpg(0, signal.SIGKILL) if alone else os.kill(os.getpid(), signal.SIGKILL)


def _no_room(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
