"""What holds for any image, batch and choice of options: drawn, and shrunk where it fails."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_backbones import OPTIONS, build, image, weighed

STAGES = 4


def per_stage(values):
    return st.tuples(*[values] * STAGES)


def optional(**strategies):
    return st.fixed_dictionaries({}, optional=strategies)


def arch_of(family, **changes):
    return {**OPTIONS[family]['arch'], 'depths': [1] * STAGES, **changes}


COMMON = dict(
    out_norm=st.sampled_from(['output', 'inline', None]),
    out_indices=st.sets(st.integers(0, STAGES - 1), min_size=1).map(sorted),
    with_cp=st.booleans(),
)
PEG = dict(peg=st.booleans())


@st.composite
def focal(draw):
    """What fits together: a window sees at most half a window beyond itself."""
    sides = draw(per_stage(st.integers(1, 8)))
    return dict(
        draw(optional(**PEG)),
        arch=arch_of('FocalTransformer'),
        window_size=sides,
        expand_sizes=tuple(draw(st.integers(0, side // 2)) for side in sides),
        focal_windows=draw(per_stage(st.sampled_from([0, 1, 3, 5]))),
        use_conv_embed=draw(st.booleans()),
    )


OWN = dict(
    RegionViT=st.fixed_dictionaries(
        dict(
            arch=st.builds(
                lambda stem, regional: arch_of('RegionViT', stem=stem, regional=regional),
                st.sampled_from(['1-conv', '3-conv']),
                st.booleans(),
            ),
            window_size=st.integers(1, 9),
        ),
        optional=PEG,
    ),
    FocalTransformer=focal(),
    RMT=st.fixed_dictionaries(
        dict(
            arch=st.builds(
                lambda stem, parts: arch_of('RMT', stem=stem, **parts),
                st.sampled_from(['conv', 'patch']),
                optional(cpe=st.booleans(), lce=st.booleans(), ffn_conv=st.booleans()),
            ),
            # All pairs of the first stage's 5,625 tokens take too long here.
            attention=st.tuples(
                st.just('decomposed'), *[st.sampled_from(['decomposed', 'whole'])] * 3
            ),
            decay=st.sampled_from(['bias', 'product', None]),
        )
    ),
    VisionLongformer=st.fixed_dictionaries(
        dict(
            arch=st.just(arch_of('VisionLongformer')),
            window_size=per_stage(st.integers(1, 8)),
            attention=st.tuples(st.just('vil'), *[st.sampled_from(['vil', 'full'])] * 3),
            num_global_tokens=per_stage(st.integers(0, 3)),
            position=st.sampled_from(['rpb', 'ape']),
            shift_mode=st.sampled_from([-1, 0, 1]),
            pretrain_img_size=st.sampled_from([64, 224]),
        ),
        optional=PEG,
    ),
)


def holds(family, options, size, batch):
    model = build(family, **options).eval()
    x = image(*size, batch=batch)
    maps = model(x)

    indices = options.get('out_indices', range(STAGES))
    dims = options['arch']['dims']
    assert [tuple(m.shape) for m in maps] == [
        (batch, dims[i], *(math.ceil(side / 2 ** (i + 2)) for side in size)) for i in indices
    ]
    assert all(m.isfinite().all() for m in maps)

    for again, once in zip(model(x), maps, strict=True):
        assert torch.equal(again, once)
    for alone, beside in zip(model(x[-1:]), maps, strict=True):
        torch.testing.assert_close(alone, beside[-1:], atol=1e-9, rtol=1e-9)

    weighed(maps).backward()
    for name, parameter in model.named_parameters():
        stage = re.match(r'(?:stages|out_norms)\.(\d)', name)
        if stage is None or int(stage[1]) <= max(indices):  # others do not run
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name

    other = build(family, seed=5, **options).eval()
    other.load_state_dict(model.state_dict())
    for found, wanted in zip(other(x), maps, strict=True):
        assert torch.equal(found, wanted)


def properties(examples):
    """A test of that many examples a family, the same in each run."""

    @pytest.mark.parametrize('family', OPTIONS)
    @settings(max_examples=examples, deadline=None, derandomize=True)
    @given(
        data=st.data(),
        size=st.tuples(*[st.integers(32, 300)] * 2),
        batch=st.integers(1, 3),
    )
    def test(family, data, size, batch):
        options = {
            **data.draw(optional(**COMMON), label='common'),
            **data.draw(OWN[family], label='own'),
        }
        holds(family, options, size, batch)

    return test


test_few_examples = properties(6)
test_many_examples = pytest.mark.sweep(properties(150))
