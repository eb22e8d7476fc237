"""The published files of RMT."""

from __future__ import annotations

import re

import torch

from mmvitbackbones import RMT
from mmvitbackbones.backbones.rmt import ARCHS

from .layout import Change, Odd, PublishedFiles

ARCH = dict(
    dims=[8, 16, 16, 32],
    heads=[1, 2, 2, 4],
    depths=[1, 2, 1, 1],
    mlp_ratios=[2, 1, 3, 1],
    decay_range=[[2, 6], [2, 6], [2, 8], [2, 8]],
    layer_scale=[None, 1e-6, None, 0.5],
)
UNSCALED = dict(ARCH, layer_scale=None)
CONV_STEM, PATCH_STEM = r'stem\.\d+\..*', r'stem\.(conv|norm)\.(weight|bias)'
PUBLISHED = ('tiny', 'small', 'base', 'large')
CONSTANTS = ('angle', 'decay', 'index', 'sin', 'cos')
# Of Table 6.
PARTS = {
    'lce': (dict(lce=False), r'.*\.attn\.lce\..*', ''),
    'cpe': (dict(cpe=False), r'.*\.cpe\.conv\..*', ''),
    'ffn_conv': (dict(ffn_conv=False), r'.*\.ffn\.conv\..*', ''),
    'stem': (dict(stem='patch'), CONV_STEM, PATCH_STEM),
    'all': (
        dict(lce=False, cpe=False, stem='patch'),
        rf'.*\.(attn\.lce|cpe\.conv)\..*|{CONV_STEM}',
        PATCH_STEM,
    ),
}
# The published name of each module of a block, by ours; of what is moved and not merged.
IN_A_BLOCK = {
    'cpe.conv': 'pos.conv',
    'norm1': 'retention_layer_norm',
    'attn.v': 'retention.v_proj',
    'attn.lce': 'retention.lepe.conv',
    'attn.proj': 'retention.out_proj',
    'norm2': 'final_layer_norm',
    'ffn.fc1': 'ffn.fc1',
    'ffn.conv': 'ffn.dwconv.conv',
    'ffn.fc2': 'ffn.fc2',
}


