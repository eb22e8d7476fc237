"""What runs here: ``python -m mmvitbackbones.env [--check-kernels]``.

Versions, devices, which kernels compute and which operations are compiled. With
``--check-kernels`` the kernels for CUDA are held against their plain bodies on the card, and both
are timed: it takes some minutes, most of which is Triton's compiler.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

from . import __version__
from .ops import backend, why_plain
from .running.kernel_check import TOLERANCES, Case, cases, errors, seconds
from .stack import DISTRIBUTIONS

_PACKAGES = (
    *('torch', 'torchvision', 'triton', 'timm'),
    *(name for both in DISTRIBUTIONS.values() for name in both),
)
_CHECKED = (50, 84)  # tokens of the map on which results are compared
_TIMED = (100, 168)  # of a second stage at 800 x 1333


def versions() -> list[str]:
    """Versions of what is installed."""
    found = [f'mmvitbackbones {__version__}', f'Python {platform.python_version()}']
    for name in _PACKAGES:
        try:
            found.append(f'{name} {version(name)}')
        except PackageNotFoundError:
            continue
    return found


def devices() -> list[str]:
    """The processor and the GPUs that torch sees, a line each."""
    capability, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    found = [f'cpu: {platform.machine()}, {capability}, {threads} threads']
    if not torch.cuda.is_available():
        return [*found, f'cuda: none (this torch is built for CUDA {torch.version.cuda})']
    for i in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(i)
        found.append(
            f'cuda:{i}: {card.name}, compute capability {card.major}.{card.minor}, '
            f'{card.total_memory / 2**30:.0f} GB'
        )
    return found


def kernels() -> list[str]:
    """Which kernels compute on each kind of device, or why plain bodies do."""
    reason = why_plain(torch.zeros(1))
    found = [
        'cpu: attention, feed-forward networks and rotary embedding '
        + ('by kernels' if reason is None else f'by plain bodies: {reason}')
    ]
    if torch.cuda.is_available():
        queries = torch.zeros(1, 1, 32, device='cuda')
        reason = why_plain(queries, attention=True)
        how = 'by kernels' if reason is None else f'by plain bodies: {reason}'
        found.append(f'cuda: attention {how}; all else by torch')
    return found


def compiled_operations() -> list[str]:
    """Which operations of mmcv are there: detectors need them."""
    try:
        ops = importlib.import_module('mmcv.ops')
        compiler, cuda = ops.get_compiler_version(), ops.get_compiling_cuda_version()
    except (ImportError, AttributeError) as error:
        return [f'mmcv: none ({error}); backbones need none, detectors do']
    return [f'mmcv: for the CPU by {compiler}; for CUDA: {cuda}']


def check_kernels() -> bool:
    """Hold the kernels against plain bodies on the first GPU; print errors and times.

    Returns:
        bool: Whether all agree.
    """
    device, agree = torch.device('cuda'), True
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('highest')
    print(f'{"":18}{"type":10}{"largest error":>15}{"plain":>11}{"kernel":>11}')
    for dtype, most in TOLERANCES.items():
        checked = cases(_CHECKED, device)
        timed = cases(_TIMED, device, samples=2, heads=3)
        for small, large in zip(checked, timed):
            found = errors(small, dtype)
            fits = all(error < most for error in found)  # NaN does not
            agree &= fits
            worst = torch.tensor(found).max().item()
            print(line(small, dtype, worst, large) + ('' if fits else '  WRONG'), flush=True)
    torch.set_float32_matmul_precision(precision)
    return agree


def line(small: Case, dtype: torch.dtype, error: float, large: Case) -> str:
    """A line of the table: an error, and the times of forward and backward pass."""
    name = str(dtype).removeprefix('torch.')
    times = [seconds(large, dtype, kernel) * 1e3 for kernel in (False, True)]
    return f'{small.name:18}{name:10}{error:15.1e}' + ''.join(f'{t:8.2f} ms' for t in times)


def main() -> None:
    """Print what is here, and check the kernels if that is asked for."""
    parser = argparse.ArgumentParser(prog='python -m mmvitbackbones.env', description=__doc__)
    parser.add_argument(
        '--check-kernels',
        action='store_true',
        help='compare the kernels for CUDA with their plain bodies, and time both',
    )
    args = parser.parse_args()
    for title, lines in (
        ('versions', versions()),
        ('devices', devices()),
        ('kernels', kernels()),
        ('compiled operations', compiled_operations()),
    ):
        print(f'{title}:', *lines, sep='\n  ')
    if not args.check_kernels:
        return
    if not torch.cuda.is_available():
        sys.exit('error: --check-kernels needs a CUDA GPU, and torch sees none')
    if not backend.has_triton():
        sys.exit(
            'error: --check-kernels needs Triton 3.7 or newer, which comes with torch 2.12 for CUDA'
        )
    print()
    if not check_kernels():
        sys.exit('error: leave the kernels off, and report this table')
    print(f'\nall agree; to let the kernels compute: export {backend.SWITCH}=1')


if __name__ == '__main__':
    main()
