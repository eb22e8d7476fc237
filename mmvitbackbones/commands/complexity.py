"""Count parameters and multiplications: ``python tools/complexity.py CONFIG...``."""

from __future__ import annotations

import argparse
import logging
import os.path as osp
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..running import plain_errors
from ..running.cfg_options import add_cfg_options
from ..zoo import Row, Zoo, config_folder, get_config, read_zoo
from ..zoo.audit import disagreements, measure_row
from ..zoo.complexity import Complexity, measure


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Count parameters and multiplications, of the backbone and of the whole model, '
        'for the size that the paper counts'
    )
    parser.add_argument(
        'configs', nargs='*', metavar='CONFIG', help='names or files (with --check: all)'
    )
    parser.add_argument(
        '--check',
        action='store_true',
        help='compare with the published rows, counted as each paper counts; exit with 1 where '
        'parameters differ by more than 1 %% or multiplications by more than 5 %%, unless the '
        'model zoo says why that row fits no convention',
    )
    parser.add_argument(
        '--shape', nargs=2, type=int, metavar=('HEIGHT', 'WIDTH'), help='of the image'
    )
    counts: dict[str, Any] = dict(type=int, metavar='N')
    parser.add_argument(
        '--boxes', **counts, help='regions that go through each box head (as in the row, else 1000)'
    )
    parser.add_argument(
        '--masks', **counts, help='regions that go through each mask head (as in the row, else 100)'
    )
    add_cfg_options(parser, 'as in train.py')
    args = parser.parse_args()
    others = (args.shape, args.boxes, args.masks, args.cfg_options)
    if args.check and any(other is not None for other in others):
        parser.error('--check counts what is published: leave the other options out')
    if not args.check and not args.configs:
        parser.error('name at least one config')
    if any(number is not None and number < 0 for number in (args.boxes, args.masks)):
        parser.error('--boxes and --masks are numbers of at least 0')
    if args.shape and min(args.shape) < 32:
        parser.error('--shape takes a height and a width of at least 32 pixels')
    return args


def read(config: str) -> tuple[str, Config]:
    """Read a config given by its name or its file; return its name, too.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there is no such name.
    """
    if osp.isfile(config):
        return osp.splitext(osp.basename(config))[0], Config.fromfile(config)
    if osp.basename(config) != config or config.endswith('.py'):
        raise FileNotFoundError(f'there is no config {config!r}')
    return config, get_config(config)


def show(config: str, args: argparse.Namespace, zoo: Zoo) -> None:
    """Print what one config takes.

    Raises:
        ValueError: If nothing tells the size of the image.
    """
    name, cfg = read(config)
    # A file of the same name somewhere else is no row.
    ours = Path(cfg.filename).resolve().parent == config_folder().resolve()
    row = zoo.rows.get(name) if ours else None
    shape = args.shape or (row.size if row else None)
    if not shape:
        raise ValueError(f'{config} is no row of the model zoo: give --shape HEIGHT WIDTH')
    if 'model' not in cfg:
        raise ValueError(f'{config} has no model')
    cfg.merge_from_dict(args.cfg_options or {})
    boxes, masks = 1000, 100
    if row and zoo.convention(name).boxes:
        boxes, masks = zoo.convention(name).boxes, zoo.convention(name).masks
    boxes = boxes if args.boxes is None else args.boxes
    masks = masks if args.masks is None else args.masks
    height, width = shape
    regions, roi_head = '', cfg.model.get('roi_head', {})
    if proposals := cfg.model.get('rpn_head', {}).get('num_proposals'):
        regions = f', {proposals} proposals'
    elif roi_head:
        regions = f', {boxes} boxes' + (f', {masks} masks' if roi_head.get('mask_head') else '')
    try:
        parts = measure(cfg, (height, width), boxes, masks)
    except RuntimeError as error:
        raise ValueError(
            f'the parts of the model of {config} do not fit together, such as '
            f"model.neck.in_channels with the backbone's: {error}"
        ) from error
    print(f'{name} at {height} x {width}{regions}')
    print(f'{"":12}{"parameters":>14}{"GMACs":>10}{"with products of attention":>30}')
    for part, counted in parts.items():
        print(line(part, counted))
    changed = (args.shape, args.boxes, args.masks, args.cfg_options) != (None,) * 4
    if row is not None and row.published and not changed:
        params, gmacs = measure_row(name, zoo, cfg)
        print(f'counted as the paper does: {params:.2f} M, {gmacs:.1f} G')
        print(f'published: {published(row)} ({row.where}, {row.row})')


def line(part: str, counted: Complexity) -> str:
    """Return a line of the table."""
    both = counted.gmacs + counted.products
    return f'{part:12}{counted.params:12.2f} M{counted.gmacs:10.2f}{both:30.2f}'


def published(row: Row) -> str:
    """Return a row's published parameters and multiplications."""
    units = dict(params='M', gmacs='G')
    found = [f'{row.published[k]} {u}' for k, u in units.items() if k in row.published]
    return ', '.join(found) or 'neither parameters nor multiplications'


def check(configs: list[str], zoo: Zoo) -> bool:
    """Compare rows with their configs and print the outcome; return whether all is as it is said.

    Raises:
        ValueError: If a config is not in the model zoo.
    """
    kinds: Counter[str] = Counter()
    for config in configs:
        name, cfg = read(config)
        if name not in zoo.rows:
            raise ValueError(f'{name} is no row of the model zoo, so there is nothing to check')
        row = zoo.rows[name]
        params, gmacs = measure_row(name, zoo, cfg)
        differ = disagreements(row, params, gmacs)
        if (round(params, 2), round(gmacs, 1)) != (row.ours['params'], row.ours['gmacs']):
            kind = 'errors'
            outcome = f'WRONG: the file says {row.ours["params"]} M, {row.ours["gmacs"]} G of ours'
        elif differ and not row.unfit:
            kind, outcome = 'errors', f'DIFFERS: {"; ".join(differ)}'
        elif row.unfit and not differ:
            kind, outcome = 'errors', 'WRONG: it fits, though the file says that it does not'
        elif differ:
            kind, outcome = 'unfit', f'no convention fits ({"; ".join(differ)}): {row.unfit}'
        elif 'params' in row.published or 'gmacs' in row.published:
            kind, outcome = 'fits', f'fits {published(row)}'
        else:
            kind, outcome = 'unpublished', 'nothing published to compare with'
        kinds[kind] += 1
        print(f'{name}: {params:.2f} M, {gmacs:.1f} G: {outcome}', flush=True)
    print(
        f'{len(configs)} configs: {kinds["fits"]} fit what is published, {kinds["unfit"]} rows fit '
        f'no convention, for {kinds["unpublished"]} nothing is published, {kinds["errors"]} errors'
    )
    return not kinds['errors']


def main() -> None:
    """Show, or check, the configs."""
    args = parse_args()
    warnings.simplefilter('ignore')  # of toolboxes, about their own deprecated parts
    logging.disable(logging.INFO)  # of models, about how they would be trained
    with plain_errors():
        zoo = read_zoo()
        if args.check:
            sys.exit(0 if check(args.configs or list(zoo.rows), zoo) else 1)
        for config in args.configs:
            show(config, args, zoo)
