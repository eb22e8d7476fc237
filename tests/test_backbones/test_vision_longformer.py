"""ViL against a slow reference, at all sizes, and option by option."""

import functools
import math

import pytest
import tiny_backbones
import torch
import torch.nn.functional as F
from tiny_backbones import OPTIONS, LargestTensor, gradients, image, randomise, weighed

from mmvitbackbones import VisionLongformer
from mmvitbackbones.backbones.vision_longformer import (
    ARCHS,
    FullAttention,
    ViLBlock,
    VisionLongformerAttention,
)
from mmvitbackbones.ops import attention, chunked

TINY = OPTIONS['VisionLongformer']['arch']
NO_DROPS = 1e-300  # of attention weights: as for any dropout, torch's own calls are taken
build = functools.partial(tiny_backbones.build, 'VisionLongformer')

# Millions of the published classifiers' parameters, with either position scheme, rounded as there.
PARAMETERS = {
    ('tiny', 'ape'): '6.7',
    ('small', 'ape'): '24.6',
    ('medium_deep', 'ape'): '39.7',
    ('medium_wide', 'ape'): '39.8',
    ('base_deep', 'ape'): '55.7',
    ('base_wide', 'ape'): '79.0',
    ('small', 'rpb'): '24.66',
    ('medium_deep', 'rpb'): '39.79',
    ('base_deep', 'rpb'): '55.81',
    ('base_wide', 'rpb'): '79.05',
}
# The same of Table 2, by size and depths; there are as many for "Full" as for "ViL".
TABLE_2 = {
    'Ti': {(1, 10, 1): '7.12', (2, 9, 1): '6.78', (1, 1, 9, 1): '6.71', (1, 2, 8, 1): '6.37'},
    'S': {(1, 10, 1): '27.58', (2, 9, 1): '26.25', (1, 1, 9, 1): '25.96', (1, 2, 8, 1): '24.63'},
}


# The reference: each query's keys one by one, with tables and their index order as published.

CHUNKS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
OWN, NEIGHBOURS = (0, 0), [chunk for chunk in CHUNKS if chunk != (0, 0)]


def keys_near(size, window, chunks, row, column):
    """Tokens of a token's chunk and those round it, without those beyond the map."""
    for dy, dx in chunks:
        top, left = row // window + dy, column // window + dx
        for y in range(top * window, (top + 1) * window):
            for x in range(left * window, (left + 1) * window):
                if y in range(size[0]) and x in range(size[1]):
                    yield y, x


def biases_of_offsets(attn, size):
    """By what a query is below and to the right of a key: (heads, 2a + 1, 2b + 1), and (a, b)."""
    if attn.bias is None:
        return None, None
    table = attn.bias.table.flip(1)  # published for offsets from a key to a query
    side = math.isqrt(table.shape[1])
    grid = table.unflatten(1, (side, side))
    if isinstance(attn, FullAttention):
        wanted = 2 * size[0] - 1, 2 * size[1] - 1
        grid = F.interpolate(grid[None], wanted, mode='bilinear', align_corners=False)[0]
        return grid, (size[0] - 1, size[1] - 1)
    return grid, (2 * attn.window - 1, 2 * attn.window - 1)


def look(q, seen, biases):
    """One query (heads, d) to a list of projections (3, heads, d) with biases (heads)."""
    _, k, v = torch.stack(seen).unbind(1)
    scores = (q * k).sum(-1) / math.sqrt(q.shape[1])
    weights = (scores + torch.stack(biases)).exp()
    weights = weights / weights.sum(0)
    return (weights[:, :, None] * v).sum(0).flatten()


