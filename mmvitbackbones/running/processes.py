"""Several processes that train or test together."""

from __future__ import annotations

import os
import sys

from mmengine.config import Config
from torch import distributed

from .nodes import named_dicts

_SYNCHRONISED = ('SyncBN', 'MMSyncBN')


def is_first() -> bool:
    """Whether this is the only process or the first of several, before they are a group."""
    return os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0'


def say(*lines: str) -> None:
    """Print lines to the standard error, in the first of several processes alone.

    Args:
        *lines (str): What to say, before there is a logger.
    """
    if is_first():
        for line in lines:
            print(line, file=sys.stderr, flush=True)


def join_processes_on_cpu(cfg: Config) -> None:
    """Join the group of processes that ``torchrun`` started, on a machine without a GPU.

    mmengine would ask for CUDA, and give device numbers to the model's wrapper.

    Args:
        cfg (Config): The config, changed in place: its model is wrapped for CPUs.

    Raises:
        ValueError: If ``torchrun`` did not start this process; if the model has synchronised norms.
    """
    absent = [name for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR') if name not in os.environ]
    if absent:
        raise ValueError(
            f'--launcher on a CPU needs torchrun, which sets {", ".join(absent)}: '
            'torchrun --nproc-per-node 2 tools/train.py CONFIG --launcher pytorch'
        )
    _check_norms(cfg)
    if not distributed.is_initialized():
        distributed.init_process_group('gloo')
    default = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = {**(cfg.get('model_wrapper_cfg') or default), 'device_ids': None}


def _check_norms(cfg: Config) -> None:
    """Check that all norms of a model are those that torch computes on CPUs.

    Raises:
        ValueError: If some are synchronised; names the options that change them.
    """
    if cfg.get('sync_bn'):
        raise ValueError(f'sync_bn={cfg.sync_bn} needs GPUs: on CPUs leave it out')
    # --tta has put the model into another one, after the options were read.
    model = cfg.model.get('module') or cfg.model
    parts = named_dicts(model, 'model')
    names = [name for name, part in parts if part.get('type') in _SYNCHRONISED]
    if names:
        raise ValueError(
            'norms of type SyncBN need GPUs. On CPUs each process can take the statistics of its '
            'own images: --cfg-options ' + ' '.join(f'{name}.type=BN' for name in names)
        )
