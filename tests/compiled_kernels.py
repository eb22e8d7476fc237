"""The kernels for CUDA compiled for GPUs that need not be here, and what they take there.

    python tests/compiled_kernels.py

prints the table of docs/kernels.md: registers of each kernel, bytes spilled and shared memory.
"""

import functools
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

from mmvitbackbones.ops.cuda import attention
from mmvitbackbones.ops.windows import Neighbourhood, as_numbers

ARCHITECTURES = (80, 90, 120)
_TYPES = {
    torch.float32: '*fp32',
    torch.float16: '*fp16',
    torch.bfloat16: '*bf16',
    torch.uint8: '*u8',
}


class Launch(NamedTuple):
    """A kernel and what it is called with."""

    kernel: str
    arguments: tuple
    constants: dict


class Compiled(NamedTuple):
    """What a kernel takes of a GPU: registers a thread, bytes a thread, bytes a program."""

    kernel: str
    registers: int
    spilled: int
    shared: int


def maps(*sizes, heads, dims, dtype):
    return [torch.empty(1, *size, 3, heads, dims, dtype=dtype) for size in sizes]


@functools.cache
def launches(dtype):
    """All kernels of each paper's attention, at sizes of a first stage.

    Returns:
        dict[str, list[Launch]]: By whose attention it is.
    """
    fine = Neighbourhood((7, 7), (3, 3), (3, 3), wraps=True)
    chunks = Neighbourhood((15, 15), (15, 15), (15, 15))
    local, coarse, once = (28, 42), (4, 6), (2, 3)
    one = Neighbourhood((1, 1))

    def vil(dims):
        return maps((30, 45), once, heads=3, dims=dims, dtype=dtype), [chunks, one], True, None

    forms = {
        'RegionViT': (
            maps((1, 400), heads=3, dims=32, dtype=dtype),
            [Neighbourhood((1, 50))],
            True,
            None,
        ),
        'Focal': (
            maps(local, coarse, heads=3, dims=32, dtype=dtype),
            [fine, Neighbourhood((1, 1), (2, 2), (2, 2))],
            True,
            None,
        ),
        'ViL, 32': vil(32),
        'ViL, 49': vil(49),
        'ViL, 64': vil(64),
    }
    for dims in (16, 32, 64):
        lines = [torch.empty(1, 50, 84, 4, dims, dtype=dtype) for _ in range(3)]
        forms[f'RMT, {dims}'] = lines, [Neighbourhood((1, 84))], False, torch.empty(4)
    return {name: _recorded(*form) for name, form in forms.items()}


def _recorded(maps, seen, biased, decay):
    """What forward and backward pass launch."""
    keys = sum(one.size[0] * one.size[1] for one in seen)
    tokens, heads = seen[0].window[0] * seen[0].window[1], maps[0].shape[-2]
    bias = torch.empty(heads, tokens, keys) if biased else None
    valid = torch.empty(8, keys, dtype=torch.bool) if biased else None
    found = []

    class Recording(attention._Launch):
        def _run(self, kernel, tiles, *arguments, **blocks):
            constants = {**blocks, **self._constants()}
            found.append(Launch(kernel, arguments, constants))

    launch = Recording(maps, as_numbers(seen), bias, valid, decay)
    out, lse = attention._empty(maps, as_numbers(seen), bias, valid, decay)
    launch.attend(out, lse)
    of_q, of_k, of_v = attention._parts([attention._like(x) for x in maps])
    launch.of_queries(out, out, lse, lse, of_q)
    launch.of_keys(out, lse, lse, of_k, of_v)
    if biased:
        launch.of_bias(out, lse, lse)
    return found


def compiled(launch, arch):
    """Compile as Triton would at such a call, and ask the assembler what it needs."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mmvitbackbones.ops.cuda import kernels

    function = getattr(kernels, launch.kernel)
    names, constants, attributes = function.arg_names, {}, {}

    def described(x, path):
        """Type of an argument; small constants and multiples of 16 are compiled in."""
        if isinstance(x, tuple):
            return tuple(described(each, (*path, i)) for i, each in enumerate(x))
        if x is None or (isinstance(x, int) and x == 1):
            constants[path] = x
            return 'constexpr'
        if isinstance(x, torch.Tensor) or (isinstance(x, int) and x % 16 == 0):
            attributes[path] = [['tt.divisibility', 16]]
        if isinstance(x, torch.Tensor):
            return _TYPES[x.dtype]
        return 'fp32' if isinstance(x, float) else 'i32'

    signature = {
        name: described(x, (i,)) for i, (name, x) in enumerate(zip(names, launch.arguments))
    }
    options = dict(num_warps=4, num_stages=3)
    for name, x in launch.constants.items():
        if name in options:
            options[name] = x
            continue
        signature[name] = 'constexpr'
        constants[(names.index(name),)] = x
    source = ASTSource(function, signature=signature, constexprs=constants, attrs=attributes)
    result = triton.compile(source, target=GPUTarget('cuda', arch, 32), options=options)
    tool = Path(triton.__file__).parent / 'backends/nvidia/bin/cuobjdump'
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(result.asm['cubin'])
        file.flush()
        usage = subprocess.run(
            [str(tool), '-res-usage', file.name], capture_output=True, text=True, check=True
        ).stdout
    registers, stack, local = map(
        int, re.search(r'REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)', usage).groups()
    )
    return Compiled(launch.kernel, registers, stack + local, result.metadata.shared)


def main():
    for dtype in (torch.bfloat16, torch.float32):
        for form, calls in launches(dtype).items():
            if sys.argv[1:] and form not in sys.argv[1:]:
                continue
            for launch in calls:
                found = [compiled(launch, arch) for arch in ARCHITECTURES]
                cells = ' | '.join(
                    f'{one.registers}, {one.shared / 1024:.0f} KiB'
                    + (f', {one.spilled} B spilled' if one.spilled else '')
                    for one in found
                )
                name = str(dtype).removeprefix('torch.')
                print(f'| {form} | {name} | {launch.kernel} | {cells} |', flush=True)


if __name__ == '__main__':
    main()