def attend(attn, x, tokens=None, chunks=CHUNKS):
    """What local tokens (B, H, W, C) and global ones (B, n_g, C) get."""
    size, heads = x.shape[1:3], attn.num_heads
    everything = [(y, z) for y in range(size[0]) for z in range(size[1])]
    if tokens is None:
        tokens = x.new_zeros(len(x), 0, x.shape[3])
    grid, centre = biases_of_offsets(attn, size)
    nothing, of_global = x.new_zeros(heads), attn.global_bias
    locals_, globals_ = [], []
    for near, far in zip(x, tokens):
        near, far = (
            F.linear(t, attn.qkv.weight, attn.qkv.bias).unflatten(-1, (3, heads, -1))
            for t in (near, far)
        )
        for y, z in everything:
            keys = everything
            if isinstance(attn, VisionLongformerAttention):
                keys = list(keys_near(size, attn.window, chunks, y, z))
            biases = [
                nothing if grid is None else grid[:, y - ky + centre[0], z - kz + centre[1]]
                for ky, kz in keys
            ]
            for key in range(len(far)):
                biases.append(nothing if grid is None else of_global.local_to_global[:, key])
            locals_.append(look(near[y, z, 0], [*(near[key] for key in keys), *far], biases))
        for query in range(len(far)) if attn.queries else ():
            biases = [
                nothing if grid is None else of_global.global_to_global[:, query, key]
                for key in range(len(far))
            ]
            biases += [nothing if grid is None else of_global.global_to_local[:, query]] * len(
                everything
            )
            seen = [*far, *(near[key] for key in everything)]
            globals_.append(look(far[query, 0], seen, biases))
    local = attn.proj(torch.stack(locals_)).view(x.shape)
    return (local, attn.proj(torch.stack(globals_)).view(tokens.shape)) if globals_ else (local,)


def normed(x, norm, eps=1e-6):
    return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, eps=eps)


def run_stage(stage, x, chunks=CHUNKS):
    """Local tokens of a stage on maps (B, H, W, C)."""
    height, width = x.shape[1:3]
    if stage.position is not None:
        tables = []
        for table, side in ((stage.position.rows, height), (stage.position.columns, width)):
            if side > len(table):
                table = F.interpolate(table.t()[None], side, mode='linear')[0].t()
            tables.append(table)
        rows = [
            torch.stack([torch.cat([tables[0][y], tables[1][z]]) for z in range(width)])
            for y in range(height)
        ]
        x = x + torch.stack(rows)
    tokens = None
    if stage.global_tokens is not None:
        tokens = stage.global_tokens
        if stage.global_position is not None:
            tokens = tokens + stage.global_position
        tokens = torch.stack([tokens] * len(x))
    for i, block in enumerate(stage.blocks):
        normed_tokens = None if tokens is None else normed(tokens, block.norm1)
        branches = attend(block.attn, normed(x, block.norm1), normed_tokens, chunks)
        x = x + branches[0]
        x = x + block.ffn.fc2(F.gelu(block.ffn.fc1(normed(x, block.norm2))))
        if len(branches) > 1:
            tokens = tokens + branches[1]
            tokens = tokens + block.ffn.fc2(F.gelu(block.ffn.fc1(normed(tokens, block.norm2))))
        if i == 0 and stage.peg is not None:
            kernel, y = stage.peg.conv.weight, x.permute(0, 3, 1, 2)
            x = (y + F.conv2d(y, kernel, padding=1, groups=len(kernel))).permute(0, 2, 3, 1)
    return x


def run_backbone(model, x, chunks=CHUNKS):
    for i, stage in enumerate(model.stages):
        embedding = stage.downsample if i else model.stem
        patch = 2 if i else 4
        x = F.pad(x, (0, -x.shape[3] % patch, 0, -x.shape[2] % patch))
        x = F.conv2d(x, embedding.conv.weight, embedding.conv.bias, stride=patch)
        x = run_stage(stage, normed(x.permute(0, 2, 3, 1), embedding.norm), chunks)
        yield normed(x, model.out_norms[i], eps=1e-5).permute(0, 3, 1, 2)
        x = x.permute(0, 3, 1, 2)


def make(kind, tokens, biased=True, queries=True, attn_drop=0.0, **own):
    torch.manual_seed(0)
    attn = kind(
        dims=6,
        heads=2,
        num_tokens=tokens,
        biased=biased,
        queries=queries and tokens > 0,
        attn_drop=attn_drop,
        proj_drop=0.0,
        **own,
    )
    return randomise(attn.double())


def draw(size, tokens, batch=2):
    """A map, and global tokens that the samples do not share."""
    torch.manual_seed(1)
    inputs = [torch.randn(batch, *size, 6, dtype=torch.float64).requires_grad_()]
    if tokens:
        inputs.append(torch.randn(batch, tokens, 6, dtype=torch.float64).requires_grad_())
    return inputs


