"""Time and peak memory of a backbone, alone or against another one, in one run.

Forward is eval mode without gradients; a training step is train mode, forward plus backward of the
sum of the means of all outputs, with drop path and checkpointing as the options say. Repeats are
taken in turn (ours, rival, ours, rival, ...), so whatever slows the machine slows both. float16
trains without a gradient scaler: gradients may underflow, which does not change the time.

Memory is measured in fresh processes per model and quantity, over a step after a warm-up step:

* live (the ratio to quote): CPU: the peak resident set less what was resident before the model was
  built, while the heap returns freed blocks at once. Parameters, input, gradients, activations and
  cached tables count; imported libraries do not, for they differ by hundreds of MB from toolbox to
  toolbox. It repeats within a percent. CUDA: the peak of allocated memory.
* held: the same with the plain heap, which keeps holes between blocks: what a run takes, but some
  percent different each time. CUDA: the peak that torch's allocator reserved.
* process (CPU only): the peak of the whole process with the plain heap, libraries included.

A profile says where the time of a CPU goes: seconds and shares by kind of operation, the rate of
the matrix products beside that of one large product, memory that the system handed out in a run,
and the floor: the time that all multiplications would take at that rate, over the rival's time.
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.registry import MODELS
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..running.profile import product_rate, profile_run
from ..stack import TOOLBOXES, how_to_install
from ..zoo import get_config

CLASSIFIER = 'mmpretrain.ImageClassifier'  # what configs named cls_... are of
MEMORY_MEANING = {
    'cpu': 'peak of live memory (the ratio to quote) / the same with the holes of the heap / '
    'the whole process, libraries included',
    'cuda': 'peak of allocated memory (the ratio to quote) / peak reserved by the allocator',
}
# Makes glibc give every block above 1 MiB its own mapping, returned to the system when freed.
NO_HOLES = {'MALLOC_MMAP_THRESHOLD_': str(2**20)}


class BenchmarkError(Exception):
    """A wrong option, or a measurement that cannot be made; the message is one line."""


def one_line(error: Exception) -> str:
    """Return the message of an exception on a single line."""
    return ' '.join(str(error).split()) or type(error).__name__


def config_of(name: str) -> Config:
    """Return the config of what is measured: a backbone's type, or a whole classifier's model.

    Raises:
        BenchmarkError: As :func:`find_backbone`; or there is no such classifier.
    """
    if not name.startswith('cls_'):
        find_backbone(name)
        return Config(dict(type=name))
    find_backbone(CLASSIFIER)
    try:
        return Config(dict(get_config(name).model.to_dict(), type=CLASSIFIER))
    except ValueError as error:
        raise BenchmarkError(one_line(error)) from error


def find_backbone(name: str) -> None:
    """Import what registers a backbone, and check that it does.

    Args:
        name: A backbone of mmvitbackbones ('RegionViT'), or with its scope one of a toolbox
            ('mmdet.SwinTransformer'), or mmpretrain's classifier.

    Raises:
        BenchmarkError: Scope, toolbox or name unknown; the message says what is allowed.
    """
    scope, _, short = name.rpartition('.')
    if scope and scope not in TOOLBOXES:
        raise BenchmarkError(f"no scope '{scope}' for '{name}': allowed are {', '.join(TOOLBOXES)}")
    package = scope or 'mmvitbackbones'
    part = 'classifiers' if name == CLASSIFIER else 'backbones'
    home = f'{scope}.models.{part}' if scope else 'mmvitbackbones.backbones'
    try:
        importlib.import_module(home)
    # Toolboxes assert on the versions of mmcv and mmengine while they are imported.
    except (ImportError, AssertionError) as error:
        raise BenchmarkError(
            f"'{name}' needs {package}, which cannot be imported ({one_line(error)}); "
            f'try: {how_to_install(scope) if scope else "pip install -e ."}'
        ) from error
    registry = MODELS.children[scope] if scope else MODELS
    known = sorted(k for k, v in registry.module_dict.items() if v.__module__.startswith(home))
    if short not in known:
        hint = '' if scope else ', or a classifier such as cls_focal_t_in1k'
        raise BenchmarkError(
            f"no backbone '{short}' in {package}: allowed are {', '.join(known)}{hint}"
        )


class Subject:
    """A backbone, its input, and how to run it.

    Args:
        config: Config of the backbone, with its ``type``.
        shape: Height and width of the input in pixels.
        settings: ``batch``, ``dtype``, ``device`` and ``compile`` of the command line.

    Raises:
        BenchmarkError: The backbone refuses its options.
    """

    def __init__(self, config: dict[str, Any], shape: tuple[int, int], settings: dict[str, Any]):
        torch.manual_seed(0)
        self.device = settings['device']
        self.dtype = getattr(torch, settings['dtype'])
        try:
            self.model = MODELS.build(config.copy()).to(self.device)
        except Exception as error:  # a backbone may raise anything for an option it dislikes
            raise BenchmarkError(f'{one_line(error)} (cannot build {config})') from error
        self.call = self.model
        if settings['compile']:
            # A rival that cannot be one graph compiles its blocks one by one; at torch's limit of
            # 8 the others would stay eager. The older name of the limit still works.
            torch._dynamo.config.cache_size_limit = 256
            self.call = torch.compile(self.model, dynamic=False)
        self.image = torch.randn(settings['batch'], 3, *shape).to(self.device)

    def output(self) -> Any:
        """Run the forward pass under autocast, or without in float32."""
        with torch.autocast(self.device, self.dtype, enabled=self.dtype is not torch.float32):
            return self.call(self.image)

    def forward(self) -> None:
        """Run the forward pass in eval mode, without gradients."""
        self.model.eval()
        with torch.no_grad():
            self.output()

    def train(self) -> None:
        """Run forward and backward in train mode; no gradient stays behind."""
        self.model.train()
        torch.stack([output.float().mean() for output in tensors(self.output())]).sum().backward()
        self.model.zero_grad(set_to_none=True)

    def seconds(self, quantity: str) -> float:
        """Return the wall time of one 'forward' or 'train' in seconds.

        Raises:
            BenchmarkError: The backbone refuses the input.
        """
        self.synchronize()
        start = time.perf_counter()
        try:
            getattr(self, quantity)()
        except ValueError as error:
            name = type(self.model).__name__
            raise BenchmarkError(f'{name} refuses its input: {one_line(error)}') from error
        self.synchronize()
        return time.perf_counter() - start

    def synchronize(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device == 'cuda':
            torch.cuda.synchronize()


def tensors(outputs: Any) -> Iterator[Tensor]:
    """Yield all tensors of nested tuples and lists."""
    if isinstance(outputs, Tensor):
        yield outputs
    else:
        for output in outputs:
            yield from tensors(output)


def time_in_turn(
    subjects: dict[str, Subject], quantity: str, settings: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Time one quantity of all subjects, taking turns.

    Args:
        subjects: Who is measured, by role.
        quantity: 'forward' or 'train'.
        settings: ``warmup`` and ``repeats`` of the command line.

    Returns:
        For each role the raw ``seconds``, their ``median`` and ``min`` in seconds, and their
        ``spread``, the interquartile range over the median.
    """
    raw: dict[str, list[float]] = {role: [] for role in subjects}
    gc.collect()
    for turn in range(-settings['warmup'], settings['repeats']):
        for role, subject in subjects.items():
            seconds = subject.seconds(quantity)
            if turn >= 0:
                raw[role].append(seconds)
    result = {}
    for role, times in raw.items():
        low, median, high = np.percentile(times, (25, 50, 75)).tolist()
        spread = (high - low) / median
        result[role] = dict(seconds=times, median=median, min=min(times), spread=spread)
    return result


