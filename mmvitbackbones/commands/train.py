"""Train a detector, segmenter or classifier: ``python tools/train.py CONFIG``."""

from __future__ import annotations

import argparse

import torch
from mmengine.config import Config

from ..checkpoints import read_checkpoint
from ..hooks import NameSampleHook
from ..hooks.runner_model import model_of
from ..running import (
    add_common_arguments,
    build_runner,
    check_classes,
    check_data,
    check_fit,
    check_overlap,
    check_schedule,
    check_weights,
    choose_checkpoint,
    end_if_finished,
    end_with_config,
    full_disk_in_words,
    load_whole,
    make_demo_data,
    plain_errors,
    positive,
    read_config,
    takes_published,
    use_published,
)
from ..running.own_data import choose_start
from ..running.processes import say
from ..running.schedule_check import ScheduleCheckHook


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Train a detector, segmenter or classifier')
    parser.add_argument('config', help='config file')
    add_common_arguments(parser)
    parser.add_argument(
        '--epochs',
        type=positive,
        metavar='N',
        help='with --data: how often each image is seen (from the size of the data set)',
    )
    parser.add_argument(
        '--amp',
        nargs='?',
        const='auto',
        choices=['auto', 'bfloat16', 'float16'],
        help='mixed precision; without a type, float16 on a GPU and bfloat16 on a CPU',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help='resume from PATH, or, without one, from the newest checkpoint that can be read',
    )
    return parser.parse_args()


def set_up(cfg: Config, args: argparse.Namespace) -> None:
    """Carry the options of the command line into the config.

    Raises:
        ValueError: If --amp float16 is given without a GPU.
    """
    if args.amp:
        use_amp(cfg, args.amp)
    if args.resume and args.resume != 'auto':
        cfg.load_from, cfg.resume = args.resume, True
    elif args.resume or (cfg.get('resume') and not cfg.get('load_from')):
        choose_checkpoint(cfg)
    if args.data and not cfg.get('resume'):
        say(f'  {choose_start(cfg, args.cfg_options or {})}')


def use_amp(cfg: Config, precision: str) -> None:
    """Let a config train in mixed precision.

    Args:
        cfg (Config): The config, changed in place.
        precision (str): 'bfloat16', 'float16', or 'auto'.

    Raises:
        ValueError: If float16 is asked for without a GPU.
    """
    wrapper, on_gpu = cfg.optim_wrapper, torch.cuda.is_available()
    for key in ('loss_scale', 'dtype'):
        wrapper.pop(key, None)
    if precision == 'bfloat16' or (precision == 'auto' and not on_gpu):
        wrapper.type = 'BFloat16OptimWrapper'
    elif on_gpu:
        wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    else:
        raise ValueError('--amp float16 needs a GPU: take --amp bfloat16')


def main() -> None:
    """Check all that can be checked, then train."""
    args = parse_args()
    with plain_errors():
        cfg = read_config(args)
        set_up(cfg, args)
        if not args.demo:
            check_data(cfg, 'train_dataloader', 'val_dataloader')
        if not cfg.get('resume'):
            check_weights(cfg)
        checkpoint = read_checkpoint(cfg.load_from) if cfg.get('load_from') else None
        if checkpoint is not None:
            cfg = use_published(cfg, checkpoint, cfg.load_from, args.cfg_options, new_heads=True)
        resumed = checkpoint if cfg.get('resume') else None
        end_with_config(cfg, args, checkpoint if resumed is None else None)
        if resumed is not None:
            if args.data:
                check_classes(cfg, resumed, cfg.load_from, 'train_dataloader')
                check_schedule(cfg, resumed, cfg.load_from)
            end_if_finished(cfg, resumed, cfg.load_from)
        runner = build_runner(cfg, args)
        runner.register_hook(ScheduleCheckHook())
        model = model_of(runner)
        if resumed is not None:
            check_fit(model, resumed, cfg.load_from)
            model.backbone.init_cfg = None  # nothing but the checkpoint is needed
        elif checkpoint is not None and takes_published(model, checkpoint):
            model.init_weights()
            load_whole(model, checkpoint, cfg.load_from)
            runner._load_from = None
        else:
            # Now rather than after the data set was read: a wrong file shows at once.
            model.backbone.init_weights()
            if checkpoint is not None:
                check_overlap(model, checkpoint, cfg.load_from)
        del checkpoint, resumed
        if args.demo:
            make_demo_data(cfg)
    runner.register_hook(NameSampleHook())
    with full_disk_in_words(runner):
        runner.train()