def compare(ours, expected, inputs):
    """Equal outputs, and equal gradients of what is named."""
    assert len(ours) == len(expected)
    for found, wanted in zip(ours, expected):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    found = torch.autograd.grad(weighed(ours), inputs.values())
    wanted = torch.autograd.grad(weighed(expected), inputs.values())
    for name, a, b in zip(inputs, found, wanted):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f'{n}: {m}')


def compare_attention(attn, inputs, chunks=CHUNKS):
    named = dict(attn.named_parameters(), **dict(zip(('x', 'tokens'), inputs)))
    compare(attn(*inputs), attend(attn, *inputs, chunks=chunks), named)


def drawn_chunk(attn, inputs, outputs):
    """Which of the eight chunks, beside the own one, gave these outputs."""
    found = []
    with torch.no_grad():
        for chunk in NEIGHBOURS:
            local = attend(attn, *inputs, chunks=[OWN, chunk])[0]
            if torch.allclose(local, outputs[0], rtol=1e-9, atol=1e-9):
                found.append(chunk)
    assert found
    return found


MAPS = [  # window, global tokens, size of the map
    (7, 1, (9, 8)),  # as published
    (3, 1, (5, 7)),
    (3, 2, (1, 7)),
    (2, 0, (7, 1)),
    (2, 2, (6, 4)),  # no padding
    (1, 1, (3, 4)),
    (4, 2, (3, 2)),  # smaller than a window
    (4, 0, (4, 4)),  # one window
    (3, 0, (5, 4)),
]
maps = pytest.mark.parametrize('window, tokens, size', MAPS)
drops = pytest.mark.parametrize('attn_drop', [0.0, NO_DROPS], ids=['CPU function', 'library'])


# Vision Longformer attention.


@pytest.mark.parametrize('shift_mode, training', [(0, True), (-1, True), (-1, False), (2, False)])
@maps
def test_attention_equals_reference(window, tokens, size, shift_mode, training):
    """Outputs, and gradients of both kinds of tokens, all tables and projections."""
    attn = make(VisionLongformerAttention, tokens, window=window).train(training)
    attn.shift_mode = shift_mode
    compare_attention(attn, draw(size, tokens), [OWN] if shift_mode < 0 else CHUNKS)


@drops
@pytest.mark.parametrize('biased', [True, False])
@pytest.mark.parametrize('shift_mode', [0, -1, 1])
@pytest.mark.parametrize(
    'window, tokens, size', [(3, 2, (5, 7)), (2, 1, (4, 4)), (2, 0, (4, 2))], ids=str
)
def test_all_paths_of_attention(window, tokens, size, shift_mode, biased, attn_drop):
    """With and without biases, masks, global tokens and a dropout."""
    attn = make(VisionLongformerAttention, tokens, biased, window=window, attn_drop=attn_drop)
    attn.shift_mode, inputs = shift_mode, draw(size, tokens)
    chunks = [OWN] if shift_mode else CHUNKS
    if shift_mode > 0:
        torch.manual_seed(3)
        chunks.append(drawn_chunk(attn, inputs, attn(*inputs))[0])
        torch.manual_seed(3)
    compare_attention(attn, inputs, chunks)


@pytest.mark.parametrize('kind', ['vil', 'full'])
def test_global_tokens_that_only_are_attended_to(kind):
    """Without what would be learned for them as queries."""
    if kind == 'vil':
        attn = make(VisionLongformerAttention, 2, queries=False, window=3)
    else:
        attn = make(FullAttention, 2, queries=False, side=4)
    inputs = draw((5, 4), 2)
    assert len(attn(*inputs)) == 1
    assert [name for name, _ in attn.global_bias.named_parameters()] == ['local_to_global']
    compare_attention(attn, inputs)


@maps
def test_random_shifts_see_one_of_eight_chunks(window, tokens, size):
    """Gradients, too, at borders where there is no such chunk."""
    attn = make(VisionLongformerAttention, tokens, window=window)
    attn.shift_mode, inputs = 1, draw(size, tokens)
    torch.manual_seed(5)
    (chunk, *_) = drawn_chunk(attn, inputs, attn(*inputs))
    torch.manual_seed(5)
    compare_attention(attn, inputs, [OWN, chunk])


