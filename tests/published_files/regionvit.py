"""The published files of RegionViT."""

from __future__ import annotations

import torch

from mmvitbackbones import RegionViT
from mmvitbackbones.backbones.regionvit import ARCHS

from .layout import Change, Odd, PublishedFiles

ARCH = dict(
    stem='3-conv', dims=[8, 16, 16, 32], heads=[1, 2, 2, 4], depths=[1, 2, 1, 1], window_size=7
)
LOCAL = dict(ARCH, regional=False)
REGIONAL, TABLES = r'stem\.regional\.\w+|.*\.norm0\.\w+', r'.*\.bias\.table'


class RegionViTFiles(PublishedFiles):
    golden = 'regionvit'
    backbone = RegionViT
    archs = ARCHS
    arch = ARCH
    variants = {
        'classifier': {},
        'detector': dict(peg=True, out_norm='inline'),
        'one convolution': dict(arch=dict(ARCH, stem='1-conv')),
        'windows of 4': dict(window_size=4),
    }
    sizes = {
        **{arch: dict(arch=arch) for arch in ARCHS},
        **{f'{arch}, detector': dict(arch=arch, peg=True, out_norm='inline') for arch in ARCHS},
    }
    own = {
        'PEG, windows of 3': dict(peg=True, window_size=3, out_norm='output'),
        'no regional tokens': dict(arch=LOCAL),
    }
    same_tensors = {'window': dict(window_size=7), 'windows': dict(window_size=[7, 7, 7, 7])}
    changes = {
        **{
            f'windows of {n}': Change(
                dict(window_size=n), resized=rf'stem\.regional\.weight|{TABLES}'
            )
            for n in (3, 14)
        },
        'no regional tokens': Change(dict(arch=LOCAL), unused=REGIONAL),
        **{
            f'no regional tokens, windows of {n}': Change(
                dict(arch=LOCAL, window_size=n), unused=REGIONAL, resized=TABLES
            )
            for n in (3, 14)
        },
    }
    needed = [
        'stem.local.0.weight',
        'stem.local.4.bias',
        'stages.1.blocks.1.norm1.bias',
        'stages.1.blocks.1.ffn.fc1.bias',
    ]
    unconvertible = 'table'
    report = (
        {},
        dict(peg=True, out_norm='output', window_size=14),
        """\
a state dict: published RegionViT weights, 99 tensors loaded
  resized: stem.regional.weight, stages.*.blocks.*.bias.table ((1, 169) -> (1, 729); \
(2, 169) -> (2, 729); (4, 169) -> (4, 729); (8, 3, 28, 28) -> (8, 3, 56, 56))
  new: stages.*.peg.conv.weight, out_norms.*.weight, out_norms.*.bias
  unused: norm.weight, norm.bias, head.weight, head.bias
  second copies of tied tensors: layers.*.block.*.proj_cls.*.weight, \
layers.*.block.*.proj_cls.*.bias""",
    )

    def fill(self, layout, arch, window_size=None, peg=False, out_norm=None):
        dims, window = arch['dims'], window_size or arch['window_size']

        def norm_2d(name, ours, dim):
            for leaf in ('weight', 'bias'):
                layout.add(f'{name}.{leaf}', (1, dim, 1, 1), f'{ours}.{leaf}')

        if arch['stem'] == '1-conv':
            layout.layer('patch_embed.proj', 'stem.local.0', dims[0], 3, 8, 8)
        else:
            before = 3
            for index, dim in ((0, dims[0] // 4), (3, dims[0] // 2), (6, dims[0])):
                name, ours = f'patch_embed.proj.{index}', f'stem.local.{index}'
                layout.layer(name, ours, dim, before, 3, 3)
                if index < 6:
                    norm_2d(f'patch_embed.proj.{index + 1}', f'stem.local.{index + 1}', dim)
                before = dim
        layout.layer('cls_token.proj', 'stem.regional', dims[0], 3, 4 * window, 4 * window)
        for i, (dim, heads, depth) in enumerate(zip(dims, arch['heads'], arch['depths'])):
            if i:
                name, ours = f'layers.{i}.block.0.proj', f'stages.{i}.downsample'
                norm_2d(f'{name}.0', f'{ours}.norm', dims[i - 1])
                layout.layer(f'{name}.2', f'{ours}.conv', dim, 1, 3, 3)
                for index in (0, 2):
                    layout.twin(f'{name}_cls.{index}', f'{name}.{index}')
            for j in range(depth):
                name, ours = f'layers.{i}.block.{j + 1}', f'stages.{i}.blocks.{j}'
                for k in range(3):
                    layout.layer(f'{name}.norm{k}', f'{ours}.norm{k}', dim)
                shape = (heads, (2 * window - 1) ** 2)
                layout.add(f'{name}.attn.rel_pos', shape, f'{ours}.bias.table')
                layout.layer(f'{name}.attn.qkv', f'{ours}.attn.qkv', 3 * dim, dim)
                layout.layer(f'{name}.attn.proj', f'{ours}.attn.proj', dim, dim)
                layout.layer(f'{name}.mlp.fc1', f'{ours}.ffn.fc1', 4 * dim, dim)
                layout.layer(f'{name}.mlp.fc2', f'{ours}.ffn.fc2', dim, 4 * dim)
            if peg:
                name, ours = f'layers.{i}.peg', f'stages.{i}.peg.conv'
                layout.layer(name, ours, dim, 1, 3, 3, bias=False)
            if out_norm:
                norm_2d(f'norm{i}', f'out_norms.{i}', dim)
        layout.of_classifier('norm', dims[-1])
        layout.of_classifier('head', 1000, dims[-1])

    def relayout(self, ours, tensors):
        (tensor,) = tensors
        if ours.endswith('.bias.table'):
            # Published, offset o is in row (o + M // 2) mod (2M - 1).
            side = round(tensor.shape[1] ** 0.5)
            window = (side + 1) // 2
            rows = (torch.arange(1 - window, window) + window // 2) % side
            return tensor.unflatten(1, (side, side))[:, rows][:, :, rows].flatten(1)
        return tensor.flatten() if tensor.shape[0] == 1 and tensor.shape[2:] == (1, 1) else tensor

    def of_case(self, case):
        size, _, extras = case.info['variant'].partition('_')
        arch = f'{size}_plus' if 'w14' in extras else size
        out_norm = 'inline' if 'kwargs' in case.info else None
        return dict(arch=arch, peg='peg' in extras, out_norm=out_norm)

    def odd(self):
        tied, table = 'layers.2.block.0.proj_cls.2.bias', 'layers.0.block.1.attn.rel_pos'
        regional, our_table = 'cls_token.proj.weight', 'stages.0.blocks.0.bias.table'
        more_heads = dict(ARCH, heads=[2, 2, 2, 4])
        return {
            'table': Odd(lambda: self.changed(table, 1, 168), [table, '168']),
            'our table': Odd(
                lambda: {**self.ours(), our_table: torch.ones(1, 168)}, [our_table, '168']
            ),
            'heads': Odd(lambda: self.state(arch=more_heads), [our_table, '(2, 169)', '(1, 169)']),
            'stem': Odd(
                lambda: self.changed('patch_embed.proj.6.bias', 9), ['stem.local.6.bias', '(9,)']
            ),
            'tied differ': Odd(lambda: self.changed(tied, 16), [tied, 'proj.2.bias', 'tied']),
            'twin missing': Odd(lambda: self.without(tied.replace('_cls', '')), [tied, 'tied']),
            'PEG': Odd(
                lambda: self.state(peg=True), ['4 unexpected', 'stages.0.peg', 'set peg=True']
            ),
            'projection': Odd(
                lambda: self.changed(regional, 8, 3, 14, 28), ['stem.regional.weight', '14, 28']
            ),
            'no regional tokens': Odd(
                lambda: self.build(arch=LOCAL).state_dict(),
                ['12 missing', 'stem.regional', 'set regional=False in arch'],
            ),
        }


REGIONVIT = RegionViTFiles()
