"""Several processes that train or test together."""

from __future__ import annotations

import os

from mmengine.config import Config
from torch import distributed


def join_processes_on_cpu(cfg: Config) -> None:
    """Join the group of processes that ``torchrun`` started, on a machine without a GPU.

    mmengine would ask for CUDA, and give device numbers to the model's wrapper.

    Args:
        cfg (Config): The config, changed in place: its model is wrapped for CPUs.

    Raises:
        ValueError: If ``torchrun`` did not start this process.
    """
    absent = [name for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR') if name not in os.environ]
    if absent:
        raise ValueError(
            f'--launcher on a CPU needs torchrun, which sets {", ".join(absent)}: '
            'torchrun --nproc-per-node 2 tools/train.py CONFIG --launcher pytorch'
        )
    if not distributed.is_initialized():
        distributed.init_process_group('gloo')
    default = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = {**(cfg.get('model_wrapper_cfg') or default), 'device_ids': None}


def is_first_process() -> bool:
    """Whether this is the first, or only, process of a run: it alone prints what all know."""
    return os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0'
