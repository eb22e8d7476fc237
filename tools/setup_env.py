"""Set up an environment with pinned versions of one of the stacks; needs nothing but Python.

A stamp file makes the second run immediate, and an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PINS = ROOT / 'requirements' / 'pinned.txt'
STEPS = 6

# Each op call fails where a build does not fit the installed torch, or was made without ops.
BOX = 'torch.tensor([[0., 0., 1., 1.]]), torch.tensor([1.]), 0.5'
TORCH_CHECK = f'import torch, torchvision; torchvision.ops.nms({BOX})'
CUDA_OPS_CHECK = 'import mmcv.ops; assert mmcv.ops.get_compiling_cuda_version()[:1].isdigit()'
TOOLBOX_CHECK = 'import mmdet, mmseg, mmpretrain, sklearn'


class Stack:
    """The toolboxes of OpenMMLab, or of OneDL, whose modules have the same names.

    Args:
        name: 'openmmlab' or 'onedl', as in requirements/NAME.txt.
    """

    NAMES = ('openmmlab', 'onedl')

    def __init__(self, name: str) -> None:
        self.pins = (PINS, PINS.parent / f'{name}.txt')
        self.mmcv = 'onedl-mmcv' if name == 'onedl' else 'mmcv'
        self.mmcv_version = pinned(self.mmcv, *self.pins)

    @property
    def mmcv_file(self) -> str:
        """How the names of mmcv's source and wheels begin."""
        return f'{self.mmcv.replace("-", "_")}-{self.mmcv_version}'

    @property
    def mmcv_check(self) -> str:
        """Code that fails where another mmcv is installed, or one whose ops do not run."""
        version = f'assert mmcv.__version__ == "{self.mmcv_version}"'
        return f'import torch, mmcv.ops; {version}; mmcv.ops.nms({BOX})'


def pinned(name: str, *files: Path) -> str:
    """The version that files of requirements pin a package to."""
    texts = '\n'.join(file.read_text() for file in files)
    return re.search(rf'^{name}==(\S+)', texts, re.MULTILINE)[1]


def say(text: str, in_place: bool = False) -> None:
    """Print a line at once, also into a pipe; on a terminal it may replace the line before."""
    up = '\x1b[F\x1b[K' if in_place and sys.stdout.isatty() else ''
    print(f'{up}{text}', flush=True)


def pip_progress(line: str) -> str | None:
    """Shorten a line of pip's output to what shows that it moves, or None."""
    if match := re.search(r'(Downloading|Using cached) (\S+\.(?:whl|tar\.gz))( \(.+\))', line):
        return f'{match[1]} {match[2].rsplit("/", 1)[-1]}{match[3]}'
    if line.startswith('Installing collected packages'):
        return f'Installing packages: {line.count(",") + 1}'
    return None


