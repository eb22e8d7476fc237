"""Count parameters and multiplications: ``python tools/complexity.py CONFIG...``."""

from __future__ import annotations

import argparse
import os.path as osp
import sys
import warnings

from mmengine.config import Config, DictAction

from mmvitbackbones.complexity import Complexity, disagreements, measure, measure_row
from mmvitbackbones.running import plain_errors
from mmvitbackbones.zoo import Row, Zoo, get_config, read_zoo


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
        'parameters differ by more than 1 %% or multiplications by more than 5 %%',
    )
    parser.add_argument(
        '--shape', nargs=2, type=int, metavar=('HEIGHT', 'WIDTH'), help='of the image'
    )
    parser.add_argument('--boxes', type=int, help='regions that go through each box head (1000)')
    parser.add_argument('--masks', type=int, help='regions that go through each mask head (100)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='as in train.py'
    )
    args = parser.parse_args()
    if args.check and (args.shape or args.boxes or args.masks or args.cfg_options):
        parser.error('--check counts what is published: leave the other options out')
    if not args.check and not args.configs:
        parser.error('name at least one config')
    return args


def name_of(config: str) -> str:
    """Return the name of a config given by its name or its file."""
    return osp.splitext(osp.basename(config))[0]


def show(config: str, args: argparse.Namespace, zoo: Zoo) -> None:
    """Print what one config takes.

    Raises:
        ValueError: If nothing tells the size of the image.
    """
    name = name_of(config)
    row = zoo.rows.get(name)
    if row is None and not args.shape:
        raise ValueError(f'{config} is no row of the model zoo: give --shape HEIGHT WIDTH')
    cfg = Config.fromfile(config) if osp.isfile(config) else get_config(name)
    cfg.merge_from_dict(args.cfg_options or {})
    convention = zoo.convention(name) if row else None
    boxes = args.boxes if args.boxes is not None else (convention and convention.boxes) or 1000
    masks = args.masks if args.masks is not None else (convention.masks if convention else 100)
    height, width = args.shape or row.size
    print(f'{name} at {height} x {width}', end='')
    if cfg.model.get('roi_head'):
        print(f', {boxes} boxes, {masks} masks', end='')
    print(f'\n{"":12}{"parameters":>14}{"GMACs":>10}{"with products of attention":>30}')
    for part, counted in measure(cfg, (height, width), boxes, masks).items():
        print(line(part, counted))
    if row is not None and row.published and not args.cfg_options:
        print(f'published: {published(row)}, {row.where}, {row.row}')


def line(part: str, counted: Complexity) -> str:
    """Return a line of the table."""
    both = counted.gmacs + counted.products
    return f'{part:12}{counted.params:12.2f} M{counted.gmacs:10.2f}{both:30.2f}'


def published(row: Row) -> str:
    """Return a row's published parameters and multiplications."""
    units = dict(params='M', gmacs='G')
    return ', '.join(f'{row.published[k]} {u}' for k, u in units.items() if k in row.published)


def check(names: list[str], zoo: Zoo) -> bool:
    """Compare rows with their configs and print the outcome; return whether all is as it is said.

    Raises:
        ValueError: If a config is not in the model zoo.
    """
    results: dict[str, list[str]] = {}
    for name in names:
        if name not in zoo.rows:
            raise ValueError(f'{name} is no row of the model zoo, so there is nothing to check')
        row = zoo.rows[name]
        params, gmacs = measure_row(name, zoo)
        differ = disagreements(row, params, gmacs)
        if (round(params, 2), round(gmacs, 1)) != (row.ours['params'], row.ours['gmacs']):
            outcome = f'WRONG: the file says {row.ours["params"]} M, {row.ours["gmacs"]} G of ours'
        elif differ and not row.unfit:
            outcome = f'DIFFERS: {"; ".join(differ)}'
        elif row.unfit and not differ:
            outcome = 'WRONG: it fits, though the file says that it does not'
        elif differ:
            outcome = f'no convention fits ({"; ".join(differ)}): {row.unfit}'
        elif 'params' in row.published or 'gmacs' in row.published:
            outcome = f'fits {published(row)}'
        else:
            outcome = 'nothing published to compare with'
        results.setdefault(outcome.split()[0], []).append(name)
        print(f'{name}: {params:.2f} M, {gmacs:.1f} G: {outcome}', flush=True)
    counts = {word: len(found) for word, found in results.items()}
    print(
        f'{len(names)} configs: {counts.get("fits", 0)} fit what is published, '
        f'{counts.get("no", 0)} rows fit no convention, for {counts.get("nothing", 0)} nothing is '
        f'published, {counts.get("DIFFERS", 0) + counts.get("WRONG", 0)} errors'
    )
    return not {'DIFFERS', 'WRONG'} & set(results)


def main() -> None:
    """Show, or check, the configs."""
    args = parse_args()
    warnings.simplefilter('ignore')  # of toolboxes, about their own deprecated parts
    with plain_errors():
        zoo = read_zoo()
        if args.check:
            names = [name_of(config) for config in args.configs] or list(zoo.rows)
            sys.exit(0 if check(names, zoo) else 1)
        for config in args.configs:
            show(config, args, zoo)


if __name__ == '__main__':
    main()
