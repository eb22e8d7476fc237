"""Weights that are handed out: of one attention, which they are all there is to."""

import pytest
import torch
from tiny_backbones import OPTIONS, build, image
from torch import nn

from mmvitbackbones.backbones.focal_transformer import FocalBlock
from mmvitbackbones.backbones.regionvit import Encoder, split
from mmvitbackbones.backbones.vision_longformer import FullAttention
from mmvitbackbones.ops import watching, why_plain
from mmvitbackbones.seeing.attention import Decay, token_strides, watch_blocks

SIZES = [(96, 96), (75, 101), (32, 40)]
FORMS = [
    *((family, {}) for family in OPTIONS),
    ('RegionViT', dict(regional_padding='published')),
    ('RegionViT', dict(outputs='regional', out_norm='output', out_indices=(1, 2), peg=True)),
    ('RegionViT', dict(arch=dict(OPTIONS['RegionViT']['arch'], regional=False))),
    ('FocalTransformer', dict(focal_windows=0)),
    ('FocalTransformer', dict(expand_sizes=0, use_conv_embed=True)),
    ('RMT', dict(attention='whole')),
    ('RMT', dict(attention='decomposed')),
    ('RMT', dict(attention='decomposed', decay='product')),
    ('RMT', dict(attention='whole', decay='product')),
    ('RMT', dict(decay=None)),
    ('VisionLongformer', dict(attention='full')),
    ('VisionLongformer', dict(attention='full', position='ape')),
    ('VisionLongformer', dict(position='ape')),
    ('VisionLongformer', dict(shift_mode=-1)),
    ('VisionLongformer', dict(num_global_tokens=0)),
    ('VisionLongformer', dict(outputs='all', num_global_tokens=3)),
]
forms = pytest.mark.parametrize('family, options', FORMS, ids=str)


def watched(model, x):
    """The maps, and of each block its attention, its module, and its parts' inputs and outputs."""
    found, calls = [], {}
    for name, module in model.named_modules():
        calls[name] = []

        def keep(module, inputs, output, name=name):
            calls[name].append((*inputs[:1], output))

        module.register_forward_hook(keep)
    maps = watch_blocks(model, x, found.append)
    blocks = []
    for attention in found:
        name = f'stages.{attention.stage}.blocks.{attention.block}'
        parts = {part: calls.get(f'{name}.attn.{part}') for part in ('qkv', 'v', 'proj', 'lce')}
        blocks.append((attention, model.get_submodule(name), parts))
    return maps, blocks


@forms
@pytest.mark.parametrize('size', SIZES)
def test_watched_model_gives_the_same(family, options, size):
    model, x = build(family, **options).eval(), image(*size)
    with torch.no_grad():
        expected = model(x)
    maps, blocks = watched(model, x)
    run = model.stages[: model.out_indices[-1] + 1]
    assert len(blocks) == sum(len(stage.blocks) for stage in run)
    for ours, theirs in zip(maps, expected):
        torch.testing.assert_close(ours, theirs)
    assert why_plain(x) is None  # and neither plain nor watched any more


