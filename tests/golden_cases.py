"""The golden cases: outputs of the published models on weights that a formula makes."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / 'golden'
_RENAMED = {'proj_cls.': 'proj.', '_global.': '.'}


def names(family: str) -> list[str]:
    """Cases of a family."""
    return sorted(p.stem for p in FOLDER.glob(f'{family}_*.json') if '.keys' not in p.name)


class GoldenCase:
    """One case: its options, published keys, formula-made weights, input and outputs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.info = json.loads((FOLDER / f'{name}.json').read_text())
        self.keys = json.loads((FOLDER / f'{name}.keys.json').read_text())
        self.arrays = np.load(FOLDER / f'{name}.npz')

    def image(self) -> Tensor:
        """The input, float64."""
        rng = np.random.RandomState(self.info.get('seed') or 0)
        return torch.from_numpy(rng.randn(*self.info['shape']))

    def weights(self) -> dict[str, Tensor]:
        """The published state dict, float32; index buffers, which we do not read, are zeros."""
        return {
            key: _formula(key, shape) if 'float' in dtype else torch.zeros(shape, dtype=torch.long)
            for key, (shape, dtype) in self.keys.items()
        }

    def check(self, maps: tuple[Tensor, ...], tolerance: float) -> None:
        """Compare with the published stage outputs, in units of their standard deviation."""
        for i, found in enumerate(maps):
            self.compare(f'stage{i}', found, tolerance)

    def compare(self, name: str, found: Tensor, tolerance: float) -> None:
        """Compare with one published output, in units of its standard deviation."""
        assert tuple(found.shape) == tuple(self.arrays[f'{name}_shape'])
        _, std = self.arrays[f'{name}_mean_std']
        values = found.detach().double().contiguous().flatten().numpy()
        error = np.abs(values[self.arrays[f'{name}_index']] - self.arrays[f'{name}_value'])
        assert error.max() <= tolerance * std, f'{name}: {error.max() / std:.2e} std'


def _formula(key: str, shape: list[int]) -> Tensor:
    for twin, first in _RENAMED.items():
        key = key.replace(twin, first)
    rng = np.random.RandomState(zlib.crc32(key.encode()))
    leaf = key.rsplit('.', 1)[-1]
    if leaf == 'running_var':
        values = 0.5 + rng.rand(*shape)
    else:
        values = rng.randn(*shape)
        if leaf in ('running_mean', 'bias'):
            values = 0.1 * values
        elif leaf.startswith('gamma'):
            values = 0.5 + 0.1 * values
        elif leaf == 'weight' and (len(shape) == 1 or (shape[0] == 1 and shape[2:] == [1, 1])):
            values = 1 + 0.1 * values
        elif leaf == 'weight':
            values = 0.7 * values / np.sqrt(np.prod(shape[1:]))
        else:
            values = 0.5 * values
    return torch.from_numpy(np.asarray(values, dtype=np.float32))
