"""The published files of ViL."""

from __future__ import annotations

import math
import re

import torch

from mmvitbackbones import VisionLongformer
from mmvitbackbones.backbones.vision_longformer import ARCHS

from .layout import Change, Odd, PublishedFiles

ARCH = dict(dims=[8, 16, 16, 32], heads=[1, 2, 2, 4], depths=[1, 3, 1, 2], patches=[4, 2, 2, 2])
TOKENS, ALL = (1, 1, 1, 0), (1, 1, 1, 1)
TABLE = 'local_relative_position_bias_table'
BETWEEN, AMONG = 'g2l_relative_position_bias', 'g2g_relative_position_bias'
EMBEDDING = 'layer2.0'
ATTN = 'layer2.1.attn'  # the first block's of the second stage, our stages.1.blocks.0.attn
BLOCK = 'stages.1.blocks.0'
LAST, TABLES = r'stages\.3\.(global_|.*\.global_bias).*', r'.*\.bias\.table'
APE, FULL = dict(position='ape'), dict(attention='full')
MILLIONS = dict(  # with absolute positions
    tiny=6.7, small=24.6, medium_deep=39.7, base_deep=55.7, medium_wide=39.8, base_wide=79.0
)
BIASED_MILLIONS = dict(small=24.66, medium_deep=39.79, base_deep=55.81, base_wide=79.05)
KINDS = {'vil': {}, 'full': FULL, 'vil ape': APE, 'full ape': {**FULL, **APE}}
RESIZED = {  # of the file, of the model, the stages whose tables change
    'full to vil': (FULL, dict(attention='vil'), '0123'),
    'full to others': (FULL, dict(attention='vil', window_size=(3, 4, 7, 1)), '02'),
    'vil to full': ({}, FULL, '0123'),
    'vil to larger': (dict(window_size=4), dict(FULL, pretrain_img_size=132), '0123'),
    'some': ({}, dict(attention=('vil', 'vil', 'full', 'full')), '23'),
    'windows of 14': ({}, dict(window_size=14), '0123'),
    'windows of 3': ({}, dict(window_size=3), '0123'),
    'windows of 1': ({}, dict(window_size=1), '0123'),
    'windows by stage': ({}, dict(window_size=(14, 8, 7, 4)), '013'),
    'full, larger': (FULL, dict(pretrain_img_size=96), '0123'),
}
# Of which the model's would be (729, 2) for a table, (2, 2, 1) and (2, 1, 1) for the others.
MALFORMED = {
    f'{ATTN}.{TABLE}': [(168, 2), (144, 2), (729,), (729, 3), (1, 729, 2), (), (0, 2)],
    f'{ATTN}.{BETWEEN}': [(2, 2), (1, 2, 1), (2, 3, 1), (2, 2, 0), (2, 2, 1, 1), (2,), ()],
    f'{ATTN}.{AMONG}': [(2, 1), (2,), (), (3, 1, 1), (2, 0, 0), (2, 1, 2), (2, 2, 1)],
    f'{EMBEDDING}.cls_token': [(1, 16), (2, 1, 16), (1, 1, 15), (1, 0, 16), (16,), ()],
    f'{EMBEDDING}.x_pos_embed': [(8, 8), (2, 8, 8), (1, 8, 7), (1, 0, 8), (8,), ()],
    f'{EMBEDDING}.cls_pos_embed': [(1, 16), (2, 1, 16), (1, 1, 15), (16,), ()],
}


