"""The part of the command line that training and testing share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import Config, DictAction
from mmengine.dist import barrier
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..checkpoints import UnreadableCheckpointError, use_safe_loading
from .config import DEMO_DIGITS, DEMO_ROOT, demo_root
from .processes import join_processes_on_cpu

_PROBLEMS = (ValueError, TypeError, KeyError, ImportError, OSError, UnreadableCheckpointError)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``tools/train.py`` and ``tools/test.py`` share."""
    parser.add_argument('--work-dir', help='folder for logs and results (work_dirs/CONFIG)')
    parser.add_argument(
        '--demo',
        action='store_true',
        help='run on real handwritten digits, classifiers one by one, others on scenes of them: '
        f'made in {DEMO_ROOT} or {DEMO_DIGITS}, no download',
    )
    parser.add_argument(
        '--data-root',
        metavar='FOLDER',
        help="the data set's folder, instead of the config's",
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings that override the config, e.g. model.backbone.window_size=14',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher (none)',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the program with one plain message where a check before the run fails."""
    try:
        yield
    except _PROBLEMS as error:
        # str() of a KeyError is quoted.
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f'error: {message}', file=sys.stderr)
        sys.exit(2)


def build_runner(cfg: Config, args: argparse.Namespace) -> Runner:
    """Build a runner, its model included; the data are read later.

    Args:
        cfg (Config): The config.
        args (argparse.Namespace): The options of :func:`add_common_arguments`.

    Returns:
        Runner: Ready to train or test.

    Raises:
        ValueError: If another launcher than ``torchrun`` is given without GPUs.
    """
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg.launcher = args.launcher
    if args.launcher != 'none' and not torch.cuda.is_available():
        if args.launcher != 'pytorch':
            raise ValueError(f'--launcher {args.launcher} needs GPUs: on CPUs take pytorch')
        join_processes_on_cpu(cfg)
    use_safe_loading()
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def make_demo_data(cfg: Config) -> None:
    """Make the demo's data where they are not there yet; one process of each machine does.

    Args:
        cfg (Config): The config; classifiers see digits, others scenes of digits.

    Raises:
        ValueError: If there is something else in their folder.
    """
    from ..datasets import make_digit_scenes, make_digits

    # mmengine's get_local_rank() needs a group of each machine, which its Runner does not make.
    if os.environ.get('LOCAL_RANK', '0') == '0':
        root = demo_root(cfg)
        make = make_digits if root == DEMO_DIGITS else make_digit_scenes
        make(root)
    barrier()
