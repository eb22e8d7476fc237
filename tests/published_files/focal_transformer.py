"""The published files of Focal Transformer."""

from __future__ import annotations

import torch

from mmvitbackbones import FocalTransformer
from mmvitbackbones.backbones.focal_transformer import ARCHS

from .layout import Change, Odd, PublishedFiles

ARCH = dict(dims=[8, 16, 16, 32], heads=[1, 2, 2, 4], depths=[1, 2, 1, 1])
EXPANDS, FOCALS, WIDE = (3, 3, 3, 0), (7, 5, 3, 1), (15, 13, 9, 7)
OWN = 'relative_position_bias_table'
SURROUNDINGS = 'relative_position_bias_table_to_neighbors'
COARSE = 'relative_position_bias_table_to_windows.0'
RING, POOLED = r'\.attn\.surroundings\.table', r'\.attn\.(pool\.(weight|bias)|coarse_bias\.table)'
TABLES, COARSE_TABLES = r'.*(bias\.table|\.pool\.weight)', r'.*\.coarse_bias\.table'


def _small(window):
    return dict(window_size=window, expand_sizes=(2, 2, 2, 0))


class FocalTransformerFiles(PublishedFiles):
    golden = 'focal'
    backbone = FocalTransformer
    archs = ARCHS
    arch = ARCH
    variants = {
        'plain': {},
        'overlapping': dict(use_conv_embed=True),
        'wide': dict(focal_windows=WIDE),
        'windows of 4': dict(window_size=4, expand_sizes=(2, 1, 2, 0), focal_windows=(4, 1, 6, 3)),
    }
    sizes = {
        **{arch: dict(arch=arch, out_norm='output') for arch in ARCHS},
        'tiny, wide': dict(arch='tiny', focal_windows=WIDE),
        'tiny, overlapping': dict(arch='tiny', use_conv_embed=True),
        'other depths of a base': dict(arch=dict(base='tiny', depths=(2, 2, 4, 2))),
    }
    millions = {
        arch: (dict(arch=arch), millions, 0.05)
        for arch, millions in dict(tiny=28.9, small=51.1, base=89.8).items()
    }
    own = {
        'defaults': dict(out_norm='output'),
        'others': dict(
            peg=True, window_size=4, expand_sizes=2, focal_windows=WIDE, out_norm='output'
        ),
        'switched off': dict(expand_sizes=(3, 0, 1, 0), focal_windows=(0, 3, 1, 0)),
    }
    changes = {
        'wide': Change(dict(focal_windows=WIDE), resized=COARSE_TABLES),
        'no surroundings': Change(dict(expand_sizes=0), unused=rf'stages\.[0-2]\..*{RING}'),
        'no surroundings in a stage': Change(
            dict(expand_sizes=(3, 0, 3, 0)), unused=rf'stages\.1\..*{RING}'
        ),
        'no coarse tokens': Change(dict(focal_windows=0), unused=rf'.*{POOLED}'),
        'no coarse tokens in a stage': Change(
            dict(focal_windows=(7, 5, 0, 1)), unused=rf'stages\.2\..*{POOLED}'
        ),
        'windows only': Change(
            dict(expand_sizes=0, focal_windows=0), unused=rf'.*({RING}|{POOLED})'
        ),
        'no surroundings, windows of 14': Change(
            dict(window_size=14, expand_sizes=0), unused=rf'.*{RING}', resized=TABLES
        ),
        'windows of 14': Change(
            dict(window_size=14), unused=rf'.*{RING}', new=rf'.*{RING}', resized=TABLES
        ),
        'windows of 5': Change(_small(5), unused=rf'.*{RING}', new=rf'.*{RING}', resized=TABLES),
        'windows of 14 in a stage': Change(
            dict(window_size=(7, 14, 7, 7)),
            unused=rf'stages\.1\..*{RING}',
            new=rf'stages\.1\..*{RING}',
            resized=rf'stages\.1\.{TABLES}',
        ),
        'narrower surroundings': Change(
            dict(expand_sizes=(2, 3, 2, 0)),
            unused=rf'stages\.[02]\..*{RING}',
            new=rf'stages\.[02]\..*{RING}',
        ),
        'more surroundings': Change(dict(expand_sizes=3), new=rf'stages\.3\..*{RING}'),
    }
    needed = [
        'stem.conv.weight',
        'stages.1.downsample.conv.bias',
        'stages.0.blocks.0.ffn.fc1.bias',
        'stages.0.blocks.0.attn.bias.table',
        'stages.0.blocks.0.attn.pool.weight',
    ]
    other_buffers = [
        f'layers.1.blocks.1.{name}'
        for name in (
            'attn.attn_mask',
            'attn_mask',
            'attn.relative_position_index_1',
            'attn.valid_ind_rolled_0',
        )
    ]
    unconvertible = f'layers.0.blocks.0.attn.{OWN} (168, 1)'
    report = (
        {},
        dict(window_size=14, out_norm='output'),
        """\
a state dict: published Focal Transformer weights, 96 tensors loaded
  resized: stages.*.blocks.*.attn.pool.weight, stages.*.blocks.*.attn.bias.table, \
stages.*.blocks.*.attn.coarse_bias.table ((1, 169) -> (1, 400); (1, 169) -> (1, 729); \
(2, 121) -> (2, 324); (2, 169) -> (2, 729); (2, 81) -> (2, 256); (4, 169) -> (4, 729); \
(4, 49) -> (4, 196); (7, 7) -> (14, 14))
  new: stages.*.blocks.*.attn.surroundings.table, out_norms.*.weight, out_norms.*.bias
  unused: layers.*.blocks.*.attn.relative_position_index, \
layers.*.blocks.*.attn.relative_position_index_0, layers.*.blocks.*.attn.valid_ind_rolled, \
stages.*.blocks.*.attn.surroundings.table, norm.weight, norm.bias, head.weight, head.bias""",
    )

    def fill(
        self,
        layout,
        arch,
        window_size=7,
        expand_sizes=EXPANDS,
        focal_windows=FOCALS,
        use_conv_embed=False,
        out_norm=None,
    ):
        dims, window = arch['dims'], window_size

        def embedding(name, ours, before, dim, kernel):
            layout.layer(f'{name}.proj', f'{ours}.conv', dim, before, kernel, kernel)
            layout.layer(f'{name}.norm', f'{ours}.norm', dim)

        embedding('patch_embed', 'stem', 3, dims[0], 7 if use_conv_embed else 4)
        for i, (dim, heads, depth) in enumerate(zip(dims, arch['heads'], arch['depths'])):
            expand, focal = expand_sizes[i], focal_windows[i]
            for j in range(depth):
                name, ours = f'layers.{i}.blocks.{j}', f'stages.{i}.blocks.{j}'
                attn, our_attn = f'{name}.attn', f'{ours}.attn'
                layout.add(
                    f'{name}.pool_layers.0.weight', (1, window**2), f'{our_attn}.pool.weight'
                )
                layout.add(f'{name}.pool_layers.0.bias', (1,), f'{our_attn}.pool.bias')
                side = 2 * window - 1
                layout.add(f'{attn}.{OWN}', (side**2, heads), f'{our_attn}.bias.table')
                side = window + focal - 1
                layout.add(f'{attn}.{COARSE}', (heads, side**2), f'{our_attn}.coarse_bias.table')
                index = {
                    'relative_position_index': (window**2, window**2),
                    'relative_position_index_0': (window**2, focal**2),
                }
                if expand:
                    ring = 4 * (window**2 - (window - expand) ** 2)
                    shape = (1, heads, window**2, ring)
                    layout.add(f'{attn}.{SURROUNDINGS}', shape, f'{our_attn}.surroundings.table')
                    index['valid_ind_rolled'] = (ring,)
                for leaf, shape in index.items():
                    layout.buffer(f'{attn}.{leaf}', shape, integers=True)
                layout.layer(f'{attn}.qkv', f'{our_attn}.qkv', 3 * dim, dim)
                layout.layer(f'{attn}.proj', f'{our_attn}.proj', dim, dim)
                for norm in ('norm1', 'norm2'):
                    layout.layer(f'{name}.{norm}', f'{ours}.{norm}', dim)
                layout.layer(f'{name}.mlp.fc1', f'{ours}.ffn.fc1', 4 * dim, dim)
                layout.layer(f'{name}.mlp.fc2', f'{ours}.ffn.fc2', dim, 4 * dim)
            if i + 1 < len(dims):
                name, ours = f'layers.{i}.downsample', f'stages.{i + 1}.downsample'
                embedding(name, ours, dim, dims[i + 1], 3 if use_conv_embed else 2)
        layout.of_classifier('norm', dims[-1])
        layout.of_classifier('head', 1000, dims[-1])

    def relayout(self, ours, tensors):
        (tensor,) = tensors
        if ours.endswith('.surroundings.table'):
            return tensor[0]
        if ours.endswith('.pool.weight'):
            # The tokens of a window in row-major order.
            return tensor.reshape(round(tensor.numel() ** 0.5), -1)
        # Published for offsets from a key to a query, ours are from a query to a key.
        if ours.endswith('.attn.bias.table'):
            return tensor.flip(0).t()
        return tensor.flip(1) if ours.endswith('.coarse_bias.table') else tensor

    def of_case(self, case):
        return dict(arch=case.info['variant'], **case.info.get('kwargs', {}))

    def odd(self):
        block, ours = 'layers.0.blocks.0', 'stages.0.blocks.0.attn'
        own, coarse = f'{block}.attn.{OWN}', f'{block}.attn.{COARSE}'
        ring, pool = f'{block}.attn.{SURROUNDINGS}', f'{block}.pool_layers.0.weight'
        more_heads = dict(ARCH, heads=[2, 2, 2, 4])
        malformed = {
            own: [(168, 1), (144, 1), (169,)],
            coarse: [(1, 168), (1, 13, 13)],
            ring: [(1, 1, 49, 131), (1, 1, 48, 132), (1, 49, 132)],
            pool: [(1, 48)],
        }
        return {
            **{
                f'{name} {shape}': Odd(
                    lambda name=name, shape=shape: self.changed(name, *shape),
                    [name, str(shape), 'square'],
                )
                for name, shapes in malformed.items()
                for shape in shapes
            },
            'our coarse table': Odd(
                lambda: {**self.ours(), f'{ours}.coarse_bias.table': torch.ones(1, 168)},
                [f'{ours}.coarse_bias.table', '(1, 168)', '(1, 169)'],
            ),
            'heads': Odd(lambda: self.state(arch=more_heads), [ours, '(2, 169)', '(1, 169)']),
            'stem': Odd(
                lambda: self.changed('patch_embed.norm.bias', 9), ['stem.norm.bias', '(9,)', '(8,)']
            ),
            'overlapping': Odd(
                lambda: self.state(use_conv_embed=True), ['overlap: set use_conv_embed=True']
            ),
            'no coarse tokens': Odd(
                lambda: self.build(focal_windows=0).state_dict(),
                ['15 missing', '.attn.pool.weight', 'set focal_windows to 0'],
            ),
        }


FOCAL_TRANSFORMER = FocalTransformerFiles()
