"""The tools in this process, or in one of their own, as a user runs them."""

import importlib
import io
import logging
import subprocess
import sys
from collections import OrderedDict
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from mmengine.utils import ManagerMixin

ROOT = Path(__file__).parents[1]


def load(tool):
    """What ``tools/TOOL.py`` is a door to."""
    return importlib.import_module(f'mmvitbackbones.commands.{tool}')


def command_line(tool, arguments, options):
    line = [f'tools/{tool}.py', *map(str, arguments)]
    return [*line, '--cfg-options', *options] if options else line


def run_process(tool, *arguments, options=()):
    """Run ``tools/TOOL.py`` in a process of its own."""
    command = [sys.executable, *command_line(tool, arguments, options)]
    # In a group of its own, which can be killed as a whole.
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, start_new_session=True)


def run(tool, *arguments, options=()):
    """Run ``tools/TOOL.py`` in this process, at the root as ``run_process`` does."""
    command, status = command_line(tool, arguments, options), 0
    out, err = io.StringIO(), io.StringIO()
    with own_instances(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', command)
        patch.chdir(ROOT)
        with redirect_stdout(out), redirect_stderr(err):
            try:
                load(tool).main()
            except SystemExit as end:
                status = end.code or 0
                if not isinstance(status, int):  # a message, as Python prints it
                    print(status, file=sys.stderr)
                    status = 1
    return subprocess.CompletedProcess(command, status, out.getvalue(), err.getvalue())


def succeed(*arguments, how=run, **kwargs):
    """Run a tool that must succeed; return what it printed."""
    done = how(*arguments, **kwargs)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@contextmanager
def own_instances():
    """A Runner's logger, and the like, become those of the process: not beyond this context."""
    before = {kind: kind._instance_dict for kind in managed(ManagerMixin)}
    disabled = logging.root.manager.disable
    for kind in before:
        kind._instance_dict = OrderedDict()
    try:
        yield
    finally:
        logging.disable(disabled)
        for kind in managed(ManagerMixin):
            kind._instance_dict = before.get(kind, OrderedDict())


def managed(kind):
    for child in kind.__subclasses__():
        yield child
        yield from managed(child)


def without_workers(*splits):
    """Options of loaders in this process: workers of its own start slowly and end slowly."""
    settings = ('num_workers=0', 'persistent_workers=False')
    return [f'{split}_dataloader.{setting}' for split in splits for setting in settings]


def train_demo(name, work_dir, options=()):
    """A training step of a config and an evaluation, on the demo's data."""
    options = [
        *('demo.max_iters=1', 'demo.log_interval=1', 'val_dataloader.dataset.indices=2'),
        *without_workers('train', 'val'),
        *options,
    ]
    return succeed('train', f'configs/{name}.py', '--demo', '--work-dir', work_dir, options=options)
