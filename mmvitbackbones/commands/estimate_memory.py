"""Estimate memory on a GPU without one: ``python tools/estimate_memory.py CONFIG...``.

Of the backbone: its weights in float32, and what a forward pass or a training step needs beside
them, by autocast in a half type. Heads and their data come on top. For batches that fit a card
count AdamW's two tensors a weight, too, and assume what is true of these backbones: memory grows
by the same amount with each image.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from typing import Any

import torch
from mmengine.registry import MODELS

from ..running import plain_errors, positive
from ..running.fake_cuda import peak_memory
from ..stack import TOOLBOXES
from .benchmark import BenchmarkError, find_backbone
from .complexity import read

_MIB, _GIB = 2**20, 2**30
_RESERVED = _GIB  # what torch and its libraries take on a card, and holes between blocks


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Estimate the peak memory of backbones on a CUDA GPU; none is needed. '
        'Columns: by plain bodies and by the kernel, of a training step and of a forward pass',
        epilog='Example: estimate_memory.py mmdet.SwinTransformer maskrcnn_focal_t_1x',
    )
    parser.add_argument(
        'backbones',
        nargs='+',
        metavar='CONFIG',
        help="names or files of configs, whose backbone it is; or a toolbox's backbone as it is "
        'by default, such as mmdet.SwinTransformer (Swin-T). With several, ratios to the first',
    )
    parser.add_argument(
        '--shape',
        nargs=2,
        type=positive,
        default=(800, 1344),
        metavar=('HEIGHT', 'WIDTH'),
        help='of the images, default 800 1344: 800 x 1333 padded',
    )
    parser.add_argument('--batch', type=positive, default=2, metavar='N', help='images, default 2')
    parser.add_argument(
        '--dtype',
        choices=('float32', 'bfloat16', 'float16'),
        default='bfloat16',
        help='half types by autocast; default bfloat16',
    )
    parser.add_argument(
        '--fit',
        nargs='+',
        type=positive,
        metavar='GB',
        help='instead, say how many images a training step on cards of such memory takes',
    )
    args = parser.parse_args()
    if min(args.shape) < 32:
        parser.error('--shape takes a height and a width of at least 32 pixels')
    return args


def backbone_of(name: str) -> dict[str, Any]:
    """Return the config of the backbone that a name or a file means.

    Raises:
        ValueError: If there is no such config or backbone, or it has none.
    """
    scope = name.partition('.')[0]
    if scope in MODELS.children or scope in TOOLBOXES:
        try:
            find_backbone(name)
        except BenchmarkError as error:
            raise ValueError(str(error)) from error
        return dict(type=name)
    cfg = read(name)[1]
    if 'backbone' not in cfg.get('model', {}):
        raise ValueError(f'{name} has no model with a backbone')
    backbone: dict[str, Any] = cfg.model.backbone.to_dict()
    backbone.pop('init_cfg', None)
    return backbone


def show_peaks(args: argparse.Namespace) -> None:
    """Print the peaks of each backbone, and their ratios to the first one's."""
    columns = [(kernels, train) for train in (True, False) for kernels in (False, True)]
    print(
        f'{"MiB (estimated)":34}{"training, plain":>18}{"kernel":>18}{"forward, plain":>18}'
        f'{"kernel":>18}'
    )
    first: list[int] = []
    for name in args.backbones:
        config, dtype = backbone_of(name), getattr(torch, args.dtype)
        peaks = [
            peak_memory(config, args.shape, args.batch, dtype, train, kernels)
            for kernels, train in columns
        ]
        first = first or peaks
        cells = (f'{p / _MIB:9.0f} {p / one:.2f}x' for p, one in zip(peaks, first))
        print(f'{name:34}' + ''.join(f'{cell:>18}' for cell in cells), flush=True)


def show_batches(args: argparse.Namespace) -> None:
    """Print how many images fit cards."""
    print(f'{"images (estimated)":34}{"":8}' + ''.join(f'{gb:>6} GB' for gb in args.fit))
    for name in args.backbones:
        config, dtype = backbone_of(name), getattr(torch, args.dtype)
        state = 2 * 4 * sum(p.numel() for p in MODELS.build(dict(config)).parameters())
        for kernels in (False, True):
            one, two = (
                peak_memory(config, args.shape, batch, dtype, True, kernels) for batch in (1, 2)
            )
            free = (gb * _GIB - _RESERVED - state - one for gb in args.fit)
            counts = (max(0, 1 + int(rest // (two - one))) for rest in free)
            label = f'{name:34}{"kernel" if kernels else "plain":8}'
            print(label + ''.join(f'{count:>9}' for count in counts), flush=True)


def main() -> None:
    """Show the peaks, or what fits."""
    args = parse_args()
    warnings.simplefilter('ignore')  # of toolboxes, about their own deprecated parts
    logging.disable(logging.INFO)  # of models, about how they would be trained
    height, width = args.shape
    with plain_errors():
        # All names are read before the first estimate, which takes a while.
        for name in args.backbones:
            backbone_of(name)
        batch = '' if args.fit else f'{args.batch} x '
        print(f'{batch}{height} x {width}, {args.dtype}, with_cp as the config has it')
        (show_batches if args.fit else show_peaks)(args)
