"""Check the data of a config: ``python tools/check_data.py CONFIG``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings

from mmengine.config import Config

from ..running import load_config, make_demo_data, plain_errors
from ..running.cfg_options import add_cfg_options
from ..running.checks import check_data_presence
from ..running.command_line import add_data_arguments
from ..running.data_faults import Report, find_faults, leaves
from ..running.own_data import use_own_data

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Check the data that a config trains and is evaluated on: every list, image '
        'and map. Ends with 1 if something is refused'
    )
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir', help='folder for what --data has to be converted to (work_dirs/CONFIG)'
    )
    add_data_arguments(parser)
    add_cfg_options(parser, 'as in train.py')
    # What else belongs to --data, as if it were not given.
    parser.set_defaults(image_size=None, batch_size=None, workers=None, launcher='none')
    return parser.parse_args()


def check(cfg: Config, args: argparse.Namespace) -> Report:
    """Look at all data of a config.

    Raises:
        ValueError: If something is wrong with the user's own data set.
        FileNotFoundError: If files are missing.
        PermissionError: If files may not be read.
    """
    loaders = [key for key in LOADERS if cfg.get(key)]
    if args.data:
        cfg = use_own_data(cfg, args, args.cfg_options or {})
        # A set to test on alone leaves the config's own to train on in place.
        loaders = [key for key in loaders if _is_below(cfg, key, args.data)]
    elif args.demo:
        make_demo_data(cfg)
    check_data_presence(cfg, *loaders)
    return find_faults(cfg, loaders, full=True)


def _is_below(cfg: Config, loader: str, folder: str) -> bool:
    """Whether a loader reads images in a folder."""
    root = os.path.abspath(os.path.expanduser(folder))
    for dataset in leaves(cfg[loader]):
        prefix = dataset.get('data_prefix')
        paths = prefix.values() if isinstance(prefix, dict) else [prefix]
        for path in paths:
            place = os.path.abspath(os.path.join(dataset.get('data_root') or '', path or ''))
            if os.path.commonpath([root, place]) == root:
                return True
    return False


def main() -> None:
    """Check, print a line for each kind of fault, and say how many there are."""
    args = parse_args()
    warnings.simplefilter('ignore')  # of toolboxes, about their own deprecated parts
    logging.disable(logging.INFO)
    with plain_errors():
        cfg = load_config(args.config, args.cfg_options, args.work_dir, args.demo, args.data_root)
    try:
        report = check(cfg, args)
    except (ValueError, OSError) as error:
        print(f'refused: {error}')
        sys.exit(1)
    for finding in report.findings:
        print(finding)
    refused = sum(finding.refused for finding in report.findings)
    seen = f'{report.images} images' + (f', {report.maps} maps' if report.maps else '')
    if report.findings:
        kinds = f'{len(report.findings)} kinds of faults, {refused} of them refused'
    else:
        kinds = 'nothing wrong'
    print(f'{kinds} ({seen})')
    sys.exit(1 if refused else 0)