def calls_of(model):
    """Attention modules, their inputs and outputs, in the order of their calls."""
    calls = []
    for module in model.modules():
        if isinstance(module, VisionLongformerAttention):
            module.register_forward_hook(lambda *call: calls.append(call))
    return calls


def test_random_shifts_are_drawn_anew():
    """By each attention at each forward, each of the eight about as often."""
    arch = dict(dims=[6], heads=[2], depths=[2])
    model = build(arch=arch, attention='vil', num_global_tokens=1, window_size=1, shift_mode=7)
    (stage,), calls = model.stages, calls_of(model)
    x = torch.randn(1, 3, 3, 6, dtype=torch.float64)
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(64):
            stage(x)
    drawn = []
    for attn, inputs, outputs in calls:
        (chunk,) = drawn_chunk(attn, inputs, outputs)  # no two of the eight give the same
        drawn.append(chunk)
    pairs = list(zip(drawn[::2], drawn[1::2]))
    counts = [drawn.count(chunk) for chunk in NEIGHBOURS]
    assert sum(counts) == 128 and min(counts) >= 6  # 16 each, with a deviation of 3.7
    assert len(set(pairs)) > 30  # of 64 pairs, 64 times
    assert 1 <= sum(a == b for a, b in pairs) < 20


def test_random_shifts_of_checkpointed_blocks():
    """Computed again with the chunks that were drawn first."""
    results = []
    for with_cp in (False, True):
        model = build(with_cp=with_cp, shift_mode=1)
        of_seeds = []
        for seed in range(3):
            torch.manual_seed(seed)
            maps, grads = gradients(model, image(47, 61))
            of_seeds += [*maps, *(grad.clone() for grad in grads.values())]
        results.append(of_seeds)
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    others = len(results[0]) // 3
    assert not torch.allclose(results[0][0], results[0][others])  # each seed draws others


# Full attention.


FULL = [  # side of the table's map, global tokens, size of the map
    (4, 1, (5, 7)),
    (4, 0, (4, 4)),  # the table as it is
    (4, 2, (4, 2)),
    (5, 2, (1, 6)),
    (3, 0, (6, 1)),
    (1, 1, (3, 2)),
    (6, 1, (1, 1)),
]


@drops
@pytest.mark.parametrize('side, tokens, size', FULL)
def test_full_attention_equals_reference(side, tokens, size, attn_drop):
    """Also gradients of the table that is resized."""
    attn = make(FullAttention, tokens, side=side, attn_drop=attn_drop)
    compare_attention(attn, draw(size, tokens))


@pytest.mark.parametrize('tokens', [0, 2])
def test_full_attention_without_biases(tokens):
    attn = make(FullAttention, tokens, biased=False, side=4)
    assert attn.bias is None and attn.global_bias is None
    compare_attention(attn, draw((3, 5), tokens))


@pytest.mark.parametrize('queries', [True, False])
@pytest.mark.parametrize('tokens', [0, 2])
@pytest.mark.parametrize('rows, count', [(0, 20), (0.5, 10), (0.8, 10), (1, 5), (2, 3), (99, 1)])
def test_parts_of_full_attention(monkeypatch, rows, count, tokens, queries):
    """Of so many rows of local queries, or parts of a row; global queries are few."""
    height, width, heads, batch = 5, 4, 2, 2
    scores = batch * heads * width * (height * width + tokens)
    monkeypatch.setattr(chunked, '_CHUNK_BYTES', int(rows * scores * 8))
    found = []

    def spy(compute, shared, parts, *others, **options):
        parts = list(parts)
        found.append(len(parts))
        return chunked.in_parts(compute, shared, parts, *others, **options)

    monkeypatch.setattr(attention, 'in_parts', spy)
    attn = make(FullAttention, tokens, queries=queries, side=4)
    compare_attention(attn, draw((height, width), tokens, batch=batch))
    assert found == [count]


