"""Draw what backbones see: ``python tools/visualize.py IMAGE CHECKPOINT... --out FOLDER``."""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from ..running import plain_errors
from ..running.cfg_options import add_cfg_options
from ..seeing.attention import BlockAttention, watch_blocks
from ..seeing.colours import principal_colours
from ..seeing.drawing import (
    attention_figure,
    grad_cam_figure,
    pyramid_figure,
    receptive_field_figure,
    save,
)
from ..seeing.gallery import gallery_figure
from ..seeing.grad_cam import grad_cam
from ..seeing.page import MOST, write_page
from ..seeing.receptive_field import receptive_field
from ..seeing.subject import Subject, read_picture, read_subject, stages_of

SIZE = 448
PICTURES = ('attention', 'receptive_field', 'pyramid', 'grad_cam')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Draw what backbones see: attention, receptive field, features, Grad-CAM'
    )
    parser.add_argument('image', help='the picture')
    parser.add_argument(
        'checkpoints',
        nargs='+',
        metavar='CHECKPOINT',
        help=f'of a training or as published, a backbone alone too; up to {MOST}',
    )
    parser.add_argument('--out', metavar='FOLDER', help='for pictures, NAME_attention.png and more')
    parser.add_argument('--html', metavar='FILE', help='a page to click through, all in one file')
    parser.add_argument('--gallery', metavar='FILE', help='a picture, a row for each backbone')
    parser.add_argument(
        '--config',
        dest='configs',
        nargs='+',
        metavar='CONFIG',
        help="configs of files that carry none, in their order; '-': the one in the file",
    )
    parser.add_argument(
        '--point',
        nargs=2,
        type=float,
        default=(0.5, 0.5),
        metavar=('X', 'Y'),
        help='the query, as parts of width and height from the upper left (0.5 0.5)',
    )
    parser.add_argument('--stage', type=int, help='from 1 (the last but one)')
    parser.add_argument('--block', type=int, help="from 1 (the stage's last)")
    parser.add_argument('--head', type=int, help='from 1 (the mean of all)')
    parser.add_argument(
        '--class',
        dest='label',
        metavar='NAME',
        help='of Grad-CAM, a name or number (what the model is most sure of)',
    )
    parser.add_argument(
        '--size',
        type=int,
        default=SIZE,
        metavar='PIXELS',
        help=f"of the picture's longer side, which is reduced to it ({SIZE})",
    )
    add_cfg_options(parser, 'settings that override the configs')
    return parser.parse_args()


def check(args: argparse.Namespace) -> list[str | None]:
    """Check the options; return the config of each checkpoint.

    Raises:
        ValueError: If they contradict each other.
        FileExistsError: If there is something in the way.
    """
    if not (args.out or args.html or args.gallery):
        raise ValueError('nothing to draw: name --out FOLDER, --html FILE or --gallery FILE')
    if len(args.checkpoints) > MOST:
        raise ValueError(
            f'up to {MOST} checkpoints stand side by side, got {len(args.checkpoints)}'
        )
    if not all(0 <= value < 1 for value in args.point):
        x, y = args.point
        raise ValueError(f'--point takes two parts, from 0 to below 1, got {x} {y}')
    if args.html and not args.html.endswith('.html'):
        raise ValueError(f'--html must end with .html, got {args.html!r}')
    if args.gallery and not args.gallery.endswith(('.png', '.jpg')):
        raise ValueError(f'--gallery must end with .png or .jpg, got {args.gallery!r}')
    for option, file in (('--html', args.html), ('--gallery', args.gallery)):
        if file and os.path.lexists(file):
            raise FileExistsError(f'{option}: {file} is there already, name another file')
    of_pictures = ('stage', 'block', 'head', 'label')
    if not args.out and any(getattr(args, option) is not None for option in of_pictures):
        raise ValueError('--stage, --block, --head and --class are for the pictures of --out')
    if args.out and Path(args.out).is_file():
        raise FileExistsError(f'--out {args.out} is a file: name a folder')
    configs = args.configs or ['-'] * len(args.checkpoints)
    if len(configs) != len(args.checkpoints):
        raise ValueError(
            f'--config takes one for each of the {len(args.checkpoints)} checkpoints, '
            f"got {len(configs)}; '-' is the one in the file"
        )
    return [None if config == '-' else config for config in configs]


