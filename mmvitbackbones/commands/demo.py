"""Train, evaluate and draw a small detector on real handwritten digits."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.config import ConfigDict

from ..running import load_config, make_demo_data, plain_errors
from ..running.cfg_options import add_cfg_options
from ..zoo import config_folder

FAMILIES = ('regionvit', 'focal', 'rmt', 'vil')
LONG = 3  # times the iterations of the config
CORES = len(os.sched_getaffinity(0))


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('family', nargs='?', default='regionvit', choices=FAMILIES)
    parser.add_argument('--long', action='store_true', help=f'train {LONG} times as long')
    parser.add_argument(
        '--work-dir', type=Path, help='folder for all results (work_dirs/demo_FAMILY)'
    )
    parser.add_argument('--seed', type=int, help='of weights and order of scenes (drawn)')
    alone = torch.cuda.is_available() or CORES == 1
    parser.add_argument(
        '--processes',
        type=int,
        default=1 if alone else 2,
        choices=(1, 2, 4),
        help='that train together, a part of each batch each (2; on a GPU or a single core 1)',
    )
    add_cfg_options(parser, default={})
    return parser.parse_args()


class Training:
    """A run of ``tools/train.py`` in processes of its own, and how far it is.

    Args:
        args: The command line.
        config: The config's path.
        demo: Its dict of that name.
        log: The file for all that the run prints.
    """

    def __init__(self, args: argparse.Namespace, config: str, demo: ConfigDict, log: Path) -> None:
        self.iterations = demo.max_iters * (LONG if args.long else 1)
        if demo.batch_size % args.processes:
            raise ValueError(
                f'demo.batch_size={demo.batch_size} is no multiple of {args.processes} processes'
            )
        options = {
            **args.cfg_options,
            'demo.max_iters': self.iterations,
            'demo.batch_size': demo.batch_size // args.processes,
        }
        if args.seed is not None:
            options['randomness.seed'] = args.seed
        command = [sys.executable]
        if args.processes > 1:
            command += ['-m', 'torch.distributed.run', '--standalone']
            command += ['--nproc-per-node', str(args.processes)]
        # The file beside the configs, in a checkout as in a wheel.
        command += [str(config_folder().with_name('tools') / 'train.py'), config]
        command += ['--demo', '--work-dir', str(args.work_dir)]
        if args.processes > 1:
            command += ['--launcher', 'pytorch']
        threads = max(1, CORES // args.processes)
        self.folder = args.work_dir
        self.start = time.time()
        with log.open('w') as output:
            self.process = subprocess.Popen(
                [*command, '--cfg-options', *(f'{key}={value}' for key, value in options.items())],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, 'OMP_NUM_THREADS': str(threads)},
            )

    def records(self) -> list[dict[str, Any]]:
        """What the run has logged: losses, and metrics in the last."""
        files = [*self.folder.glob('*/vis_data/scalars.json')]
        files = [file for file in files if file.stat().st_mtime >= self.start]
        if not files:
            return []
        lines = max(files).read_text().split('\n')[:-1]  # the last may be half written
        return [json.loads(line) for line in lines]

    def stop(self) -> None:
        """End all of its processes, if it has not ended itself."""
        self.process.terminate()
        self.process.wait()


class ProgressLine:
    """One line: redrawn on a terminal, else printed again with every tenth of the work."""

    def __init__(self) -> None:
        self.in_place = sys.stdout.isatty()
        self.shown = -1

    def show(self, text: str, fraction: float) -> None:
        """Show a line, ``fraction`` of the work being done."""
        tenth = int(10 * fraction)
        if self.in_place:
            print(f'\r\x1b[K{text}', end='', flush=True)
        elif tenth > self.shown:
            print(text, flush=True)
        self.shown = max(self.shown, tenth)

    def interrupt(self, text: str) -> None:
        """Print a line that stays."""
        print(f'\r\x1b[K{text}' if self.in_place else text, flush=True)


def minutes(seconds: float) -> str:
    """Seconds as '1 min 5 s'."""
    whole, rest = divmod(round(seconds), 60)
    return f'{whole} min {rest} s' if whole else f'{rest} s'


def follow(training: Training, picture: Path) -> None:
    """Show how far the run is, and when there are pictures, until it ends."""
    line, seen = ProgressLine(), training.start
    while training.process.poll() is None:
        time.sleep(0.5)
        if picture.exists() and (changed := picture.stat().st_mtime) > seen:
            after = minutes(changed - training.start)
            what = 'First pictures' if seen == training.start else 'Pictures'
            line.interrupt(f'{what} after {after}: {picture}')
            seen = changed
        steps = [record for record in training.records() if 'loss' in record]
        if not steps:
            line.show('Starting: building the model, reading the data', 0)
            continue
        done, total = steps[-1]['step'], training.iterations
        text = f'{done} of {total} iterations, loss {steps[-1]["loss"]:.2f}'
        if 'loss_bbox' in steps[-1]:
            # The first steps are slower than the rest.
            text += f', {minutes((total - done) * min(step["time"] for step in steps[-5:]))} left'
        else:
            text += ' (the classes first: the others take longer)'
        if done == total:
            text = f'{total} iterations, loss {steps[-1]["loss"]:.2f}; evaluating'
        line.show(text, done / total)
    line.interrupt('')


def report(training: Training, config: str, picture: Path, seconds: float) -> None:
    """Print the metrics, where the pictures are, and what to try next."""
    metrics = training.records()[-1]
    for kind, name in dict(bbox='box', segm='mask').items():
        # Where nothing was found, nothing is evaluated.
        mean, half = (metrics.get(f'coco/{kind}_{which}', 0.0) for which in ('mAP', 'mAP_50'))
        print(f'{name} mAP {mean:.3f} (mAP@50 {half:.3f})')
    print(f'on 240 scenes of digits not trained on, {minutes(seconds)} in all')
    print(f'Pictures: {picture}')
    folder = training.folder
    checkpoint = folder / (folder / 'last_checkpoint').read_text()
    print(f"""
