"""Predict on images: ``python tools/predict.py CHECKPOINT IMAGES... --out FOLDER``."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from ..checkpoints import read_checkpoint
from ..running import plain_errors, positive
from ..running.cfg_options import add_cfg_options
from ..running.image_files import ImageFile, count_images, find_images, read_images
from ..running.predicting import Predictor, config_for
from ..running.prediction_files import UNFINISHED, Results, check_out

SCORE_THR = 0.3


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Predict on images with a detector, segmenter or classifier'
    )
    parser.add_argument('checkpoint', help='checkpoint file, of a training or as published')
    parser.add_argument(
        'images', nargs='+', help='images, folders (those below too), patterns, videos'
    )
    parser.add_argument(
        '--out', required=True, metavar='FOLDER', help='for the results: a new or an empty one'
    )
    parser.add_argument('--config', help="config of a file that carries none (the checkpoint's)")
    parser.add_argument(
        '--score-thr',
        type=float,
        metavar='SCORE',
        help=f'detections below it are left out, of pictures and files ({SCORE_THR})',
    )
    parser.add_argument('--device', help='such as cpu or cuda:0 (a GPU if there is one)')
    parser.add_argument(
        '--batch-size', type=positive, default=1, metavar='N', help='images at once (1)'
    )
    parser.add_argument('--no-pictures', action='store_true', help='draw none')
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    """Check all that can be checked, then predict."""
    args = parse_args()
    # What they say of their own code helps nobody here.
    warnings.filterwarnings('ignore', module=r'(mmcv|mmdet|mmseg|mmpretrain|torch)\b')
    with plain_errors():
        if args.score_thr is not None and not 0 <= args.score_thr <= 1:
            raise ValueError(f'--score-thr is from 0 to 1, got {args.score_thr}')
        files, folders = find_images(args.images)
        check_out(args.out, folders)
        device = _device(args.device)
        checkpoint = read_checkpoint(args.checkpoint)
        cfg = config_for(checkpoint, args.checkpoint, args.config, args.cfg_options)
        predictor = Predictor(
            cfg,
            checkpoint,
            args.checkpoint,
            device,
            SCORE_THR if args.score_thr is None else args.score_thr,
        )
        if args.score_thr is not None and predictor.kind != 'detector':
            raise ValueError(f'--score-thr is for detectors: this is a {predictor.kind}')
        del checkpoint
    print(f'A {predictor.kind} of {len(predictor.classes)} classes, on {device}', flush=True)
    results = Results(args.out, predictor, args.checkpoint, not args.no_pictures)
    try:
        skipped = _predict(predictor, files, results, args.batch_size)
    except KeyboardInterrupt:
        place = f'{results.count} images are in {results.out / UNFINISHED}'
        sys.exit(f'\nInterrupted: {place if results.count else "nothing was written"}')
    except torch.OutOfMemoryError:
        _fail(f'not enough memory on {device}: a smaller --batch-size or --device cpu may do')
    except OSError as error:  # a full disk, for example
        _fail(error)
    if skipped:
        print(f'{skipped} left out, as named above', file=sys.stderr)
    if not results.count:
        _fail('none of the images could be read')
    print(f'{results.count} images predicted on: {results.out}')


def _fail(why: object) -> NoReturn:
    print(f'error: {why}', file=sys.stderr)
    sys.exit(2)


def _device(name: str | None) -> str:
    """Where the model runs.

    Raises:
        ValueError: If there is no such device.
    """
    if name is None:
        return 'cuda:0' if torch.cuda.is_available() else 'cpu'
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'--device {name}: {str(error).splitlines()[0]}') from None
    return name


def _predict(
    predictor: Predictor, files: Sequence[ImageFile], results: Results, batch_size: int
) -> int:
    """Predict on all images; return how many files, or frames, could not be read."""
    skipped = 0
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress, results:
        task = progress.add_task('', total=count_images(files))

        def skip(file: ImageFile, why: str) -> None:
            nonlocal skipped
            skipped += 1
            # As it is: a name's brackets are no markup, its line is not broken.
            line = f'left out: {file.file_name}: {why}'
            progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
            progress.advance(task)

        images = read_images(files, predictor.read, skip)
        for image, found in predictor.predict(images, batch_size, skip):
            results.add(image, found)
            progress.advance(task)
    return skipped