def chosen(option: str, number: int | None, count: int, default: int | None) -> int | None:
    """An option that counts from 1, from 0; the default where it is left out.

    Raises:
        ValueError: If there are not as many.
    """
    if number is None:
        return default
    if not 1 <= number <= count:
        raise ValueError(f'--{option} is from 1 to {count} here, got {number}')
    return number - 1


def label_of(subject: Subject, name: str | None) -> int | None:
    """The number of a class that is given by name or number.

    Raises:
        ValueError: If there is no such class.
    """
    if name is None:
        return None
    if name in subject.classes:
        return subject.classes.index(name)
    if name.isdecimal() and int(name) < len(subject.classes):
        return int(name)
    some = ', '.join(subject.classes[:10])
    raise ValueError(
        f'--class {name}: {subject.name} has {len(subject.classes)} classes, such as {some}'
    )


def pictures(subject: Subject, args: argparse.Namespace) -> None:
    """Draw all of a backbone into the folder."""
    stages = stages_of(subject.backbone)
    stage = chosen('stage', args.stage, len(stages), max(0, len(stages) - 2))
    assert stage is not None
    count = len(stages[stage].blocks)
    block = chosen('block', args.block, count, count - 1)
    assert block is not None
    point = args.point[1] * subject.size[0], args.point[0] * subject.size[1]
    label = label_of(subject, args.label)
    if subject.model is None and label is not None:
        raise ValueError(f'--class needs a whole model: {subject.name} is a backbone alone')

    def written(what: str) -> Path:
        path = picture_of(subject, what, args.out)
        print(f'Written: {path}', flush=True)
        return path

    found: list[BlockAttention] = []
    maps = watch_blocks(subject.backbone, subject.image, found.append, {(stage, block)})
    head = chosen('head', args.head, found[0].heads, None)
    save(attention_figure(subject, found[0], point, head), written('attention'))
    fields = [
        receptive_field(subject.backbone, subject.image, i, *point) for i in range(len(stages))
    ]
    save(receptive_field_figure(subject, fields), written('receptive_field'))
    colours = [principal_colours([map_[0]])[0] for map_ in maps if map_.dim() == 4]
    if colours:
        emitted = subject.backbone.out_indices
        save(pyramid_figure(subject, colours, emitted), written('pyramid'))
    if subject.model is None:
        print('No Grad-CAM: the file holds a backbone alone')
        return
    try:
        seen, label, score = grad_cam(subject.model, subject.image, label, stage)
    except ValueError as error:
        if args.label is not None:
            raise
        print(f'No Grad-CAM: {error}')
        return
    name = subject.classes[label] if label < len(subject.classes) else str(label)
    save(grad_cam_figure(subject, seen, name, score, stage), written('grad_cam'))


def named_apart(subjects: Sequence[Subject]) -> None:
    """Give backbones of the same name numbers, which no other name has."""
    names = [subject.name for subject in subjects]
    for subject in subjects:
        name = subject.name
        if names.count(name) > 1:
            numbered = (f'{name}_{number}' for number in itertools.count(1))
            subject.name = next(each for each in numbered if each not in names)
            names.append(subject.name)


def picture_of(subject: Subject, what: str, folder: str) -> Path:
    """The file of one of a backbone's ``PICTURES``."""
    return Path(folder, f'{subject.name}_{what}.png')


def check_pictures(subjects: Sequence[Subject], folder: str) -> None:
    """Check that no picture is there already.

    Raises:
        FileExistsError: If one is.
    """
    for subject in subjects:
        for what in PICTURES:
            path = picture_of(subject, what, folder)
            if path.exists():
                raise FileExistsError(f'{path} is there already: name another folder by --out')


def main() -> None:
    """Check all that can be checked, then draw."""
    args = parse_args()
    # What they say of their own code helps nobody here.
    warnings.filterwarnings('ignore', module=r'(mmcv|mmdet|mmengine|mmseg|mmpretrain|torch)\b')
    logging.disable(logging.INFO)
    with plain_errors():
        configs = check(args)
        pixels = read_picture(args.image, args.size)
        subjects = [
            read_subject(path, config, pixels, args.cfg_options)
            for path, config in zip(args.checkpoints, configs)
        ]
        named_apart(subjects)
        if args.out:
            check_pictures(subjects, args.out)
            for subject in subjects:
                pictures(subject, args)
        if args.html:
            write_page(subjects, args.point, Path(args.html))
            print(f'Written: {args.html}')
        if args.gallery:
            save(gallery_figure(subjects, args.point[::-1]), Path(args.gallery))
            print(f'Written: {args.gallery}')
