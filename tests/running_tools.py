"""The tools as a user runs them, or as modules of this process."""

import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(tool, *arguments, options=()):
    """Run ``tools/TOOL.py`` in a process of its own."""
    command = [sys.executable, f'tools/{tool}.py', *map(str, arguments)]
    if options:
        command += ['--cfg-options', *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def succeed(*arguments, **kwargs):
    """Run a tool that must succeed; return what it printed."""
    done = run(*arguments, **kwargs)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def load(tool):
    """Import ``tools/TOOL.py``."""
    spec = importlib.util.spec_from_file_location(tool, ROOT / 'tools' / f'{tool}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train_demo_here(name, work_dir, monkeypatch, options=()):
    """A training step of a config and an evaluation, on the demo's data, in this process."""
    # Workers of loaders that are collected as garbage are waited for, 5 seconds each.
    in_process = ('num_workers=0', 'persistent_workers=False')
    options = [
        *('demo.max_iters=1', 'demo.log_interval=1', 'val_dataloader.dataset.indices=2'),
        *(f'{split}_dataloader.{option}' for split in ('train', 'val') for option in in_process),
        f'visualizer.name={name}',  # it writes the log, and is kept by its name
        *options,
    ]
    arguments = ['--demo', '--work-dir', str(work_dir), '--cfg-options', *options]
    monkeypatch.setattr(sys, 'argv', ['train.py', f'configs/{name}.py', *arguments])
    monkeypatch.chdir(ROOT)
    load('train').main()
