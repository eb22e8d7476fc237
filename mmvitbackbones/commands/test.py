"""Evaluate a detector, segmenter or classifier: ``python tools/test.py CONFIG CHECKPOINT``."""

from __future__ import annotations

import argparse
import os
import os.path as osp
from typing import Any

from mmengine.config import Config

from ..checkpoints import OURS, read_checkpoint
from ..hooks import NameSampleHook
from ..hooks.runner_model import model_of
from ..running import (
    add_common_arguments,
    build_runner,
    check_classes,
    check_data,
    check_fit,
    classes_of,
    end_with_config,
    load_whole,
    make_demo_data,
    plain_errors,
    read_config,
    takes_published,
    use_published,
    use_tta,
)
from ..running.predicting import kind_of

# By its place, which is known wherever the config is read.
PLOTS = 'mmvitbackbones.evaluation.ResultPlots'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Evaluate a detector, segmenter or classifier')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help="checkpoint file; a classifier's may be as published")
    add_common_arguments(parser)
    parser.add_argument('--out', metavar='FILE.pkl', help='write all predictions to a pickle file')
    parser.add_argument(
        '--show-dir', metavar='FOLDER', help='draw predictions beside the truth into this folder'
    )
    parser.add_argument(
        '--plots',
        metavar='FOLDER',
        help='draw precision by recall, confusion matrix, worst and best images into this folder',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation: several scales, mirrored too, by the config's tta_pipeline",
    )
    return parser.parse_args()


def set_up(cfg: Config, args: argparse.Namespace) -> None:
    """Carry the options of the command line into the config.

    Raises:
        ValueError: If the config cannot draw, or --tta lacks settings.
    """
    if args.tta:
        use_tta(cfg)
    cfg.load_from, cfg.resume = args.checkpoint, False
    if args.out:
        dump = 'DumpDetResults' if cfg.get('default_scope') == 'mmdet' else 'DumpResults'
        add_metric(cfg, dict(type=dump, out_file_path=args.out))
    if args.plots:
        if osp.isfile(args.plots) or (osp.isdir(args.plots) and os.listdir(args.plots)):
            raise FileExistsError(f'--plots {args.plots} is there already: name a new folder')
        plots = dict(type=PLOTS, folder=osp.abspath(args.plots), kind=kind_of(cfg))
        add_metric(cfg, plots)
    if args.show_dir:
        hook = cfg.default_hooks.get('visualization')
        if hook is None:
            raise ValueError('--show-dir needs a visualization hook in default_hooks')
        folder, scope = osp.abspath(args.show_dir), cfg.get('default_scope')
        if scope == 'mmdet':
            hook.update(draw=True, test_out_dir=folder)  # else a folder in the work folder
        elif scope == 'mmpretrain':
            hook.update(enable=True, interval=1, out_dir=folder)
        else:
            hook.update(draw=True, interval=1)
            cfg.visualizer.save_dir = folder


def add_metric(cfg: Config, metric: dict[str, Any]) -> None:
    """Add a metric to those of the test."""
    metrics = cfg.test_evaluator
    metrics = list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]
    cfg.test_evaluator = [*metrics, metric]


def main() -> None:
    """Check all that can be checked, then test."""
    args = parse_args()
    with plain_errors():
        if args.out and not args.out.endswith(('.pkl', '.pickle')):
            raise ValueError(f'--out must end with .pkl or .pickle, got {args.out!r}')
        checkpoint = read_checkpoint(args.checkpoint)
        cfg = read_config(args, classes_of(checkpoint))
        # Before --tta wraps the model, and before its and other arguments go before options.
        cfg = use_published(cfg, checkpoint, args.checkpoint, args.cfg_options)
        set_up(cfg, args)
        if not args.demo:
            check_data(cfg, 'test_dataloader')
        check_classes(cfg, checkpoint, args.checkpoint)
        end_with_config(cfg, args)
        # A Runner writes its config under this name: where the training's is, that stays.
        object.__setattr__(cfg, '_filename', None)
        runner = build_runner(cfg, args)
        if args.show_dir and runner.world_size > 1:  # mmengine lets the first process alone draw
            raise ValueError(
                f'--show-dir would draw the images of the first of {runner.world_size} processes '
                'alone: draw without --launcher'
            )
        model = model_of(runner)
        published = False
        if takes_published(model, checkpoint):
            report = load_whole(model, checkpoint, args.checkpoint, complete=True)
            published, runner._load_from = report.kind != OURS, None
        if not published:
            check_fit(model, checkpoint, args.checkpoint)
        del checkpoint
        if args.demo:
            make_demo_data(cfg)
    runner.register_hook(NameSampleHook())
    runner.test()
    if args.plots:
        print(f'Plots: {args.plots}')