def what_heads_give(attention, block, parts):
    """Of each view that is made of values: the view, values and outputs.

    Values lie by the cell of their grid (None: without a place), (heads, rows, columns, d); outputs
    are what the heads give, (rows, columns, C).
    """
    size, stride = attention.size, attention.stride
    height, width = size

    def by_head(values):  # of (rows, columns, C)
        return values.unflatten(-1, (attention.heads, -1)).permute(2, 0, 1, 3)

    views = {view.name: view for view in attention.views}
    if parts['v'] is not None:  # RMT
        values, y = parts['v'][0][1][0], parts['proj'][0][0][0] - parts['lce'][0][1][0]
        view = views.get('product of row and column') or views['token to all tokens']
        return [(view, {stride: by_head(values)}, y)]
    values = [output.unflatten(-1, (3, -1))[..., 2, :] for _, output in parts['qkv']]
    given = [before for before, _ in parts['proj']]
    if isinstance(block, Encoder):
        *among, local = attention.views[:2]
        keys = local.keys[-1]
        window = keys.seen.window
        grid = among[0].grid if among else tuple(-(-a // b) for a, b in zip(keys.grid, window))
        (v, *v_regions), (y, *y_regions) = (
            split(calls[-1].view(1, *grid, *calls[-1].shape[1:]), window, keys.grid)
            for calls in (values, given)
        )
        found = {stride: by_head(v[0])}
        if not among:
            return [(local, found, y[0])]
        side = stride * block.bias.window
        found[side] = by_head(v_regions[0][0])[:, : local.keys[0].grid[0], : local.keys[0].grid[1]]
        regions = {side: by_head(values[0][0].unflatten(0, grid))}
        return [
            (among[0], regions, given[0][0].unflatten(0, grid)),
            (local, found, y[0]),
            (
                attention.views[2],
                found,
                y_regions[0][0][: local.keys[0].grid[0], : local.keys[0].grid[1]],
            ),
        ]
    local, *others = attention.views
    if isinstance(block, FocalBlock):
        cells = (stride, stride * block.attn.window)
        return [(local, {c: by_head(v[0]) for c, v in zip(cells, values)}, given[0][0])]
    count = height * width
    if isinstance(block.attn, FullAttention):
        of_global, v = values[0][:, :-count], values[0][0, -count:].unflatten(0, size)
        y, y_global = given[0][0, -count:].unflatten(0, size), given[0][:, :-count]
    else:
        v, y, y_global = values[0][0, :height, :width], given[0][0], given[-1]
        of_global = values[-1]
    found = {stride: by_head(v)}
    if len(local.keys) > 1:
        found[None] = by_head(of_global)
    return [
        (local, found, y),
        *((view, found, y_global[:, [i]]) for i, view in enumerate(others)),
    ]


@forms
@pytest.mark.parametrize('size', SIZES)
def test_weights_times_values_are_what_the_heads_give(family, options, size):
    """With each weight at its place, and with the values that the model has there."""
    model, x = build(family, **options).eval(), image(*size)
    _, blocks = watched(model, x)
    for attention, block, parts in blocks:
        assert attention.stride == token_strides(model)[attention.stage]
        for view, values, expected in what_heads_give(attention, block, parts):
            check_view(view, values, expected)


def check_view(view, values, expected):
    rows, columns = expected.shape[:2]
    cell = getattr(view, 'cell', None) or view.rows.cell
    for row, column in {(0, 0), (rows // 2, min(1, columns - 1)), (rows - 1, columns - 1)}:
        given = 0
        for part in view.at((row + 0.5) * cell[0], (column + 0.5) * cell[1]):
            v = values[part.cell and part.cell[0]]
            given = given + torch.einsum('hrc,hrcd->hd', part.values.nan_to_num().to(v), v)
        torch.testing.assert_close(given.flatten(), expected[row, column], rtol=1e-5, atol=1e-5)


@forms
def test_rows_sum_to_one(family, options):
    """Those of RMT's decay as a factor do not: each weight is a softmax's, times the decay."""
    model, x = build(family, **options).eval(), image(75, 101)
    _, blocks = watched(model, x)
    for attention, _, _ in blocks:
        for view in attention.views:
            parts = view.at(40, 60)
            total = sum(part.sums for part in parts)
            if isinstance(view, Decay):
                assert parts[0].values.max() == 1  # at the query itself
            elif options.get('decay') == 'product':
                assert (0 < total).all() and (total < 1).all()
            else:
                torch.testing.assert_close(total, torch.ones_like(total))


def test_decay_falls_with_the_manhattan_distance():
    model, x = build('RMT').eval(), image(64, 64)
    _, blocks = watched(model, x)
    decay = blocks[0][0].views[-1]
    (part,) = decay.at(4 * 5, 4 * 7)
    gamma = torch.tensor(decay.log_gamma).exp()
    torch.testing.assert_close(part.values[:, 5, 7], torch.ones(1))
    torch.testing.assert_close(part.values[:, 2, 9], gamma**5)


def test_what_is_seen_where():
    """In pixels of the image: a window of 4 tokens of 4 pixels, a ring of 2, 3 x 3 coarse ones."""
    _, blocks = watched(build('FocalTransformer').eval(), image(96, 96))
    fine, ring, coarse = blocks[0][0].views[0].at(50, 37)
    assert [part.name for part in (fine, ring, coarse)] == ['fine', 'ring', 'coarse']
    assert (fine.cell, ring.cell, coarse.cell) == ((4, 4), (4, 4), (16, 16))

    def rows_and_columns(part):
        seen = ~part.values[0].isnan()
        return tuple(tuple(seen.any(d).nonzero().flatten().tolist()) for d in (1, 0))

    assert rows_and_columns(fine) == ((12, 13, 14, 15), (8, 9, 10, 11))
    assert rows_and_columns(ring) == (tuple(range(10, 18)), tuple(range(6, 14)))
    assert ring.values[0, 12:16, 8:12].isnan().all()
    assert rows_and_columns(coarse) == ((2, 3, 4), (1, 2, 3))


def test_every_watcher_sees_and_leaves():
    x, outer, inner = image(64, 64), [], []
    model = build('RMT').eval()
    with watching(outer.append):
        with watching(inner.append):
            model(x)
        model(x)
    assert len(outer) == 2 * len(inner) > 0
    with pytest.raises(RuntimeError, match='on purpose'), watching(outer.append):
        raise RuntimeError('on purpose')
    assert why_plain(x) is None


def test_gradients_pass_a_watched_model():
    """As those of the kernels: explanations by gradients and by weights go together."""
    model, x = build('VisionLongformer').eval(), image(40, 40).requires_grad_()
    (expected,) = torch.autograd.grad(model(x)[-1].sum(), x)
    with watching(lambda weights: None):
        (found,) = torch.autograd.grad(model(x)[-1].sum(), x)
    torch.testing.assert_close(found, expected)


def test_a_block_that_nobody_can_read_is_named():
    model = build('RMT').eval()

    class Odd(nn.Identity):
        pass

    model.stages[1].blocks[0] = Odd()
    with pytest.raises(ValueError, match='attention of Odd'):
        watch_blocks(model, image(64, 64), print)
    with pytest.raises(ValueError, match='one image at a time, got 2'):
        watch_blocks(model, image(64, 64, batch=2), print)
