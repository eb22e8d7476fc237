"""Fetch the weights that are published for a config: ``python tools/download.py CONFIG``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..checkpoints.family import published_by
from ..running import load_config, plain_errors
from ..running.download import FOLDER, fetch, weights_of


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Fetch the weights that are published for a config: the trained model, and '
        'what its backbone starts from'
    )
    parser.add_argument('what', metavar='CONFIG', help='config, or a published file by its name')
    return parser.parse_args()


def main() -> None:
    """Fetch each file; go on after one that cannot be fetched."""
    args = parse_args()
    with plain_errors():
        by_name = published_by(args.what)
        files = [FOLDER / Path(args.what).name] if by_name else weights_of(load_config(args.what))
        if not files:
            raise FileNotFoundError(f'{args.what} names no weights')
    failed = False
    try:
        for file in files:
            try:
                print(fetch(file), flush=True)
            except (OSError, ValueError) as error:
                print(f'error: {error}', file=sys.stderr)
                failed = True
    except KeyboardInterrupt:
        sys.exit('\nInterrupted: the same command goes on.')
    sys.exit(2 if failed else 0)