Next:
    # pictures of all scenes, the truth on the left
    {spelled('test')} {config} {checkpoint} --demo --show-dir {folder}/all
    # another backbone; three times as long
    {spelled('demo')} rmt --long
    # the published recipe, once COCO is in data/coco
    {spelled('train')} configs/maskrcnn_regionvit_s_1x.py""")


def spelled(command: str) -> str:
    """How to call another command as this one was called."""
    if sys.argv[0].startswith('mmvit'):
        return f'mmvit {command}'
    python, here = Path(sys.executable), Path.cwd()
    if python.is_relative_to(here):
        python = python.relative_to(here)
    return f'{python} {Path(sys.argv[0]).with_name(command)}.py'


def main() -> None:
    """Make the scenes, train, and report."""
    began = time.time()
    args = parse_args()
    config = f'configs/demo_maskrcnn_{args.family}.py'
    args.work_dir = args.work_dir or Path('work_dirs', f'demo_{args.family}')
    log, picture = args.work_dir / 'log.txt', args.work_dir / 'progress.png'
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    training = None
    try:
        with plain_errors():
            cfg = load_config(config, args.cfg_options)
            make_demo_data(cfg)
            args.work_dir.mkdir(parents=True, exist_ok=True)
            training = Training(args, config, cfg.demo, log)
        print(f'Training {config}; what it prints goes to {log}', flush=True)
        follow(training, picture)
    except KeyboardInterrupt:
        sys.exit('\nInterrupted: make demo starts again from the beginning.')
    finally:
        if training:
            training.stop()
    if training.process.returncode:
        end = ''.join(log.read_text(errors='replace').splitlines(keepends=True)[-20:])
        sys.exit(f'{end}\nThe training failed: the end of {log} is above.')
    report(training, config, picture, time.time() - began)