class CompileProgress:
    """Turns ninja's `[n/total] command` lines into a bar: of every line, or of every tenth.

    Args:
        every: after how many files the bar is shown.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.start = time.monotonic()

    def __call__(self, line: str) -> str | None:
        """Return the bar, or None."""
        match = re.search(r'\[(\d+)/(\d+)\]', line)
        if not match:
            return None
        done, total = int(match[1]), int(match[2])
        if done % self.every and done != total:
            return None
        left = (time.monotonic() - self.start) * (total - done) / done
        bar = ('#' * (30 * done // total)).ljust(30, '.')
        return f'[{bar}] {done} of {total} files, {left:.0f} s left'


class Venv:
    """The virtual environment being set up.

    Args:
        path: its folder.
        stack: whose toolboxes it gets.
        wheels: a folder of ready wheels, or None; need not exist.
    """

    def __init__(self, path: Path, stack: Stack, wheels: Path | None) -> None:
        self.path = path
        self.stack = stack
        self.python = path / 'bin' / 'python'
        self.log = path / 'setup.log'
        folders = [folder for folder in (wheels, kept_wheels()) if folder and folder.is_dir()]
        self.find_links = [f'--find-links={folder.absolute()}' for folder in folders]

    def create(self) -> None:
        """Make the environment unless a working one of this Python version is there."""
        same_version = f'import pip, sys; assert sys.version_info[:2] == {sys.version_info[:2]}'
        if self.error_of(same_version):
            command = [sys.executable, '-m', 'venv', '--clear', str(self.path)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(
                    f'Python could not make {self.path} (on Debian and Ubuntu the package '
                    f'python3-venv is needed): {(done.stdout + done.stderr).strip()}'
                )

    def error_of(self, code: str) -> str:
        """Run Python code inside and return the last line of its error, '' if it ran."""
        if not self.python.exists():
            return 'no environment yet'
        done = subprocess.run([self.python, '-c', code], capture_output=True, text=True, cwd='/')
        if done.returncode == 0:
            return ''
        return (done.stderr.strip() or f'exit status {done.returncode}').splitlines()[-1]

    def pip(
        self, *args: str, show: Callable[[str], str | None] = pip_progress, env: dict | None = None
    ) -> list[str]:
        """Run pip with the pins as constraints, log its output, print what `show` leaves of it.

        Returns:
            The last lines of the output where pip failed, else an empty list.
        """
        constraints = [f'--constraint={file}' for file in self.stack.pins]
        command = [self.python, '-m', 'pip', *args, *self.find_links, *constraints]
        path = f'{self.python.parent}{os.pathsep}{os.environ.get("PATH", "")}'  # for ninja
        env = {**os.environ, 'PATH': path, 'PYTHONUNBUFFERED': '1', **(env or {})}
        tail: collections.deque[str] = collections.deque(maxlen=20)
        with (
            self.log.open('a') as log,
            subprocess.Popen(
                [str(part) for part in command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=env,
                text=True,
                errors='replace',
            ) as process,
        ):
            for line in process.stdout:
                log.write(line)
                tail.append(line.rstrip()[:300])
                if text := show(line):
                    say(f'      {text}', in_place=show is not pip_progress)
        return list(tail) if process.returncode else []

    def pip_or_exit(self, what: str, *args: str, **options) -> None:
        """Run pip; where it fails, print the end of its output and exit with one sentence."""
        if tail := self.pip(*args, **options):
            say('\n'.join(tail))
            sys.exit(
                f'{what} failed (the end of the output is above, all of it in {self.log}): '
                'put right what it names, often the network, and run the same command again.'
            )

    def mmcv_error(self) -> str:
        """Return why the installed mmcv does not suit this machine, '' if it does."""
        error = self.error_of(self.stack.mmcv_check)
        if not error and wants_cuda_ops() and self.error_of(CUDA_OPS_CHECK):
            return 'it has no CUDA ops'
        return error

    def ready_mmcv_wheel(self) -> Path | None:
        """Fetch a ready mmcv wheel from the wheel folder or the index; None if there is none."""
        folder = self.path / 'wheels'
        name = self.stack.mmcv
        self.pip('download', '--no-deps', '--only-binary=:all:', '-d', str(folder), name)
        return next(folder.glob(f'{self.stack.mmcv_file}-*.whl'), None)

    def install_mmcv(self, wheel: Path | None) -> None:
        """Install mmcv from the wheel if it suits this machine, else compile it."""
        reason = 'no ready wheel was found'
        if wheel:
            say(f'[4/{STEPS}] Installing mmcv from {wheel.name} (a few seconds)')
            self.pip_or_exit('Installing mmcv', 'install', str(wheel))
            if not (error := self.mmcv_error()):
                return
            reason = f'the ready wheel does not suit this machine: {error}'
        exit_without_compiler(reason)
        self.compile_mmcv()

    def compile_mmcv(self) -> None:
        """Compile mmcv to a wheel that is kept, and install it.

        The source stays in the environment, so that an interrupted compile goes on.
        """
        cuda = wants_cuda_ops()
        kind, time_needed = ('CUDA', 'half an hour') if cuda else ('CPU', '3 minutes on 2 cores')
        say(f'[4/{STEPS}] Compiling mmcv with {kind} ops (about {time_needed})')
        folder = self.path / 'src'
        self.pip_or_exit(
            'Downloading the source of mmcv',
            *('download', '--no-deps', '--no-build-isolation', '--no-binary', self.stack.mmcv),
            *('-d', str(folder), self.stack.mmcv),
        )
        file = self.stack.mmcv_file
        shutil.unpack_archive(folder / f'{file}.tar.gz', folder)
        source = folder / file
        memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
        jobs = max(1, min(len(os.sched_getaffinity(0)), int(memory / 2e9)))
        # Python's own flags count no more where CFLAGS is set; debug symbols cost time and space.
        flags = f'-O3 -DNDEBUG -g0 {os.environ.get("CFLAGS", "")}'
        env = {
            'MMCV_WITH_OPS': '1',
            'FORCE_CUDA': '1' if cuda else '0',
            'CFLAGS': f'{flags} {self.precompiled_headers(source, flags)}',
            'MAX_JOBS': os.environ.get('MAX_JOBS', str(jobs)),
        }
        if not cuda:
            env['CUDA_VISIBLE_DEVICES'] = ''  # mmcv compiles for any GPU that torch sees
        say('      starting')  # the line that the bar replaces
        self.pip_or_exit(
            'Compiling mmcv' + (' (FORCE_CUDA=0 leaves its CUDA ops out)' if cuda else ''),
            *('wheel', '--verbose', '--no-build-isolation', '--no-deps', '--wheel-dir'),
            *(str(folder), str(source)),
            show=CompileProgress(every=1 if sys.stdout.isatty() else 10),
            env=env,
        )
        (wheel,) = folder.glob(f'{file}-*.whl')
        self.pip_or_exit('Installing mmcv', 'install', '--no-deps', '--force-reinstall', str(wheel))
        keep(wheel)
        shutil.rmtree(source)

    def precompiled_headers(self, source: Path, flags: str) -> str:
        """Compile torch's headers once, which are four fifths of the time of each of mmcv's files.

        Returns:
            The flags to use them. Compilers ignore what was compiled with other settings.
        """
        header = source / 'headers.hpp'
        compiled, unfinished = source / 'headers.hpp.gch', source / 'headers.unfinished'
        use = f'-include {shlex.quote(str(header))}'
        if compiled.exists():  # of an interrupted compile, whose files depend on it
            return use
        script = (
            'import json, sysconfig; from torch.utils.cpp_extension import include_paths; '
            'print(json.dumps([*include_paths(), sysconfig.get_path("include")]))'
        )
        run = subprocess.run([self.python, '-c', script], capture_output=True, text=True)
        if run.returncode:
            return ''
        header.write_text(f'#include "{source}/mmcv/ops/csrc/common/pytorch_cpp_helper.hpp"\n')
        command = [
            *shlex.split(os.environ.get('CXX', 'c++')),
            *shlex.split(flags),
            *('-fPIC', '-std=c++17', '-DTORCH_API_INCLUDE_EXTENSION_H'),
            *('-DTORCH_EXTENSION_NAME=_ext', *(f'-I{path}' for path in json.loads(run.stdout))),
            *('-x', 'c++-header', str(header), '-o', str(unfinished)),
        ]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if done.returncode:
            return ''
        unfinished.replace(compiled)
        return use


def kept_wheels() -> Path:
    """The folder where the next clone finds the mmcv that was compiled here for the pins."""
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    kind = 'cuda' if wants_cuda_ops() else 'cpu'
    return cache / 'mmvitbackbones' / f'torch-{pinned("torch", PINS)}-{kind}'


def keep(wheel: Path) -> None:
    """Copy a wheel to the folder of those that are kept; say where, or why not."""
    folder = kept_wheels()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f'.{wheel.name}.{os.getpid()}'
        shutil.copyfile(wheel, unfinished)
        unfinished.replace(folder / wheel.name)
        say(f'      Kept for the next clone: {folder / wheel.name}')
    except OSError as error:
        say(f'      Not kept for the next clone: {error}')


def wants_cuda_ops() -> bool:
    """Return FORCE_CUDA if it is set, else whether there are a GPU driver and nvcc."""
    if 'FORCE_CUDA' in os.environ:
        return os.environ['FORCE_CUDA'] == '1'
    return bool(shutil.which('nvidia-smi') and shutil.which('nvcc'))


def exit_without_compiler(reason: str) -> None:
    """Exit with one sentence if C++ extensions of this Python cannot be compiled here."""
    compilers = (os.environ.get('CC', 'gcc'), os.environ.get('CXX', 'g++'))
    for compiler in compilers:
        if not shutil.which(shlex.split(compiler)[0]):
            sys.exit(
                f'mmcv must be compiled ({reason}) but {compiler} was not found: install a C++ '
                'compiler (Debian, Ubuntu: apt install build-essential; Fedora: dnf install '
                'gcc-c++) and run the same command again.'
            )
    if not Path(sysconfig.get_path('include'), 'Python.h').exists():
        sys.exit(
            f"mmcv must be compiled ({reason}) but Python's headers were not found: install them "
            '(Debian, Ubuntu: apt install python3-dev; Fedora: dnf install python3-devel) and run '
            'the same command again.'
        )


def set_up(venv: Venv) -> None:
    """Do the steps; those done before are recognised and take seconds."""
    say(f'Setting up {venv.path}: once, about 5 minutes. It can be interrupted and started again.')
    say(f'[1/{STEPS}] Making the environment (10 s)')
    venv.create()

    say(f'[2/{STEPS}] Looking for a ready mmcv (a few seconds)')
    wheel = venv.ready_mmcv_wheel() if venv.mmcv_error() else None
    if not wheel and venv.mmcv_error():
        exit_without_compiler('no ready wheel was found')

    say(f'[3/{STEPS}] Installing torch and torchvision (1 to 10 minutes, a large download)')
    names = ['torch', 'torchvision', 'setuptools', 'wheel', 'ninja']
    venv.pip_or_exit('Installing torch', 'install', *names)
    if error := venv.error_of(TORCH_CHECK):
        sys.exit(
            f'The installed torch and torchvision do not work together ({error}): delete '
            f'{venv.path}, see that pip takes both from the same index, and run the same command '
            'again.'
        )

    # Asked again: a change of the pins may just have replaced the torch it was made for.
    if venv.mmcv_error():
        venv.install_mmcv(wheel)
    else:
        say(f'[4/{STEPS}] mmcv is there')

    say(f'[5/{STEPS}] Installing mmdet, mmsegmentation, mmpretrain and the rest (1 to 3 minutes)')
    files = [f'--requirement={file}' for file in venv.stack.pins]
    venv.pip_or_exit('Installing the pinned packages', 'install', *files)
    editable = ['install', '--no-deps', '--no-build-isolation', '--editable', str(ROOT)]
    venv.pip_or_exit('Installing mmvitbackbones', *editable)

    say(f'[6/{STEPS}] Checking that everything can be imported (20 s)')
    for code in (TORCH_CHECK, venv.stack.mmcv_check, TOOLBOX_CHECK):
        if error := venv.error_of(code):
            sys.exit(
                f'The installed packages do not work ({error}): put right what this names, or '
                f'delete {venv.path}, and run the same command again.'
            )
    if not venv.error_of('import torch; assert torch.cuda.is_available()') and venv.error_of(
        CUDA_OPS_CHECK
    ):
        say('Note: mmcv has no CUDA ops, so detectors run on the CPU only: see docs/install.md.')


def main() -> None:
    """Set up unless the stamp file says that exactly this was done before."""
    if sys.version_info < (3, 11):
        version = '.'.join(map(str, sys.version_info[:3]))
        sys.exit(f'The pinned versions need Python 3.11 or newer; this is Python {version}.')
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--stack', choices=Stack.NAMES, required=True, help='whose toolboxes')
    parser.add_argument('--venv', type=Path, required=True, help='the folder to set up')
    parser.add_argument('--wheels', type=Path, help='a folder of ready wheels, if you have one')
    args = parser.parse_args()
    stack = Stack(args.stack)
    venv = Venv(args.venv.absolute(), stack, args.wheels)

    digest = hashlib.sha256(f'{sys.version_info[:2]} {ROOT}'.encode())
    for file in (*stack.pins, ROOT / 'setup.py'):
        digest.update(file.read_bytes())
    stamp = venv.path / 'setup.stamp'
    if venv.python.exists() and stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    try:
        set_up(venv)
    except KeyboardInterrupt:
        sys.exit('\nInterrupted: run the same command again to go on.')
    stamp.write_text(digest.hexdigest())
    say(f'{venv.path} is ready.')


if __name__ == '__main__':
    main()