@pytest.mark.parametrize('biased', [True, False])
@pytest.mark.parametrize(
    'kind, own', [(VisionLongformerAttention, dict(window=3)), (FullAttention, dict(side=3))]
)
def test_gradients_are_those_of_the_weights_that_were_left(monkeypatch, kind, own, biased):
    """A dropout of attention weights is drawn once, also where attention is cut into parts."""
    monkeypatch.setattr(chunked, '_CHUNK_BYTES', 0)
    attn = make(kind, 1, biased, attn_drop=0.5, **own)
    inputs = draw((4, 5), 1, batch=1)

    def run(x, tokens, seed=0):
        torch.manual_seed(seed)
        return attn(x, tokens)

    for one, other in zip(run(*inputs), run(*inputs, seed=1)):
        assert (one - other).abs().max() > 0.1
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    attn.eval()
    compare_attention(attn, inputs)


# Whole stages and backbones.


@pytest.mark.parametrize('position', ['rpb', 'ape'])
@pytest.mark.parametrize('form', ['vil', 'full'])
@pytest.mark.parametrize('tokens, size', [(0, (4, 5)), (1, (7, 5)), (2, (1, 8))])
def test_stage_equals_reference(form, position, tokens, size):
    """Three blocks; gradients of all parameters, global tokens and their positions with them."""
    model = build(
        arch=dict(dims=[6], heads=[2], depths=[3]),
        attention=form,
        num_global_tokens=tokens,
        position=position,
        window_size=3,
        pretrain_img_size=21,
    )
    (stage,), (x,) = model.stages, draw(size, 0)
    names = {name.split('.')[0] for name, _ in stage.named_parameters()}
    assert ('position' in names) == (position == 'ape')
    assert ('global_tokens' in names) == (tokens > 0)
    assert ('global_position' in names) == (tokens > 0 and position == 'ape')
    compare(stage(x)[:1], (run_stage(stage, x),), dict(stage.named_parameters(), x=x))


@pytest.mark.parametrize(
    'options',
    [
        dict(shift_mode=1),
        dict(shift_mode=-1, peg=True),
        dict(position='ape', num_global_tokens=(2, 1, 0, 1), attention='vil'),
        dict(attention='full', pretrain_img_size=40, peg=True),
    ],
    ids=str,
)
def test_backbone_equals_reference(options):
    model, x = build(**options).eval(), image(39, 46)
    chunks = [OWN] if options.get('shift_mode') == -1 else CHUNKS
    expected = tuple(run_backbone(model, x, chunks))
    compare(model(x), expected, dict(model.named_parameters()))


@pytest.mark.parametrize(
    'train', [lambda model: model.train(), lambda model: model.eval()], ids=['train', 'eval']
)
def test_set_shift_mode(train):
    """The same as the option; a value that is refused changes nothing."""
    model, x = train(build()), image(39, 46)
    outputs = {}
    with torch.no_grad():
        for mode in (0, -1, 3, 0):
            model.set_shift_mode(mode)
            assert model.shift_mode == mode
            torch.manual_seed(2)
            found = model(x)[0]
            fresh = train(build(shift_mode=mode))
            torch.manual_seed(2)
            assert torch.equal(found, fresh(x)[0])
            outputs[mode] = found
    assert not torch.allclose(outputs[0], outputs[-1])
    assert torch.equal(outputs[0], outputs[3]) == (not model.training)
    for mode in (-2, 1.0, True, None, '0'):
        with pytest.raises(ValueError, match=f'shift_mode .* got {mode!r}'):
            model.set_shift_mode(mode)
    assert model.shift_mode == 0
    with torch.no_grad():
        assert torch.equal(model(x)[0], outputs[0])


def test_drop_path_drops_local_and_global_tokens():
    """All branches of a sample at once, or none of them."""
    attn = make(VisionLongformerAttention, 2, window=3)
    block = randomise(ViLBlock(6, attn, 0.5, 0.0).double())
    inputs, kept = draw((4, 5), 2, batch=32), 0
    x, tokens = inputs
    outs = block(x, tokens)
    dropped = [[torch.equal(a, b) for a, b in zip(*pair)] for pair in zip(inputs, outs)]
    # Attention and the feed-forward network are dropped on their own: a quarter loses both.
    assert dropped[0] == dropped[1] and 2 <= sum(dropped[0]) <= 16
    # Where only one is left, it is twice as large for both kinds of tokens.
    attended = [2 * branch for branch in attn(block.norm1(x), block.norm1(tokens))]
    for i in range(32):
        only = [torch.allclose(o[i], t[i] + a[i]) for o, t, a in zip(outs, inputs, attended)]
        assert only in ([True, True], [False, False])
        kept += only[0]
    assert 2 <= kept <= 16


