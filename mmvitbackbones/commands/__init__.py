"""What ``mmvit COMMAND`` and ``tools/COMMAND.py`` run: a module for each."""

from __future__ import annotations

import argparse
import importlib
import sys

COMMANDS = dict(
    train='train a detector, segmenter or classifier',
    test='evaluate one',
    predict='run one on images, folders or videos',
    check_data='look for faults in the data of a config',
    visualize='draw what backbones see: attention, receptive field, features, Grad-CAM',
    export='write one as an ONNX file or for torch.export',
    download='fetch the weights that are published for a config',
    demo='train, evaluate and draw a small detector on handwritten digits',
    benchmark="measure a backbone's time and memory",
    complexity='count parameters and multiplications',
    estimate_memory='estimate the memory of a GPU without one',
)


def main() -> None:
    """Run the command that the command line names, with the rest of the line."""
    parser = argparse.ArgumentParser(
        prog='mmvit', formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.epilog = 'commands:\n' + '\n'.join(
        f'  {command:<17}{what}' for command, what in COMMANDS.items()
    )
    parser.add_argument('command', choices=COMMANDS, metavar='COMMAND', help='see below')
    parser.add_argument('arguments', nargs=argparse.REMAINDER, help='mmvit COMMAND --help')
    args = parser.parse_args()
    sys.argv = [f'mmvit {args.command}', *args.arguments]
    importlib.import_module(f'{__name__}.{args.command}').main()
