"""The part of the command line that training and testing share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import barrier
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..checkpoints import UnreadableCheckpointError, is_published, use_safe_loading
from .cfg_options import add_cfg_options, unknown_argument
from .config import DEMO_DIGITS, DEMO_ROOT, demo_root, load_config
from .loading import write_start
from .processes import is_first, join_processes_on_cpu

_PROBLEMS = (ValueError, TypeError, KeyError, ImportError, OSError, UnreadableCheckpointError)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``tools/train.py`` and ``tools/test.py`` share."""
    parser.add_argument('--work-dir', help='folder for logs and results (work_dirs/CONFIG)')
    add_data_arguments(parser)
    own = parser.add_argument_group('with --data')
    own.add_argument(
        '--image-size',
        nargs='+',
        type=positive,
        metavar='PIXELS',
        help="SHORT LONG of a detector's images, SIDE of others' (the config's)",
    )
    own.add_argument(
        '--batch-size',
        type=positive,
        metavar='N',
        help="images a process trains on in a step (the config's)",
    )
    own.add_argument(
        '--workers', type=int, metavar='N', help="processes that read images (the config's)"
    )
    parser.add_argument(
        '--print-config', action='store_true', help='print the whole config that would run, and end'
    )
    parser.add_argument(
        '--save-config',
        metavar='FILE.py',
        help="write it, for OpenMMLab's own tools for example, and end",
    )
    add_cfg_options(parser, 'settings that override the config, e.g. model.backbone.window_size=14')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher (none)',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which data a config is run on."""
    data = parser.add_argument_group(
        'data', "one of: nothing, for the config's own data set where the config says"
    ).add_mutually_exclusive_group()
    data.add_argument(
        '--data',
        metavar='FOLDER',
        help='your own data set, as COCO, YOLO, pictures and masks, or folders of classes: '
        'docs/your_data.md',
    )
    data.add_argument(
        '--data-root',
        metavar='FOLDER',
        help="the config's own data set (COCO, ADE20K, ImageNet), in another folder",
    )
    data.add_argument(
        '--demo',
        action='store_true',
        help='real handwritten digits, for classifiers one by one, for others in scenes: made in '
        f'{DEMO_ROOT} or {DEMO_DIGITS}, no download',
    )


def positive(text: str) -> int:
    """An option's integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'must be at least 1, got {number}')
    return number


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the program with one plain message where a check before the run fails."""
    try:
        yield
    except _PROBLEMS as error:
        # str() of a KeyError is quoted.
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        message = unknown_argument(str(message)) or message
        print(f'error: {message}', file=sys.stderr)
        sys.exit(2)


def read_config(args: argparse.Namespace, classes: Sequence[str] | None = None) -> Config:
    """Read the config and adapt it to the options of :func:`add_common_arguments`.

    Args:
        args (argparse.Namespace): The options; for training with ``epochs``.
        classes (Sequence[str], optional): Those that a checkpoint knows.

    Returns:
        Config: The config to run.

    Raises:
        ValueError: If options contradict each other or do not fit the config.
        FileNotFoundError: If the config, or a part of the data set, is missing.
    """
    if not args.data:
        for option in ('image_size', 'batch_size', 'workers', 'epochs'):
            if getattr(args, option, None) is not None:
                raise ValueError(
                    f'--{option.replace("_", "-")} goes with --data; other data sets are changed '
                    'by --cfg-options'
                )
    if args.workers is not None and args.workers < 0:
        raise ValueError('--workers must be at least 0')
    cfg = load_config(args.config, args.cfg_options, args.work_dir, args.demo, args.data_root)
    if args.data:
        from .own_data import use_own_data

        cfg = use_own_data(cfg, args, args.cfg_options or {}, classes)
    return cfg


def end_with_config(
    cfg: Config, args: argparse.Namespace, checkpoint: Mapping[str, Any] | None = None
) -> None:
    """Print or write the whole config where that was asked for, and end the program.

    Args:
        cfg (Config): The config.
        args (argparse.Namespace): The options ``print_config`` and ``save_config``.
        checkpoint (Mapping[str, Any], optional): What ``load_from`` holds. Under published names
            OpenMMLab's own tools would load nothing of it: beside the config it is written under
            ours.

    Raises:
        ValueError: If the file's name is none of a config.
        FileExistsError: If there is such a file.
    """
    if args.save_config and is_first():
        if not args.save_config.endswith('.py'):
            raise ValueError(f'--save-config must end with .py, got {args.save_config!r}')
        if os.path.lexists(args.save_config):
            raise FileExistsError(f'{args.save_config} is there already: name another file')
        if checkpoint is not None and is_published(checkpoint):
            start = f'{os.path.splitext(args.save_config)[0]}_start.pth'
            write_start(cfg, checkpoint, start)
            print(f'Written: {start}')
        cfg.dump(args.save_config)
        print(f'Written: {args.save_config}')
    if args.print_config and is_first():
        print(cfg.pretty_text)
    if args.save_config or args.print_config:
        sys.exit(0)


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