class RMTFiles(PublishedFiles):
    golden = 'rmt'
    backbone = RMT
    archs = ARCHS
    arch = ARCH
    file_only = ('aux_head',)
    variants = {
        'LayerScale': {},
        'LayerScale, detector': dict(out_norm='output'),
        'no LayerScale': dict(arch=UNSCALED),
        'no LayerScale, detector': dict(arch=UNSCALED, out_norm='output'),
        'token labels': dict(aux_head=True),
    }
    sizes = {
        **{arch: dict(arch=arch) for arch in PUBLISHED},
        **{
            f'{arch}, more': dict(arch=arch, aux_head=True, out_norm='output') for arch in PUBLISHED
        },
    }
    millions = {
        arch: (dict(arch=arch), millions, 0.5)
        for arch, millions in dict(tiny=14.3, small=27, base=54, large=95).items()
    }
    own = {
        'defaults': dict(out_norm='output'),
        'as Swin': dict(arch=dict(UNSCALED, stem='patch', downsample='patch'), out_norm='inline'),
        'without convolutions': dict(arch=dict(ARCH, cpe=False, lce=False, ffn_conv=False)),
    }
    same_tensors = {
        'whole': dict(attention='whole'),
        'decomposed': dict(attention='decomposed'),
        'product': dict(decay='product'),
        'no decay': dict(decay=None),
        'SyncBN': dict(norm_cfg=dict(type='SyncBN')),
        'frozen': dict(
            norm_cfg=dict(type='BN', requires_grad=False), norm_eval=True, frozen_stages=2
        ),
    }
    changes = {
        f'without {name}': Change(dict(arch=dict(ARCH, **parts)), unused=unused, new=new)
        for name, (parts, unused, new) in PARTS.items()
    }
    needed = [
        'stem.10.running_var',
        'stem.10.num_batches_tracked',
        'stages.3.downsample.conv.weight',
        'stages.1.blocks.1.cpe.conv.bias',
        'stages.1.blocks.1.attn.v.bias',
        'stages.1.blocks.1.residual2.scale',
    ]
    other_buffers = [f'layers.1.Relpos.{name}' for name in CONSTANTS]
    unconvertible = 'queries only'
    report = (
        dict(aux_head=True),
        dict(out_norm='output'),
        """\
a state dict: published RMT weights, 155 tensors loaded
  new: out_norms.*.weight, out_norms.*.bias
  unused: layers.*.Relpos.angle, layers.*.Relpos.decay, aux_head.weight, aux_head.bias, \
proj.weight, proj.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var, \
norm.num_batches_tracked, head.weight, head.bias""",
    )

    def fill(self, layout, arch, out_norm=None, aux_head=False):
        dims = arch['dims']
        scales = arch['layer_scale'] or [None] * len(dims)
        before = 3
        for index, dim in ((0, dims[0] // 2), (3, dims[0] // 2), (6, dims[0]), (9, dims[0])):
            layout.layer(f'patch_embed.proj.{index}', f'stem.{index}', dim, before, 3, 3)
            layout.batch_norm(f'patch_embed.proj.{index + 1}', f'stem.{index + 1}', dim)
            before = dim
        for i, (dim, heads) in enumerate(zip(dims, arch['heads'])):
            hidden = dim * arch['mlp_ratios'][i]
            layout.buffer(f'layers.{i}.Relpos.angle', (dim // heads,))
            layout.buffer(f'layers.{i}.Relpos.decay', (heads,))
            weights = {
                'cpe.conv': (dim, 1, 3, 3),
                'norm1': (dim,),
                'attn.v': (dim, dim),
                'attn.lce': (dim, 1, 5, 5),
                'attn.proj': (dim, dim),
                'norm2': (dim,),
                'ffn.fc1': (hidden, dim),
                'ffn.conv': (hidden, 1, 3, 3),
                'ffn.fc2': (dim, hidden),
            }
            for j in range(arch['depths'][i]):
                name, ours = f'layers.{i}.blocks.{j}', f'stages.{i}.blocks.{j}'
                for module, weight in weights.items():
                    layout.layer(f'{name}.{IN_A_BLOCK[module]}', f'{ours}.{module}', *weight)
                for projection in 'qk':  # into one, the queries first
                    layout.layer(f'{name}.retention.{projection}_proj', f'{ours}.attn.qk', dim, dim)
                if scales[i] is not None:
                    for n in (1, 2):
                        layout.add(f'{name}.gamma_{n}', (1, 1, 1, dim), f'{ours}.residual{n}.scale')
            if i + 1 < len(dims):
                name, ours = f'layers.{i}.downsample', f'stages.{i + 1}.downsample'
                layout.layer(f'{name}.reduction', f'{ours}.conv', dims[i + 1], dim, 3, 3)
                layout.batch_norm(f'{name}.norm', f'{ours}.norm', dims[i + 1])
            if out_norm:
                layout.layer(f'extra_norms.{i}', f'out_norms.{i}', dim)
        if aux_head:
            layout.of_classifier('aux_head', 1000, 1024)
        layout.of_classifier('proj', 1024, dims[-1])
        layout.batch_norm('norm', None, 1024)
        layout.of_classifier('head', 1000, 1024)

    def relayout(self, ours, tensors):
        if ours.endswith('.scale'):
            return tensors[0][0, 0, 0]
        return torch.cat(tensors) if len(tensors) > 1 else tensors[0]

    def of_case(self, case):
        return dict(arch=case.info['variant'])

    def odd(self):
        block, our_qk = 'layers.1.blocks.1', 'stages.1.blocks.1.attn.qk'
        q, k, v = (f'{block}.retention.{n}_proj' for n in 'qkv')
        norm, scale = 'patch_embed.proj.10', 'stages.1.blocks.1.residual2.scale'
        lce, no_file = f'{block}.retention.lepe.conv.weight', 'neither published RMT'
        wider_ffn = dict(ARCH, mlp_ratios=[2, 1, 3, 2])

        def pair(query, key):
            """Projections that do not fit each other, of which the sum may fit."""
            state = self.state()
            state[f'{q}.weight'], state[f'{k}.weight'] = torch.ones(query), torch.ones(key)
            return state

        def no_queries():
            return {n: t for n, t in self.state().items() if '.q_proj.' not in n}

        odd = {
            'queries only': Odd(
                lambda: self.without(f'{k}.weight'), [f'there is {q}.weight, but no {k}.weight']
            ),
            'no bias of keys': Odd(
                lambda: self.without(f'{k}.bias'), [f'there is {q}.bias, but no {k}.bias']
            ),
            'keys only': Odd(lambda: self.without(f'{q}.bias'), ['1 missing', f'{our_qk}.bias']),
            'neither': Odd(
                lambda: self.without(f'{q}.weight', f'{k}.weight'),
                ['1 missing', f'{our_qk}.weight'],
            ),
            'no queries, no keys': Odd(no_queries, [no_file, 'nor our own']),
            'in a block': Odd(
                lambda: self.changed(f'{block}.retention.g_proj.weight', 2),
                ['1 unexpected', 'g_proj'],
            ),
            'queries and keys': Odd(
                lambda: pair((17, 16), (17, 16)), [f'{our_qk}.weight', '(34, 16)', '(32, 16)']
            ),
            **{
                f'queries and keys, {title}': Odd(
                    lambda shapes=shapes: pair(*shapes),
                    ['layers.1.blocks.1.retention.', '_proj.weight'],
                )
                for title, *shapes in (
                    ('channels', (16, 16), (16, 15)),
                    ('dimensions', (16, 16), (256,)),
                    ('numbers', (), ()),
                    ('sum', (17, 16), (15, 16)),
                )
            },
            'values': Odd(lambda: self.changed(f'{v}.bias', 9), ['.attn.v.bias', '(9,)', '(16,)']),
            'lepe': Odd(lambda: self.changed(lce, 16, 1, 3, 3), ['.attn.lce.weight']),
            'gamma': Odd(
                lambda: self.changed(f'{block}.gamma_2', 1, 1, 1, 15), [scale, '(15,)', '(16,)']
            ),
            'statistics': Odd(
                lambda: self.changed(f'{norm}.running_mean', 9), ['stem.10.running_mean', '(9,)']
            ),
            'ffn': Odd(
                lambda: self.state(arch=wider_ffn),
                ['stages.3.blocks.0.ffn', '(64, 32)', '(32, 32)'],
            ),
            'our queries': Odd(
                lambda: {**self.ours(), f'{our_qk}.bias': torch.ones(16)},
                [our_qk, '(16,)', '(32,)'],
            ),
            'our statistics': Odd(
                lambda: self.ours_without('stem.1.running_mean'),
                ['1 missing', 'stem.1.running_mean'],
            ),
            'no LayerScale': Odd(
                lambda: self.state(arch=UNSCALED),
                ['6 missing', 'stages.1.blocks.0.residual1.scale'],
            ),
            'LayerScale': Odd(
                self.state,
                ['6 unexpected', 'stages.1.blocks.0.residual1.scale'],
                dict(arch=UNSCALED),
            ),
            'downsample': Odd(
                self.state,
                ['stages.1.downsample.conv.weight', '(16, 8, 3'],
                dict(arch=dict(ARCH, downsample='patch')),
            ),
            'norm_cfg': Odd(
                self.state,
                ['21 unexpected', 'stem.1.running'],
                dict(norm_cfg=dict(type='GN', num_groups=2)),
            ),
            'out_norm': Odd(
                lambda: self.state(out_norm='output'),
                ['8 unexpected', 'out_norms.0.weight', 'set out_norm'],
            ),
            # The model has the part, so that nothing is switched off.
            **{
                f'more: {name}': Odd(
                    lambda name=name: {**self.ours(), name: torch.ones(8)}, ['1 unexpected', name]
                )
                for name in (
                    'stem.12.weight',
                    'stages.0.blocks.0.cpe.other',
                    'stages.0.blocks.0.attn.lce.norm',
                )
            },
        }
        for name, (parts, unused, new) in PARTS.items():
            arch = dict(ARCH, **parts)
            for leaf in ('conv.weight', 'conv.bias', 'norm.weight', 'norm.bias') if new else ():
                odd[f'without {name}, no stem.{leaf}'] = Odd(
                    lambda arch=arch, leaf=leaf: self.ours_without(f'stem.{leaf}', arch=arch),
                    [f'1 missing (stem.{leaf})'],
                    dict(arch=arch),
                )
            # Back, there is nothing to fill the part with.
            gone = sum(re.fullmatch(unused, place) is not None for place in self.layout().places)
            odd[f'back, without {name}'] = Odd(
                lambda arch=arch: self.build(arch=arch).state_dict(),
                [f'{gone} missing'],
            )
        return odd

    def ours_without(self, missing, **options):
        state = self.build(**options).state_dict()
        return {name: tensor for name, tensor in state.items() if name != missing}


RMT_FILES = RMTFiles()