# Memory.


@drops
@pytest.mark.parametrize('shift_mode', [0, 1])
def test_memory_of_attention_grows_with_the_map_only(shift_mode, attn_drop):
    """Four times the tokens: no tensor, of the backward pass neither, grows more than fourfold."""
    attn = make(VisionLongformerAttention, 1, window=2, attn_drop=attn_drop)
    attn.shift_mode, largest = shift_mode, []
    for side in (19, 38):  # padded to 20 and 38
        inputs = draw((side, side), 1, batch=1)
        with LargestTensor() as mode:
            weighed(attn(*inputs)).backward()
        largest.append(mode.numel)
    assert largest[1] <= 4 * largest[0]
    assert largest[1] < 38**4 / 4  # all pairs of tokens


@pytest.mark.parametrize('biased', [True, False])
def test_full_attention_makes_nothing_of_all_pairs(monkeypatch, biased):
    """Nor the backward pass: no more than the scores of a chunk."""
    side, heads, batch, chunk = 24, 2, 2, 30_000
    monkeypatch.setattr(chunked, '_CHUNK_BYTES', chunk * 8)
    attn, inputs = make(FullAttention, 1, biased, side=7), draw((side, side), 1, batch)
    assert batch * side**2 * 3 * 6 < chunk < heads * side**4 / 20
    with LargestTensor() as mode:
        weighed(attn(*inputs)).backward()
    assert mode.numel <= chunk


# Shapes, sizes, parameters.


@pytest.mark.parametrize('size', [(32, 32), (41, 67)])
@pytest.mark.parametrize('arch', ['tiny_3stage', 'small_3stage'])
def test_three_stages(arch, size):
    """Strides 8, 16 and 32."""
    model = VisionLongformer(arch).eval()
    with torch.no_grad():
        maps = model(image(*size, dtype=torch.float32))
    sides = [[math.ceil(side / stride) for side in size] for stride in (8, 16, 32)]
    dims = ARCHS[arch]['dims']
    assert [m.shape for m in maps] == [(1, dim, *each) for dim, each in zip(dims, sides)]


def test_patches_of_a_dict():
    """4, 2, 2, ... unless it says otherwise."""
    arch = dict(dims=[8, 8, 8], heads=[1, 2, 2], depths=[1, 1, 1])
    for patches, strides in ((None, (4, 8, 16)), ([2, 3, 1], (2, 6, 6))):
        model = VisionLongformer(arch if patches is None else dict(arch, patches=patches))
        maps = model(image(33, 50, dtype=torch.float32))
        for found, stride in zip(maps, strides):
            assert found.shape[2:] == (math.ceil(33 / stride), math.ceil(50 / stride))


def millions(arch, **options):
    """Parameters with the classifier: a LayerNorm and the head."""
    with torch.device('meta'):
        model = VisionLongformer(arch, out_norm=None, **options)
    channels = model.stages[-1].blocks[0].norm1.weight.numel()
    return (sum(p.numel() for p in model.parameters()) + 2 * channels + 1001 * channels) / 1e6


def published(arch, text, **options):
    """Whether the number of parameters is rounded to that published."""
    digits = len(text.split('.')[1])
    return f'{millions(arch, **options):.{digits}f}' == text


@pytest.mark.parametrize('arch, position', PARAMETERS)
def test_parameters_of_the_published_sizes(arch, position):
    assert published(arch, PARAMETERS[arch, position], position=position)


@pytest.mark.parametrize(
    'size, depths', [(size, depths) for size in TABLE_2 for depths in TABLE_2[size]]
)
@pytest.mark.parametrize('form', ['vil', 'full'])
def test_parameters_of_table_2(form, size, depths):
    arch = _of_table_2(size, depths)
    text = TABLE_2[size][depths]
    # The absolute position embedding gives the published numbers, to the last digit without the
    # global tokens and their positions, which are less than 0.002 M.
    assert published(arch, text, attention=form, position='ape', num_global_tokens=0)
    with_tokens = millions(arch, attention=form, position='ape', num_global_tokens=1)
    assert abs(with_tokens - float(text)) < 0.008
    # The relative bias is more, full attention's most, as its tables are those of whole maps.
    biased = millions(arch, attention=form, position='rpb', num_global_tokens=1)
    assert 0.01 < biased - float(text) < 0.08


