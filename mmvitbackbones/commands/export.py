"""Export a model: ``python tools/export.py CONFIG [CHECKPOINT] --out FILE``."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from .. import __version__
from ..checkpoints import read_checkpoint
from ..deploy import (
    OPSET,
    STEP,
    Normalisation,
    OutputModel,
    check_path,
    compare,
    example_for,
    export_program,
    least_side,
    load_runner,
    needs,
    write_onnx,
    write_pt2,
)
from ..running import load_config, plain_errors, use_published
from ..running.carried_config import test_dataset
from ..running.cfg_options import add_cfg_options
from ..running.image_files import read_pixels
from ..running.loading import load_complete
from ..running.predicting import build_with_own_backbone, classes_and_colours, kind_of
from ..running.processes import say

# Largest difference that is taken for rounding, over the standard deviation of the output.
LIMITS = {torch.float32: 1e-4, torch.float16: 0.1}
LONGEST = 1344  # side, in pixels, of the picture that a file for all sizes is checked with
_GO_ON = {
    'classifier': 'softmax of the logits gives the scores of the classes',
    'segmenter': 'argmax of the logits over the classes gives the class of each pixel',
    'detector': 'these are raw outputs; boxes come from them by the config in Python, as '
    'docs/deploy.md shows',
}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Write a classifier or segmenter whole, or the backbone, neck and dense head '
        'of a detector, as an ONNX file or for torch.export; then run the file beside the model'
    )
    parser.add_argument('config', help="config's file or name")
    parser.add_argument(
        'checkpoint', nargs='?', help='of a training or as published (random weights, to try)'
    )
    parser.add_argument('--out', required=True, metavar='FILE', help='FILE.onnx or FILE.pt2')
    parser.add_argument('--format', choices=['onnx', 'pt2'], help='(as FILE ends)')
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        '--size', nargs=2, type=int, metavar=('HEIGHT', 'WIDTH'), help='of images, all of one'
    )
    sizes.add_argument(
        '--dynamic',
        action='store_true',
        help=f'images of all sizes that {STEP} divides, 256 to 2048 (for all but classifiers)',
    )
    parser.add_argument(
        '--normalise',
        action='store_true',
        help='the file takes pixels of 0 to 255, BGR, and normalises them itself',
    )
    parser.add_argument('--half', action='store_true', help='compute in float16')
    parser.add_argument(
        '--opset', type=int, default=OPSET, metavar='N', help=f'of ONNX, at least 18 ({OPSET})'
    )
    parser.add_argument(
        '--picture', metavar='FILE', help='to check the file with (a photo of scikit-learn)'
    )
    add_cfg_options(parser)
    args = parser.parse_args()
    if args.opset < 18:
        parser.error('--opset is at least 18')
    if args.size and min(args.size) < STEP:
        parser.error(f'--size takes a height and a width of at least {STEP} pixels')
    return args


def main() -> None:
    """Export, then compare the file with the model."""
    args = parse_args()
    warnings.simplefilter('ignore')  # of exporters and toolboxes, about their own code
    logging.disable(logging.INFO)
    with plain_errors():
        form = check_path(args.out, args.format)
        if form == 'onnx':
            needs('onnx', 'onnxscript', 'onnxruntime')
        picture = read_picture(args.picture)
        cfg, model, metadata = read_model(args)
        kind = metadata['kind']
        size = chosen_size(args, cfg, kind)
        normalisation = Normalisation.of(cfg, model.backbone.in_channels)
        inside = normalisation if args.normalise else None
        metadata.update(
            channels='BGR' if inside else normalisation.channels,
            mean=json.dumps([0] * len(normalisation.mean) if inside else normalisation.mean),
            std=json.dumps([1] * len(normalisation.std) if inside else normalisation.std),
        )
        exact = OutputModel(model, inside)
        with torch.no_grad():
            names = list(exact.named(example_for(model.backbone, size)))
        say('Exporting for all sizes takes a minute or more' if size is None else 'Exporting')
        program = export_program(OutputModel(model, inside, dtype_of(args)), size)
        if form == 'onnx':
            write_onnx(program, args.out, names, metadata, args.opset)
        else:
            write_pt2(program, args.out, names, metadata)
        del program
        print_file(args, form, kind, names, size, model.backbone)
        good = False
        try:
            images = checks(model.backbone, size, picture, normalisation, inside)
            good = agrees(args, exact, images)
        finally:
            if not good:
                os.remove(args.out)
    if not good:
        sys.exit(
            f'error: {args.out} gave something else than the model, by more than '
            f'{LIMITS[dtype_of(args)]:g} standard deviations of an output, and was removed'
        )


def dtype_of(args: argparse.Namespace) -> torch.dtype:
    """In which type the file computes."""
    return torch.float16 if args.half else torch.float32


def agrees(
    args: argparse.Namespace, model: OutputModel, images: Iterable[tuple[str, Tensor]]
) -> bool:
    """Run the file beside the model, print differences and times; whether it is but rounding."""
    run, good = load_runner(args.out), True
    print(f'{"":30}{"difference / std":>18}{"file":>10}{"PyTorch":>10}')
    for name, batch in images:
        found = compare(run, model, batch)
        good = good and found.difference <= LIMITS[dtype_of(args)]  # not so of NaN
        count, _, height, width = batch.shape
        print(
            f'{f"{name}, {count} x {height} x {width}":30}{found.difference:18.1e}'
            f'{found.seconds:8.3f} s{found.model_seconds:8.3f} s',
            flush=True,
        )
    return good


def read_model(args: argparse.Namespace) -> tuple[Config, Any, dict[str, str]]:
    """The config, the model with its weights, and what the file shall say of it.

    Raises:
        ValueError: If the checkpoint does not fit, or the model is none of a toolbox with a
            backbone of this package.
    """
    cfg = load_config(args.config, args.cfg_options)
    checkpoint: Any = {}
    if args.checkpoint:
        checkpoint = read_checkpoint(args.checkpoint)
        cfg = use_published(cfg, checkpoint, args.checkpoint, args.cfg_options)
    model = build_with_own_backbone(cfg, args.config)
    if args.checkpoint:
        load_complete(model, checkpoint, args.checkpoint)
    else:
        say('No checkpoint: the weights are random, the file is for trying')
    classes, _ = classes_and_colours(cfg, checkpoint, test_dataset(cfg))
    metadata = dict(
        model=os.path.splitext(os.path.basename(args.config))[0],
        kind=kind_of(cfg),
        classes=json.dumps(classes),
        producer=f'mmvitbackbones {__version__}',
    )
    return cfg, model, metadata


def chosen_size(args: argparse.Namespace, cfg: Config, kind: str) -> tuple[int, int] | None:
    """Height and width; None for all sizes.

    Raises:
        ValueError: If nothing tells a classifier's.
    """
    if args.size:
        return args.size[0], args.size[1]
    slides = cfg.model.get('test_cfg') or {}
    if slides.get('mode') == 'slide':
        height, width = slides['crop_size']
        say(f'The segmenter slides over images: the file is of one crop, {height} x {width}')
        return height, width
    if args.dynamic or kind != 'classifier':
        return None
    if side := center_crop(cfg):
        return side
    raise ValueError('the config does not say the size of its images: give --size or --dynamic')


def center_crop(cfg: Config) -> tuple[int, int] | None:
    """Height and width of the crops that a classifier is tested on, if there are any."""
    for step in test_dataset(cfg).get('pipeline') or []:
        if str(step['type']).endswith('CenterCrop'):
            side = step['crop_size']
            # mmcv's sizes are of width and height.
            return (side, side) if isinstance(side, int) else (side[1], side[0])
    return None


def read_picture(path: str | None) -> np.ndarray:
    """A real picture, BGR (H, W, 3): the one that is named, or a photo of scikit-learn.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no image.
    """
    if path is None:
        from sklearn.datasets import load_sample_image

        return load_sample_image('china.jpg')[..., ::-1]
    return read_pixels(path)


def checks(
    backbone: Any,
    size: tuple[int, int] | None,
    picture: np.ndarray,
    normalisation: Normalisation,
    inside: Normalisation | None,
) -> Iterator[tuple[str, Tensor]]:
    """Images to run a file with, and what they are: as the file takes them."""
    if size is not None:
        sizes = [size]
        shape = size
    else:
        least = least_side(backbone)
        sizes = [(least, least), (least + 5 * STEP, least + 2 * STEP)]
        scale = min(1, LONGEST / max(picture.shape[:2]))
        shape = tuple(max(least, round(scale * s / STEP) * STEP) for s in picture.shape[:2])
    for batch, each in ((1, sizes[0]), (1, sizes[-1]), (2, sizes[-1]))[len(sizes) == 1 :]:
        images = example_for(backbone, each, batch, seed=batch)
        yield 'random', images if inside is None else 64 * images + 128
    pixels = cv2.resize(picture, shape[::-1], interpolation=cv2.INTER_AREA)
    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float()[None]
    if image.shape[1] != backbone.in_channels:
        image = image.mean(1, keepdim=True).repeat(1, backbone.in_channels, 1, 1)
    yield 'picture', image if inside else normalisation(image)


def print_file(
    args: argparse.Namespace,
    form: str,
    kind: str,
    names: list[str],
    size: tuple[int, int] | None,
    backbone: Any,
) -> None:
    """Say what was written, and how to go on."""
    if size is None:
        sides = f'any sides that {STEP} divides, {least_side(backbone)} to 2048'
    else:
        sides = f'{size[0]}, {size[1]}'
    what = f'opset {args.opset}' if form == 'onnx' else 'torch.export'
    print(f'{args.out}: {os.path.getsize(args.out) / 1e6:.1f} MB, {what}')
    pixels = 'pixels of 0 to 255, BGR' if args.normalise else 'normalised'
    print(f'in:  images, {pixels}, (any number, {backbone.in_channels}, {sides})')
    print(f'out: {", ".join(names)}: {_GO_ON[kind]}')
