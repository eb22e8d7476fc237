"""Train a detector, segmenter or classifier: ``python tools/train.py CONFIG``."""

from __future__ import annotations

import argparse

import torch
from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint

from ..checkpoints import read_checkpoint
from ..hooks import NameSampleHook
from ..hooks.runner_model import model_of
from ..running import (
    add_common_arguments,
    build_runner,
    check_data,
    check_fit,
    check_overlap,
    check_schedule,
    check_weights,
    end_with_config,
    load_whole,
    make_demo_data,
    plain_errors,
    positive,
    read_config,
    takes_published,
    use_published,
)


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
    parser.add_argument('--amp', action='store_true', help='mixed precision (GPU)')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help='resume from PATH, or, without one, from the latest checkpoint in the work folder',
    )
    return parser.parse_args()


def set_up(cfg: Config, args: argparse.Namespace) -> None:
    """Carry the options of the command line into the config.

    Raises:
        ValueError: If --amp is given without a GPU.
    """
    if args.amp:
        if not torch.cuda.is_available():
            raise ValueError('--amp needs a GPU: leave it out on a CPU')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
    start = cfg.get('load_from')
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if cfg.get('resume') and not cfg.get('load_from'):
        latest = find_latest_checkpoint(cfg.work_dir)
        cfg.load_from, cfg.resume = latest or start, latest is not None


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
        end_with_config(cfg, args, None if cfg.get('resume') else checkpoint)
        runner = build_runner(cfg, args)
        model = model_of(runner)
        if checkpoint is not None and cfg.get('resume'):
            check_fit(model, checkpoint, cfg.load_from)
            if args.data:
                check_schedule(cfg, checkpoint, cfg.load_from)
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
        del checkpoint
        if args.demo:
            make_demo_data(cfg)
    runner.register_hook(NameSampleHook())
    runner.train()