def _of_table_2(size, depths):
    """Three stages start with the second stage of four, with twice the patches."""
    dims, heads = ([48, 96, 192, 384], [1, 3, 3, 6])
    if size == 'S':
        dims, heads = [96, 192, 384, 768], [3, 3, 6, 12]
    count = len(depths)
    patches = [8, 2, 2] if count == 3 else [4, 2, 2, 2]
    heads = heads if count == 4 else ([3, 3, 6] if size == 'Ti' else [3, 6, 12])
    return dict(dims=dims[-count:], heads=heads, depths=list(depths), patches=patches)


# Options.


def test_defaults():
    """Of the published detectors, but for the norms of the output."""
    model = VisionLongformer('tiny')
    for i, stage in enumerate(model.stages):
        assert (stage.global_tokens is None) == (i == 3)
        assert i == 3 or stage.global_tokens.shape == (1, ARCHS['tiny']['dims'][i])
        for block in stage.blocks:
            assert type(block.attn) is VisionLongformerAttention
            assert block.attn.window == 7 and block.attn.shift_mode == 0
            assert block.attn.bias.table.shape == (ARCHS['tiny']['heads'][i], 27**2)


@pytest.mark.parametrize(
    'forms', ['vil', 'full', ('full', 'vil', 'vil', 'full'), ['vil', 'full', 'full', 'vil']]
)
def test_attention_of_each_stage(forms):
    model = build(attention=forms, position='ape')
    for i, stage in enumerate(model.stages):
        wanted = forms if isinstance(forms, str) else forms[i]
        kind = dict(vil=VisionLongformerAttention, full=FullAttention)[wanted]
        assert [type(block.attn) for block in stage.blocks] == [kind] * TINY['depths'][i]


@pytest.mark.parametrize('tokens', [0, 2, (0, 3, 1, 2)])
@pytest.mark.parametrize('position', ['rpb', 'ape'])
def test_global_tokens_of_each_stage(position, tokens):
    """Their parameters are where something is learned by them, and nowhere else."""
    model = build(num_global_tokens=tokens, position=position)
    for i, stage in enumerate(model.stages):
        count = tokens if isinstance(tokens, int) else tokens[i]
        shape = (count, TINY['dims'][i])
        assert (stage.global_tokens is not None) == (count > 0)
        assert count == 0 or stage.global_tokens.shape == shape
        assert (stage.global_position is not None) == (count > 0 and position == 'ape')
        for block in stage.blocks:
            biases, last = block.attn.global_bias, block is stage.blocks[-1]
            assert (biases is not None) == (count > 0 and position == 'rpb')
            if biases is not None:
                heads = TINY['heads'][i]
                shapes = {name: tuple(p.shape) for name, p in biases.named_parameters()}
                expected = dict(local_to_global=(heads, count))
                if not last:
                    expected['global_to_local'] = (heads, count)
                    expected['global_to_global'] = (heads, count, count)
                assert shapes == expected


def test_window_size_of_each_stage():
    model = build(window_size=(5, 1, 2, 7), attention='vil')
    for window, stage, heads in zip((5, 1, 2, 7), model.stages, TINY['heads']):
        for block in stage.blocks:
            assert block.attn.bias.table.shape == (heads, (4 * window - 1) ** 2)