def resident_bytes(field: str) -> int:
    """Return VmRSS (now) or VmHWM (peak) of this process in bytes; without /proc the peak."""
    try:
        lines = Path('/proc/self/status').read_text().splitlines()
        return int(dict(line.split(':', 1) for line in lines)[field].split()[0]) * 1024
    except (OSError, KeyError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == 'darwin' else peak * 1024


def reset_peak(device: str) -> None:
    """Start a new peak; where the kernel cannot, a CPU peak covers build and warm-up as well."""
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        pass


def peak_here(
    config: dict[str, Any], shape: tuple[int, int], quantity: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """Measure peak memory in this process, which must be fresh; see :func:`peak_memory`."""
    torch.set_num_threads(settings['threads'])
    find_backbone(config['type'])
    if settings['compile']:
        # The compiler's own modules are no memory of the model.
        torch.compile(torch.nn.Linear(8, 8))(torch.ones(1, 8)).sum().backward()
    before = resident_bytes('VmRSS')
    subject = Subject(config, shape, settings)
    subject.seconds(quantity)
    gc.collect()
    reset_peak(subject.device)
    subject.seconds(quantity)
    if subject.device == 'cuda':
        allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        return dict(live=allocated, held=reserved)
    process = resident_bytes('VmHWM')
    return dict(held=process - before, process=process)


def peak_memory(
    config: dict[str, Any], shape: tuple[int, int], quantity: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """Measure peak memory in a fresh process.

    Args:
        config: Config of the backbone, with its ``type``.
        shape: Height and width of the input in pixels.
        quantity: 'forward' or 'train'.
        settings: ``batch``, ``dtype``, ``device``, ``compile`` and ``threads``.

    Returns:
        ``live``, ``held`` and on the CPU ``process`` in bytes, as this file's head says.

    Raises:
        BenchmarkError: The process failed, for instance for want of memory.
    """
    job = repr((config, shape, quantity, settings))
    command = [sys.executable, '-W', 'ignore', '-m', __name__, '--peak-of', job]

    def fresh_process(**environment: str) -> dict[str, Any]:
        environment = {**os.environ, **environment}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            reason = done.stderr.strip().rpartition('\n')[2] or f'exit code {done.returncode}'
            raise BenchmarkError(f'no peak memory of {config["type"]} ({quantity}): {reason}')
        return json.loads(done.stdout.strip().rpartition('\n')[2])

    if settings['device'] == 'cuda':
        return fresh_process()
    return dict(live=fresh_process(**NO_HOLES)['held'], **fresh_process())


def print_row(label: str, cells: list[str]) -> None:
    """Print one line of the table."""
    print(f'{label:<20}' + ''.join(f'{cell:>25}' for cell in cells), flush=True)


def measure(
    configs: dict[str, dict[str, Any]], shape: tuple[int, int], settings: dict[str, Any]
) -> dict[str, Any]:
    """Measure everything at one image size, and print each line as it is known.

    Args:
        configs: Config of 'ours', and of 'rival' if there is one.
        shape: Height and width of the input in pixels.
        settings: All settings of the command line.

    Returns:
        ``shape``; ``models``, by role: config, parameters, and the dicts of :func:`time_in_turn`
        and :func:`peak_memory` by quantity; ``ratios``, ours / rival, empty without a rival.
    """
    models: dict[str, dict[str, Any]] = {
        role: dict(config=config) for role, config in configs.items()
    }
    ratios: dict[str, dict[str, float]] = {}

    def report(label: str, key: str, unit: float, digits: int) -> None:
        names = [n for n in models['ours'][key] if n not in ('seconds', 'spread')]
        cells = []
        for model in models.values():
            cell = ' / '.join(f'{model[key][name] / unit:.{digits}f}' for name in names)
            spread = model[key].get('spread')
            cells.append(cell if spread is None else f'{cell} {spread:5.1%}')
        if 'rival' in models:
            ours, rival = models['ours'][key], models['rival'][key]
            ratios[key] = {name: ours[name] / rival[name] for name in names}
            cells.append(' / '.join(f'{ratio:.3f}' for ratio in ratios[key].values()))
        print_row(label, cells)

    torch.compiler.reset()
    subjects = {role: Subject(config, shape, settings) for role, config in configs.items()}
    for role, subject in subjects.items():
        models[role]['parameters'] = sum(p.numel() for p in subject.model.parameters())
    print()
    print_row(
        f'{shape[0]} x {shape[1]}', [*models, *(['ours / rival'] if 'rival' in models else [])]
    )
    print_row('parameters (M)', [f'{m["parameters"] / 1e6:.2f}' for m in models.values()])
    for quantity, label in (('forward', 'forward (ms)'), ('train', 'training step (ms)')):
        for role, times in time_in_turn(subjects, quantity, settings).items():
            models[role][quantity] = times
        report(label, quantity, 1e-3, 1)
    if settings['profile']:
        print_profiles(subjects, models)
    del subject, subjects  # leaves the machine's memory to the processes below
    if not settings['memory']:
        return dict(shape=list(shape), models=models, ratios=ratios)
    for quantity, label in (('forward', 'forward (MB)'), ('train', 'training step (MB)')):
        for role, config in configs.items():
            models[role][f'{quantity}_memory'] = peak_memory(config, shape, quantity, settings)
        report(label, f'{quantity}_memory', 1e6, 0)
    return dict(shape=list(shape), models=models, ratios=ratios)


def print_profiles(subjects: dict[str, Subject], models: dict[str, dict[str, Any]]) -> None:
    """Profile forward and training step of all subjects, print them, and add them to the results.

    Args:
        subjects: Who is measured, by role.
        models: What is known of each, by role.
    """
    rate = product_rate()
    for quantity, passes in (('forward', 1), ('train', 3)):
        found = {role: profile_run(getattr(s, quantity)) for role, s in subjects.items()}
        print_row(f'{quantity}, profile', [*found])
        for kind in dict.fromkeys(kind for each in found.values() for kind in each.shares):
            cells = [
                f'{each.shares.get(kind, 0) * each.seconds:.3f} s {each.shares.get(kind, 0):6.1%}'
                for each in found.values()
            ]
            print_row(f'  {kind}', cells)
        print_row('  GFLOP/s of products', [f'{each.gflops:.0f}' for each in found.values()])
        print_row('  fresh memory (MB)', [f'{each.fresh:.0f}' for each in found.values()])
        for role, each in found.items():
            models[role][f'{quantity}_profile'] = vars(each)
        with FlopCounterMode(display=False) as counter:
            subjects['ours'].forward()
        floor = passes * counter.get_total_flops() / 1e9 / rate
        words = f'{floor:.2f} s at {rate:.0f} GFLOP/s'
        if 'rival' in found:
            words += f', {floor / models["rival"][quantity]["median"]:.2f} of the rival'
        print_row('  floor', [words])


def positive(text: str) -> int:
    """Parse an integer of at least one."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f'{value} is not positive')
    return value


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Time and peak memory of a backbone: forward and training step.',
        epilog='Example: benchmark.py RegionViT --arch small --vs mmdet.SwinTransformer',
    )
    add = parser.add_argument
    pairs = dict(nargs='+', action=DictAction, default={}, metavar='KEY=VALUE')
    scopes, has = ', '.join(TOOLBOXES), ' (default: %(default)s)'
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    dtypes = ('float32', 'bfloat16', 'float16')
    add(
        'backbone',
        help='such as RegionViT; with its scope, one of a toolbox; or a classifier such as '
        'cls_regionvit_s_in1k, its neck and head included',
    )
    add('--arch', help="size of the backbone, such as small (default: the backbone's own)")
    options = 'further options of the backbone; of a classifier such as backbone.window_size=14'
    add('--cfg-options', help=options, **pairs)
    add('--vs', metavar='TYPE', help=f'rival of {scopes}, such as mmdet.SwinTransformer')
    add('--vs-options', help='options of the rival', **pairs)
    size: dict[str, Any] = dict(nargs=2, type=positive, action='append', metavar=('H', 'W'))
    add(
        '--shape',
        help='image size; give it again for more (default: 672 1120, of classifiers 224 224)',
        **size,
    )
    add('--batch', type=positive, default=1, help='images per step' + has)
    add('--repeats', type=positive, default=10, help='measured runs of each' + has)
    add('--warmup', type=positive, default=2, help='runs of each before those' + has)
    add('--dtype', choices=dtypes, default=dtypes[0], help='half types by autocast' + has)
    add('--compile', action='store_true', help='run through torch.compile')
    add('--device', choices=('cpu', 'cuda'), default=device, help='cuda if there is one' + has)
    add('--threads', type=positive, default=torch.get_num_threads(), help='of the CPU' + has)
    add('--profile', action='store_true', help='say where the time of a CPU goes')
    add('--no-memory', dest='memory', action='store_false', help='measure time only')
    add('--json', metavar='FILE', type=Path, help='write settings, raw times and results to FILE')
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Check the command line, then measure what it asks for.

    Returns:
        ``settings``, with versions and hardware, and ``results``: :func:`measure` of each shape.

    Raises:
        BenchmarkError: Wrong option, or a measurement that cannot be made.
    """
    if args.json and not args.json.absolute().parent.is_dir():
        raise BenchmarkError(f'--json {args.json}: its folder does not exist; create it first')
    if args.vs_options and not args.vs:
        raise BenchmarkError('--vs-options needs --vs: name the rival they are for')
    if args.profile and args.device != 'cpu':
        raise BenchmarkError('--profile is for --device cpu: for CUDA take torch.profiler itself')
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise BenchmarkError('--device cuda: torch sees no CUDA device; use cpu')
    dtype, one = getattr(torch, args.dtype), torch.ones(1, 1, device=args.device)
    with torch.autocast(args.device, dtype, enabled=dtype is not torch.float32):
        if (one @ one).dtype is not dtype:  # older versions of torch only warn
            raise BenchmarkError(f'--dtype {args.dtype}: this torch has none on {args.device}')
    classifier = args.backbone.startswith('cls_')
    if args.arch and classifier:
        raise BenchmarkError(
            f'--arch: {args.backbone} has its own; change it by --cfg-options backbone.arch=...'
        )
    arch = {'arch': args.arch} if args.arch else {}
    asked = {'ours': (args.backbone, {**arch, **args.cfg_options})}
    if args.vs:
        asked['rival'] = (args.vs, args.vs_options)
    configs = {}
    for role, (name, options) in asked.items():
        config = config_of(name)
        try:
            config.merge_from_dict(options)
        except TypeError as error:
            raise BenchmarkError(
                f'options {options} of {name}: a key with a dot cannot change a value that is no '
                'dict, such as the name given by --arch; give the whole value instead'
            ) from error
        configs[role] = config.to_dict()
        print(f'{role}: {configs[role]}')
    torch.set_num_threads(args.threads)
    cuda = args.device == 'cuda'
    keys = 'batch repeats warmup dtype compile device threads memory profile'.split()
    settings = {key: getattr(args, key) for key in keys}
    settings.update(
        torch=torch.__version__,
        python=platform.python_version(),
        hardware=torch.cuda.get_device_name() if cuda else torch.backends.cpu.get_cpu_capability(),
        omp_wait_policy=os.environ.get('OMP_WAIT_POLICY'),
        memory_meaning=MEMORY_MEANING[args.device],
    )
    print(', '.join(f'{k} {v}' for k, v in settings.items() if k != 'memory_meaning'))
    print('times: median / minimum, and spread (interquartile range / median)')
    if args.memory:
        print(f'memory: {settings["memory_meaning"]}')
    usual = (224, 224) if classifier else (672, 1120)
    shapes = [tuple(shape) for shape in args.shape or [usual]]
    return dict(settings=settings, results=[measure(configs, s, settings) for s in shapes])


def main(argv: list[str] | None = None) -> None:
    """Run the command line; a wrong option ends it with exit code 2 and one line on stderr."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if argv[:1] == ['--peak-of']:  # how peak_memory calls this module
            print('\n' + json.dumps(peak_here(*ast.literal_eval(argv[1]))))
            return
        args = parse_args(argv)
        results = run(args)
    except BenchmarkError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2))


if __name__ == '__main__':
    main()