class VisionLongformerFiles(PublishedFiles):
    golden = 'vil'
    backbone = VisionLongformer
    archs = ARCHS
    arch = ARCH
    options = dict(pretrain_img_size=64)
    variants = {
        **KINDS,
        **{
            f'{kind}, others': dict(
                options, num_global_tokens=(2, 3, 0, 1), window_size=4, pretrain_img_size=72
            )
            for kind, options in KINDS.items()
        },
    }
    sizes = {
        f'{arch}, {kind}': dict(arch=arch, pretrain_img_size=224, **options)
        for arch in ARCHS
        for kind, options in KINDS.items()
    }
    millions = {
        **{arch: (dict(arch=arch), n, 0.006) for arch, n in BIASED_MILLIONS.items()},
        **{
            f'{arch}, ape': (dict(arch=arch, pretrain_img_size=224, **APE), n, 0.06)
            for arch, n in MILLIONS.items()
        },
    }
    own = {
        'defaults': {},
        'others': dict(
            peg=True,
            out_norm='output',
            window_size=(4, 3, 2, 5),
            num_global_tokens=(2, 1, 0, 3),
        ),
        'ape': dict(APE, attention=('vil', 'full', 'full', 'vil'), out_norm='inline'),
    }
    same_tensors = {f'shift mode {mode}': dict(shift_mode=mode) for mode in (-1, 1)}
    changes = {
        **{
            name: Change(parts, options, resized=rf'stages\.[{stages}]\.{TABLES}')
            for name, (options, parts, stages) in RESIZED.items()
        },
        'larger images': Change(
            dict(pretrain_img_size=448), APE, resized=r'.*\.position\.(rows|columns)'
        ),
        'two global tokens': Change(
            dict(num_global_tokens=(2, 2, 2, 0)), resized=r'stages\.[0-2]\..*global_.*'
        ),
        **{
            f'{title}{kind}': Change(dict(num_global_tokens=tokens), options, **changes)
            for kind, options in (('', {}), (', ape', APE))
            for title, tokens, changes in (
                ('no global tokens', 0, dict(unused=r'.*global_.*')),
                ('global tokens that the file has not', (1, 1, 1, 2), dict(new=LAST)),
            )
        },
        **{
            f'not the last global tokens{kind}': Change(
                dict(num_global_tokens=TOKENS), dict(options, num_global_tokens=ALL), unused=LAST
            )
            for kind, options in (('', {}), (', ape', APE))
        },
    }
    needed = [
        'stages.2.downsample.conv.bias',
        f'{BLOCK}.norm1.bias',
        f'{BLOCK}.ffn.fc1.bias',
        f'{BLOCK}.attn.bias.table',
        f'{BLOCK}.attn.proj.bias',
        'stages.1.global_tokens',
        f'{BLOCK}.attn.global_bias.local_to_global',
        f'{BLOCK}.attn.global_bias.global_to_global',
    ]
    unconvertible = 'no keys'
    report = (
        {},
        dict(window_size=14, out_norm='output'),
        """\
a state dict: published ViL weights, 119 tensors loaded
  resized: stages.*.blocks.*.attn.bias.table ((1, 729) -> (1, 3025); (2, 729) -> (2, 3025); \
(4, 729) -> (4, 3025))
  new: out_norms.*.weight, out_norms.*.bias
  unused: layer*.*.attn.relative_position_index, stages.*.blocks.*.attn.global_bias.\
global_to_global, stages.*.blocks.*.attn.global_bias.global_to_local, norm.weight, norm.bias, \
head.weight, head.bias
  second copies of tied tensors: layer*.*.attn.query_global.weight, \
layer*.*.attn.query_global.bias, layer*.*.attn.kv_global.weight, layer*.*.attn.kv_global.bias, \
layer*.*.attn.proj_global.weight, layer*.*.attn.proj_global.bias""",
    )

    def fill(
        self,
        layout,
        arch,
        attention='vil',
        position='rpb',
        num_global_tokens=None,
        window_size=7,
        pretrain_img_size=224,
        out_norm=None,
    ):
        dims, side, window = arch['dims'], pretrain_img_size, window_size
        tokens = num_global_tokens or TOKENS[-len(dims) :]
        for i, (dim, heads, g) in enumerate(zip(dims, arch['heads'], tokens)):
            layer, stage, patch = f'layer{i + 1}', f'stages.{i}', arch['patches'][i]
            side = math.ceil(side / patch)
            if g:
                layout.add(f'{layer}.0.cls_token', (1, g, dim), f'{stage}.global_tokens')
            if position == 'ape':
                places = [f'{stage}.global_position'] if g else []
                layout.add(f'{layer}.0.cls_pos_embed', (1, g, dim), *places)
                for axis, ours in (('x', 'rows'), ('y', 'columns')):
                    shape, place = (1, side, dim // 2), f'{stage}.position.{ours}'
                    layout.add(f'{layer}.0.{axis}_pos_embed', shape, place)
            before, embedding = dims[i - 1] if i else 3, f'{stage}.downsample' if i else 'stem'
            layout.layer(f'{layer}.0.proj', f'{embedding}.conv', dim, before, patch, patch)
            layout.layer(f'{layer}.0.norm_embed', f'{embedding}.norm', dim)
            for j in range(arch['depths'][i]):
                attn, mlp = f'{layer}.{2 * j + 1}', f'{layer}.{2 * j + 2}'
                ours, is_last = f'{stage}.blocks.{j}', j + 1 == arch['depths'][i]
                layout.layer(f'{attn}.norm', f'{ours}.norm1', dim)
                attn, our_attn = f'{attn}.attn', f'{ours}.attn'
                if position == 'rpb':
                    _biases(layout, attn, our_attn, attention, side, window, heads, g, is_last)
                if attention == 'full':
                    layout.layer(f'{attn}.qkv', f'{our_attn}.qkv', 3 * dim, dim)
                    layout.layer(f'{attn}.proj', f'{our_attn}.proj', dim, dim)
                else:
                    layout.layer(f'{attn}.query', f'{our_attn}.qkv', dim, dim)
                    layout.layer(f'{attn}.kv', f'{our_attn}.qkv', 2 * dim, dim)
                    layout.layer(f'{attn}.proj', f'{our_attn}.proj', dim, dim)
                    for name in ('query', 'kv', 'proj') if g else ():
                        layout.twin(f'{attn}.{name}_global', f'{attn}.{name}')
                layout.layer(f'{mlp}.norm', f'{ours}.norm2', dim)
                layout.layer(f'{mlp}.mlp.fc1', f'{ours}.ffn.fc1', 4 * dim, dim)
                layout.layer(f'{mlp}.mlp.fc2', f'{ours}.ffn.fc2', dim, 4 * dim)
        layout.of_classifier('norm', dims[-1])
        layout.of_classifier('head', 1000, dims[-1])

    def relayout(self, ours, tensors):
        first = tensors[0]
        if ours.endswith('.bias.table'):
            # Published for offsets from a key to a query, ours are from a query to a key.
            return first.flip(0).t()
        if ours.endswith(('.global_to_local', '.local_to_global')):
            return first[0 if ours.endswith('.global_to_local') else 1]
        if re.search(r'\.(global_tokens|global_position|position\.\w+)$', ours):
            return first[0]
        return torch.cat(tensors) if len(tensors) > 1 else first

    def of_case(self, case):
        """What a published architecture string says: each stage's letters and values."""
        stages = [dict(re.findall(r'([a-z])(\d+)', s)) for s in case.info['variant'].split('_')]
        each = {letter: [int(stage[letter]) for stage in stages] for letter in stages[0]}
        return dict(
            arch=dict(dims=each['d'], heads=each['h'], depths=each['n'], patches=each['p']),
            attention='vil' if each['s'][0] else 'full',
            position='ape' if each['a'][0] else 'rpb',
            num_global_tokens=each['g'],
            window_size=each['f'][0],
            pretrain_img_size=case.info.get('img_size', 224),
        )

    def odd(self):
        query, kv, qkv = (f'{ATTN}.{name}.weight' for name in ('query', 'kv', 'qkv'))
        twins = (f'{ATTN}.query_global.weight', f'{ATTN}.kv_global.weight')
        three = dict(dims=[16, 16, 32], heads=[1, 2, 4], depths=[3, 1, 2], patches=[8, 2, 2])
        more_heads, large_patches = dict(ARCH, heads=[2, 2, 2, 4]), dict(ARCH, patches=[8, 2, 2, 2])

        def untied(**shapes):
            """Without twins, which would differ first."""
            ones = {f'{ATTN}.{name}.weight': torch.ones(shape) for name, shape in shapes.items()}
            return {**self.without(*self.layout().tied), **ones}

        def our_changed(name, *shape):
            return {**self.ours(), name: torch.ones(shape)}

        odd = {
            'no queries': Odd(lambda: self.without(query, twins[0]), [f'there is {kv}']),
            'no keys': Odd(lambda: self.without(kv, twins[1]), [f'there is {query}, but no {kv}']),
            'neither': Odd(
                lambda: self.without(query, kv, *twins),
                ['1 missing', f'{BLOCK}.attn.qkv.weight'],
            ),
            'keys': Odd(lambda: untied(kv=(31, 16)), [query, kv]),
            'queries': Odd(lambda: untied(query=(15, 16)), [query, kv]),
            'numbers': Odd(lambda: untied(query=(), kv=()), [query]),
            'no channels': Odd(lambda: untied(query=16, kv=32), ['.qkv.weight']),
            'full projection': Odd(
                lambda: self.changed(qkv, 32, 16, **FULL), ['.qkv.weight', '(32, 16)'], FULL
            ),
            'twin alone': Odd(
                lambda: self.without(f'{ATTN}.proj.bias'), [f'{ATTN}.proj_global.bias', 'tied']
            ),
            'in a block': Odd(
                lambda: self.changed(f'{ATTN}.gate', 2), ['1 unexpected', f'{BLOCK}.attn.gate']
            ),
            'three stages': Odd(
                lambda: self.state(arch=three),
                ['depths 3, 1, 2', 'depths 1, 3, 1, 2', 'Set arch'],
            ),
            'heads': Odd(
                lambda: self.state(arch=more_heads),
                ['stages.0.blocks.0.attn.bias.table', '(2, 729)', '(1, 729)'],
            ),
            'patches': Odd(
                lambda: self.state(arch=large_patches),
                ['stem.conv.weight', '(8, 3, 8, 8)', '(8, 3, 4, 4)'],
            ),
            'our table': Odd(
                lambda: our_changed(f'{BLOCK}.attn.bias.table', 2, 168),
                [f'{BLOCK}.attn.bias.table', '(2, 168)', '(2, 729)'],
            ),
            'our projection': Odd(
                lambda: our_changed(f'{BLOCK}.attn.qkv.bias', 16),
                [f'{BLOCK}.attn.qkv.bias', '(16,)', '(48,)'],
            ),
            'no global position': Odd(
                lambda: self.without(f'{EMBEDDING}.cls_pos_embed', **APE),
                ['1 missing', 'stages.1.global_position'],
                APE,
            ),
            'no global token': Odd(
                lambda: self.without(f'{EMBEDDING}.cls_token', **APE),
                ['1 missing', 'stages.1.global_tokens'],
                APE,
            ),
        }
        for part in ('query', 'kv', 'proj'):
            for leaf in ('weight', 'bias'):
                name, twin = f'{ATTN}.{part}.{leaf}', f'{ATTN}.{part}_global.{leaf}'
                odd[f'{part}.{leaf} and its twin'] = Odd(
                    lambda twin=twin: self.nudged(twin), [twin, f'equal to {name}', 'tied']
                )
                odd[f'{part}.{leaf} and a shorter twin'] = Odd(
                    lambda name=name, twin=twin: {**self.state(), twin: self.state()[name][:-1]},
                    [twin, name],
                )
        for position, other in (('rpb', 'ape'), ('ape', 'rpb')):
            for title, make in (('published', self.state), ('our own', self.ours)):
                words = ['missing', 'unexpected', '.attn.bias.table', '.position.rows']
                odd[f'{position} in {other}, {title}'] = Odd(
                    lambda make=make, position=position: make(position=position),
                    [*words, f"set position='{position}'"],
                    dict(position=other),
                )
            for title, make in (('published', self.state), ('our own', self.ours)):
                for attention in ('vil', 'full'):
                    options = dict(position=position, num_global_tokens=(1, 3, 1, 0))
                    odd[f'fewer global tokens, {position}, {attention}, {title}'] = Odd(
                        lambda make=make, options=options: make(**options),
                        ['stages.1.', 'has 3 global tokens', 'the model 2', 'num_global_tokens'],
                        dict(options, attention=attention, num_global_tokens=(1, 2, 1, 0)),
                    )
        # Named, also where the model has more global tokens than the file.
        for tokens in (1, 2):
            for name, shapes in MALFORMED.items():
                position = APE if 'pos_embed' in name else {}
                layout = self.layout(**position)
                named = (
                    name,
                    *(ours for ours, made_of in layout.places.items() if name in made_of),
                )
                for shape in shapes:
                    odd[f'{name} {shape}, {tokens} in the model'] = Odd(
                        lambda name=name, shape=shape, position=position: self.changed(
                            name, *shape, **position
                        ),
                        [named],
                        dict(position, num_global_tokens=(1, tokens, 1, 0)),
                    )
            for leaf in ('local_to_global', 'global_to_local', 'global_to_global'):
                for shape in [(), (2,), (3, 1, 1), (2, 0), (2, 1, 1, 1)]:
                    name = f'{BLOCK}.attn.global_bias.{leaf}'
                    odd[f'our {leaf} {shape}, {tokens} in the model'] = Odd(
                        lambda name=name, shape=shape: our_changed(name, *shape),
                        ['a state dict', name],
                        dict(num_global_tokens=(1, tokens, 1, 0)),
                    )
        return odd

    def nudged(self, name):
        """A file in which one value of a tensor differs in its last digits."""
        state = self.state()
        state[name].view(-1)[-1] += 1e-6
        return state


def _biases(layout, attn, ours, attention, side, window, heads, tokens, is_last):
    full = attention == 'full'
    edge = 2 * side - 1 if full else 4 * window - 1
    index = (side**2, side**2) if full else (window**2, 9 * window**2)
    layout.add(f'{attn}.{TABLE}', (edge**2, heads), f'{ours}.bias.table')
    layout.buffer(f'{attn}.relative_position_index', index, integers=True)
    if tokens:
        read = [f'{ours}.global_bias.local_to_global']
        learned = [f'{ours}.global_bias.{leaf}' for leaf in ('global_to_local', 'global_to_global')]
        if is_last:
            # What global tokens learn there is never read; reports name it as ours.
            layout.shapes[f'{attn}.{AMONG}'] = (heads, tokens, tokens)
            layout.unread += learned
            layout.never_read += heads * tokens + heads * tokens**2
        else:
            read.append(learned[0])
            layout.add(f'{attn}.{AMONG}', (heads, tokens, tokens), learned[1])
        layout.add(f'{attn}.{BETWEEN}', (2, heads, tokens), *read)


VISION_LONGFORMER = VisionLongformerFiles()