@pytest.mark.parametrize(
    'pixels, sides', [(224, (56, 28, 14, 7)), (50, (13, 7, 4, 2)), (1, (1, 1, 1, 1))]
)
def test_pretrain_img_size(pixels, sides):
    """The maps that an image of this size has."""
    of_tokens = build(attention='full', position='ape', pretrain_img_size=pixels)
    of_biases = build(attention='full', pretrain_img_size=pixels)
    for i, side in enumerate(sides):
        position = of_tokens.stages[i].position
        assert position.rows.shape == position.columns.shape == (side, TINY['dims'][i] // 2)
        table = of_biases.stages[i].blocks[0].attn.bias.table
        assert table.shape == (TINY['heads'][i], (2 * side - 1) ** 2)


# Bad input.

BAD_OPTIONS = [
    (dict(attention='x'), ['attention', "'vil' or 'full'", '4 of them', "'x'"]),
    (dict(attention=['vil'] * 3), ['attention', '4 of them', "['vil', 'vil', 'vil']"]),
    (dict(attention=['vil'] * 3 + [None]), ['attention', '4 of them', 'None']),
    (dict(attention=()), ['attention', '4 of them', '()']),
    (dict(attention=1), ['attention', "'vil' or 'full'", '1']),
    (dict(position='x'), ['position', "'rpb', 'ape'", "'x'"]),
    (dict(position=None), ['position', "'rpb', 'ape'", 'None']),
    (dict(position=['rpb'] * 4), ['position', "'rpb', 'ape'", '[']),
    (dict(num_global_tokens=-1), ['num_global_tokens', 'at least 0', '-1']),
    (dict(num_global_tokens=1.0), ['num_global_tokens', 'integer', '1.0']),
    (dict(num_global_tokens=True), ['num_global_tokens', 'integer', 'True']),
    (dict(num_global_tokens=(1, 1, 1)), ['num_global_tokens', '4 of them', '(1, 1, 1)']),
    (dict(num_global_tokens=(1, 1, 1, None)), ['num_global_tokens', 'integer', 'None']),
    (dict(num_global_tokens='1110'), ['num_global_tokens', 'integer', "'1110'"]),
    (dict(window_size=0), ['window_size', 'at least 1', '0']),
    (dict(window_size=7.0), ['window_size', 'integer', '7.0']),
    (dict(window_size=None), ['window_size', 'integer', 'None']),
    (dict(window_size=[7, 7]), ['window_size', '4 of them', '[7, 7]']),
    (dict(window_size=[7, 7, 7, True]), ['window_size', 'integer', 'True']),
    (dict(shift_mode=-2), ['shift_mode', 'at least -1', '-2']),
    (dict(shift_mode=0.0), ['shift_mode', 'integer', '0.0']),
    (dict(shift_mode=True), ['shift_mode', 'integer', 'True']),
    (dict(shift_mode=None), ['shift_mode', 'integer', 'None']),
    (dict(pretrain_img_size=0), ['pretrain_img_size', 'positive', '0']),
    (dict(pretrain_img_size=224.0), ['pretrain_img_size', 'integer', '224.0']),
    (dict(pretrain_img_size=True), ['pretrain_img_size', 'integer', 'True']),
    (dict(pretrain_img_size=(224, 224)), ['pretrain_img_size', 'integer', '(224, 224)']),
    (dict(pretrain_img_size=None), ['pretrain_img_size', 'integer', 'None']),
    (dict(arch=dict(TINY, patches=[4, 2, 2])), ["arch['patches']", '4 of them', '[4, 2, 2]']),
    (dict(arch=dict(TINY, patches=[4, 2, 2, 0])), ["arch['patches']", 'at least 1', '0']),
    (dict(arch=dict(TINY, patches=2.0)), ["arch['patches']", 'integer', '2.0']),
    (dict(arch=dict(TINY, patches='4222')), ["arch['patches']", 'integer', "'4222'"]),
    (dict(arch=dict(TINY, window_size=7)), ['depths, dims, heads and perhaps patches', 'window']),
    (
        dict(arch=dict(TINY, dims=[8, 9, 16, 16], heads=[1, 3, 2, 4]), position='ape'),
        ['arch', "position='ape'", 'even', '[8, 9, 16, 16]'],
    ),
]


@pytest.mark.parametrize('options, words', BAD_OPTIONS, ids=lambda value: str(value)[:60])
def test_bad_options(options, words):
    with pytest.raises(ValueError) as error:
        VisionLongformer(**{'arch': TINY, **options})
    message = str(error.value)
    assert all(word in message for word in words), message


def test_odd_channels_with_biases():
    arch = dict(TINY, dims=[9, 9, 15, 16], heads=[3, 1, 5, 4])
    maps = build(arch=arch)(image(33, 40))
    assert [m.shape[1] for m in maps] == [9, 9, 15, 16]
