"""Published weights, and our own, on their way into a backbone of every family."""

import copy
import itertools
import re

import pytest
import torch
from golden_cases import GoldenCase
from mmengine.config import Config
from mmengine.registry import DefaultScope
from published_files import FAMILIES, cases, every_family, every_golden_case, same
from published_files.layout import Odd
from tiny_backbones import image

from mmvitbackbones.checkpoints import load_published

# On the way to a tensor without memory there is nothing to copy.
on_meta = pytest.mark.filterwarnings('ignore:.*which is a no-op:UserWarning')


def check_report(report, files, model, layout):
    """All that the model has is loaded but for output norms, all that the file has is named."""
    norms = [n for n in model.state_dict() if n.startswith('out_norms.') and n not in layout.places]
    assert report.kind == f'published {files.name}'
    assert sorted(report.loaded) == sorted(layout.places)
    assert sorted(report.loaded + norms) == sorted(model.state_dict())
    assert report.new == norms
    assert sorted(report.unused) == sorted(layout.unread)
    assert sorted(report.tied) == sorted(layout.tied)
    assert not report.resized


# Every published tensor is accounted for.


@every_golden_case
def test_naming_rules_are_those_of_the_published_files(files, case):
    case = GoldenCase(case)
    layout = files.layout(**files.of_case(case))
    assert layout.shapes == {key: tuple(shape) for key, (shape, _) in case.keys.items()}
    integers = {key for key, (_, dtype) in case.keys.items() if dtype == 'int64'}
    assert integers == {*layout.integers}
    assert layout.parameters() == case.info['params']


@on_meta
@cases(lambda files: files.sizes)
def test_every_tensor_of_every_size(files, case):
    model = files.shapes_only_model(**case)
    report = load_published(model, files.shapes_only(**case))
    check_report(report, files, model, files.layout(**case))


@cases(lambda files: files.millions)
def test_sizes_are_as_the_papers_count_them(files, case):
    options, millions, exactness = case
    assert abs(files.layout(**options).parameters() / 1e6 - millions) < exactness


# What arrives where.


@cases(lambda files: files.variants)
def test_values_arrive_bit_for_bit(files, case):
    state, model = files.state(**case), files.build(**case)
    report = load_published(model, state)
    check_report(report, files, model, files.layout(**case))
    assert same(model.state_dict(), files.ours(state, **case))


@cases(lambda files: files.same_tensors | {'with_cp': dict(with_cp=True)})
def test_no_tensor_depends_on_these_options(files, case):
    model = files.build(**case)
    check_report(load_published(model, files.state()), files, model, files.layout())
    assert same(model.state_dict(), files.ours())


def wrapped(way, state):
    """A state dict as other tools save it."""
    if 'module' in way:
        state = {f'module.{name}': tensor for name, tensor in state.items()}
    if 'backbone' in way:
        state = {f'backbone.{name}': tensor for name, tensor in state.items()}
        state = dict(state_dict={**state, 'neck.weight': torch.ones(2)}, optimizer={})
    for key in ('model', 'net', 'state_dict'):
        if way.startswith(key):
            state = {key: state, 'epoch': 300}
    return state


@pytest.mark.parametrize(
    'way', ['model', 'net', 'state_dict', 'module', 'net of module', 'backbone']
)
@every_family
def test_every_wrapper_is_taken_off(files, way):
    model = files.build()
    report = load_published(model, wrapped(way, files.state()))
    assert same(model.state_dict(), files.ours())
    assert report.kind == f'published {files.name}'
    assert ('neck.weight' in report.unused) == (way == 'backbone')


@pytest.mark.parametrize('convert', [str, lambda path: path], ids=['str', 'path'])
@every_family
def test_from_a_file(files, convert, tmp_path):
    model, path = files.build(), tmp_path / 'published.pth'
    torch.save(dict(model=files.state()), path)
    assert load_published(model, convert(path)).source == str(path)
    assert same(model.state_dict(), files.ours())


@pytest.mark.parametrize('origin', ['state', 'ours'])
@every_family
def test_in_any_order(files, origin):
    """As of files that other tools have sorted, such as keys before queries."""
    state, last = getattr(files, origin)(), [0, 1]
    orders = [sorted(state, reverse=reverse) for reverse in last]
    orders += [sorted(state, key=lambda name: 'fc1.bias' in name, reverse=first) for first in last]
    for order in orders:
        model = files.build()
        load_published(model, {name: state[name] for name in order})
        assert same(model.state_dict(), files.ours())


@pytest.mark.parametrize(
    'change',
    [
        lambda tensor: torch.full_like(tensor, -1),
        lambda tensor: torch.ones(3, 5),
        lambda tensor: torch.tensor(7),
        lambda tensor: torch.full((2, 2, 2), float('nan')),
        None,
    ],
    ids=['values', 'shape', 'number', 'no integers', 'none at all'],
)
@pytest.mark.parametrize('family', ['FocalTransformer', 'RMT', 'VisionLongformer'])
def test_constants_are_ignored_whatever_they_hold(family, change):
    """Buffers that the papers' code computes from its options."""
    files = FAMILIES[family]
    layout, state, model = files.layout(), files.state(), files.build()
    constants = [n for n in layout.buffers if n in layout.unread and n not in layout.classifier]
    assert len(constants) >= 2 * len(model.stages) - 1
    for name in constants:
        tensor = state.pop(name)
        if change:
            state[name] = change(tensor)
    report = load_published(model, state)
    assert same(model.state_dict(), files.ours())
    assert set(report.unused) == {*layout.unread} - (set() if change else {*constants})


@cases(lambda files: {name: name for name in files.other_buffers})
def test_constants_of_other_options(files, case):
    """Of the papers' code, such as shifted windows."""
    model = files.build()
    report = load_published(model, {**files.state(), case: torch.full((3, 5), float('nan'))})
    assert same(model.state_dict(), files.ours())
    assert case in report.unused


# What is new, unused or of another size.


@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (1, 3)], ids=str)
@every_family
def test_only_output_norms_and_peg_start_new(files, out_indices, log):
    more = {} if files.name == 'RMT' else dict(peg=True)
    model = files.build(out_norm='output', out_indices=out_indices, **more)
    before = copy.deepcopy(model.state_dict())
    report = load_published(model, files.state())
    new = [name for name in before if name.startswith('out_norms.') or '.peg.' in name]
    assert len({name for name in new if name.startswith('out_norms.')}) == 2 * len(out_indices)
    assert any('.peg.' in name for name in new) == bool(more)
    assert report.new == new and not log.warnings
    assert same(model.state_dict(), {**files.ours(), **{name: before[name] for name in new}})


def matching(pattern, names):
    return sorted(name for name in names if re.fullmatch(pattern, name))


@cases(lambda files: files.changes)
def test_models_of_other_options_than_a_file(files, case, log):
    """All that does not depend on them arrives as it is, of our own files as of published ones."""
    states = []
    for origin, unread in ((files.state, files.layout(**case.options).unread), (files.ours, [])):
        model = files.build(**{**case.options, **case.parts})
        before = copy.deepcopy(model.state_dict())
        log.warnings.clear()
        report = load_published(model, origin(**case.options))
        check_change(case, report, files.ours(**case.options), before, model.state_dict(), unread)
        check_warnings(log.warnings, report)
        states.append(model.state_dict())
    assert same(*states)


def check_change(case, report, plain, before, found, unread):
    """What a file is in a model of its own options, ``plain``, is ``found`` in another one."""
    gone, new = matching(case.unused, plain), matching(case.new, before)
    resized = [name for name in matching(case.resized, plain) if name not in gone]
    for pattern, matched in ((case.unused, gone), (case.new, new), (case.resized, resized)):
        assert bool(pattern) == bool(matched)
    assert {*report.unused} == {*gone, *unread}
    assert sorted(report.new) == new
    assert sorted(report.resized) == resized
    kept = {name: tensor for name, tensor in plain.items() if name not in {*gone, *resized}}
    assert found.keys() == {*kept, *new, *resized}
    assert same({name: found[name] for name in kept}, kept)
    assert same({name: found[name] for name in new}, {name: before[name] for name in new})
    for name in resized:
        assert report.resized[name] == (plain[name].shape, found[name].shape)
        assert plain[name].shape != found[name].shape


def check_warnings(warnings, report):
    """One line that names what starts new, by its stage, and why; none where nothing does."""
    assert len(warnings) == bool(report.new)
    reshaped = {*report.new} & {*report.unused}
    for warning in warnings:
        assert 'a state dict: these start new' in warning and '\n' not in warning
        assert ('another shape there' in warning) == bool(reshaped)
        assert ('not in the file' in warning) == bool({*report.new} - reshaped)
        for name in report.new:
            assert re.sub(r'(?<=\.blocks\.)\d+', '*', name) in warning


@cases(lambda files: {n: c for n, c in files.changes.items() if c.resized or c.new})
def test_models_of_other_options_run(files, case):
    model = files.build(**{**case.options, **case.parts})
    load_published(model, files.state(**case.options))
    with torch.no_grad():
        maps = model.eval()(image(90, 61, dtype=torch.float32))
    assert all(m.isfinite().all() for m in maps)


# Our own.


def check_reload(saved, model, state, unused=()):
    assert not same(model.state_dict(), saved.state_dict())
    report = load_published(model, state)
    assert same(model.state_dict(), saved.state_dict())
    assert report.kind == 'mmvitbackbones' and report.unused == [*unused]
    assert not report.new and not report.resized


@cases(lambda files: files.own)
def test_our_own_reload_exactly(files, case):
    saved = files.trained(**case)
    check_reload(saved, files.build(**case), saved.state_dict())


@pytest.mark.parametrize('way', ['state_dict', 'module', 'backbone'])
@every_family
def test_every_wrapper_of_our_own_is_taken_off(files, way):
    saved = files.trained()
    unused = ['neck.weight'] if way == 'backbone' else []
    check_reload(saved, files.build(), wrapped(way, saved.state_dict()), unused)


@every_family
def test_our_own_from_a_file(files, tmp_path):
    saved = files.trained()
    torch.save(dict(state_dict=saved.state_dict()), tmp_path / 'ours.pth')
    check_reload(saved, files.build(), tmp_path / 'ours.pth')


# The log.


@every_family
def test_the_report_in_the_log(files, log):
    """Short, as tensors whose names differ in numbers are one entry."""
    options, parts, text = files.report
    model = files.build(**{**options, **parts})
    log.messages.clear()
    report = load_published(model, files.state(**options))
    assert str(report) == log.messages[0] == text


@every_family
def test_the_report_of_our_own(files, log):
    model = files.build(out_norm='output')
    log.messages.clear()
    report = load_published(model, model.state_dict())
    count = len(model.state_dict())
    assert str(report) == f'a state dict: mmvitbackbones weights, {count} tensors loaded'
    assert log.messages == [str(report)]


# What is wrong.


def check_refusal(model, state, words):
    """A ValueError with all these words, or one of a tuple; the model is as it was."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError) as error:
        load_published(model, state)
    for word in ['a state dict', *words]:
        one_of = word if isinstance(word, tuple) else (word,)
        assert any(word in str(error.value) for word in one_of), str(error.value)
    assert same(model.state_dict(), before)


@pytest.fixture(scope='module')
def untouched():
    """Models that no file changes are built once."""
    made = {}

    def build(files, **options):
        key = files.name, repr(options)
        if key not in made:
            made[key] = files.build(**options)
        return made[key]

    return build


def odd_of_any_family(files):
    """What no family takes."""
    depths, dims = (str(files.arch[key])[1:-1] for key in ('depths', 'dims'))
    deeper = dict(files.arch, depths=[1, 2, 4, 1])
    wider = dict(files.arch, dims=[8, 16, 32, 32])
    neither = [f'neither published {files.name} weights nor our own']
    swin = {
        'patch_embed.proj.weight': torch.ones(8, 3, 4, 4),
        'layers.0.blocks.0.attn.relative_position_bias_table': torch.ones(169, 1),
    }
    classifier = files.layout().classifier
    ours = [f'the model has depths {depths} and channels {dims}', 'Set arch']
    return {
        'extra': Odd(lambda: files.changed('extra.weight', 2), ['1 unexpected', 'extra.weight']),
        'our extra': Odd(
            lambda: {**files.ours(), 'extra.weight': torch.ones(2)},
            ['1 unexpected', 'extra.weight'],
        ),
        'deeper': Odd(lambda: files.state(arch=deeper), ['it has depths 1, 2, 4, 1', *ours]),
        'our deeper': Odd(lambda: files.ours(arch=deeper), ['it has depths 1, 2, 4, 1', *ours]),
        'wider': Odd(lambda: files.state(arch=wider), ['channels 8, 16, 32, 32', *ours]),
        'swin': Odd(lambda: swin, [*neither, 'patch_embed.proj.weight', '2 tensors']),
        'classifier': Odd(
            lambda: {name: torch.ones(1) for name in classifier},
            [*neither, classifier[0], f'{len(classifier)} tensors'],
        ),
        'empty': Odd(dict, ['no tensor at all']),
        'no tensors': Odd(lambda: dict(state_dict=dict(epoch=3)), ['no tensor at all']),
        'shape': Odd(
            lambda: files.changed(files.layout().places['stages.2.blocks.0.ffn.fc2.bias'][0], 9),
            ['stages.2.blocks.0.ffn.fc2.bias', '(9,)', '(16,)'],
        ),
        'our norms': Odd(
            lambda: files.build(out_norm='output').state_dict(), ['8 unexpected', 'set out_norm']
        ),
    }


@cases(lambda files: {**odd_of_any_family(files), **files.odd()})
def test_wrong_weights_change_nothing(files, case, untouched):
    check_refusal(untouched(files, **case.options), case.state(), case.words)


@pytest.mark.parametrize('family', ['RegionViT', 'FocalTransformer', 'VisionLongformer'])
def test_peg_without_a_place(family):
    files = FAMILIES[family]
    ours = files.build(peg=True).state_dict()
    words = ['4 unexpected', 'stages.0.peg', 'set peg=True']
    check_refusal(files.build(), ours, words)


def lacking(files, ours, **options):
    """A file without what a tensor of ours is made of, and how many of ours it then lacks."""
    layout = files.layout(**options)
    gone = {*layout.places[ours]}
    copies = [twin for twin, first in layout.tied.items() if first in gone]
    count = sum(not gone.isdisjoint(sources) for sources in layout.places.values())
    return files.without(*gone, *copies, **options), count


@cases(lambda files: {name: name for name in files.needed})
def test_a_missing_tensor_is_an_error(files, case, untouched):
    state, count = lacking(files, case)
    check_refusal(untouched(files), state, [f'{count} missing', case])


@cases(lambda files: {n: c for n, c in files.changes.items() if c.unused or c.new})
def test_what_no_switch_explains_is_refused(files, case):
    """A tensor that is missing elsewhere, or that is not of the part that is switched off."""
    model = files.build(**{**case.options, **case.parts})
    state = {**files.state(**case.options), 'extra.weight': torch.ones(2)}
    check_refusal(model, state, ['1 unexpected', 'extra.weight'])
    name = 'stages.1.blocks.1.norm1.bias'
    state, _ = lacking(files, name, **case.options)
    check_refusal(model, state, [f'1 missing ({name})'])


@pytest.mark.parametrize('family, other', [*itertools.permutations(FAMILIES, 2)])
def test_weights_of_another_family(family, other, untouched):
    files, other = FAMILIES[family], FAMILIES[other]
    model = untouched(files, out_norm='output')
    for options in other.variants.values():
        words = [f'a state dict holds {other.name} weights, the model is {files.name}']
        check_refusal(model, other.state(**options), words)
    words = [('are they of the same family', 'is of another arch', 'does not fit the model')]
    check_refusal(model, untouched(other, out_norm='output').state_dict(), words)


@pytest.mark.parametrize('wrong', ['arch', 'conversion'])
@every_family
def test_the_message_names_the_file(files, wrong, tmp_path):
    odd = files.odd()[files.unconvertible]
    if wrong == 'arch':
        arch = dict(files.arch, depths=[1, 1, 1, 1])
        odd = Odd(lambda: files.state(arch=arch), ['is of another arch'])
    torch.save(dict(model=odd.state()), tmp_path / 'odd.pth')
    with pytest.raises(ValueError, match=rf'odd\.pth.*{re.escape(odd.words[0])}'):
        load_published(files.build(), tmp_path / 'odd.pth')


# Through mmengine.


@pytest.mark.parametrize('as_list', [False, True])
@every_family
def test_init_cfg(files, as_list, tmp_path, log):
    torch.save(dict(model=files.state()), tmp_path / 'published.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'published.pth'))
    model = files.build(init_cfg=[init_cfg] if as_list else init_cfg)
    model.init_weights()
    assert same(model.state_dict(), files.ours()) and model.is_init
    assert f'published.pth: published {files.name} weights' in log.messages[-1]


@pytest.mark.parametrize(
    'more', [dict(prefix='backbone.'), dict(map_location='cpu'), [dict(type='Constant', val=0)]]
)
@every_family
def test_init_cfg_with_more(files, more, tmp_path):
    torch.save(dict(model=files.state()), tmp_path / 'published.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'published.pth'))
    init_cfg = [init_cfg, *more] if isinstance(more, list) else {**init_cfg, **more}
    with pytest.raises(ValueError, match="init_cfg of type 'Pretrained' takes 'checkpoint'"):
        files.build(init_cfg=init_cfg).init_weights()


@every_family
def test_init_cfg_of_other_types(files):
    model = files.build(init_cfg=dict(type='Constant', layer='Linear', val=0.5, bias=0.25))
    model.init_weights()
    assert (model.stages[0].blocks[0].ffn.fc1.weight == 0.5).all()
    assert (model.stages[0].blocks[0].ffn.fc1.bias == 0.25).all()


@every_family
def test_init_cfg_without_a_file(files, tmp_path):
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'missing.pth'))
    with pytest.raises(FileNotFoundError, match='missing.pth'):
        files.build(init_cfg=init_cfg).init_weights()


def detector(files, path):
    """A RetinaNet with a tiny backbone, built and initialised as a Runner does it."""
    cfg = Config.fromfile('configs/retinanet_regionvit_s_1x.py').model
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    cfg.backbone = dict(
        type=files.backbone.__name__, arch=files.arch, init_cfg=init_cfg, **files.options
    )
    cfg.neck.update(in_channels=files.arch['dims'], out_channels=8)
    cfg.bbox_head.update(num_classes=2, in_channels=8, feat_channels=8)
    with DefaultScope.overwrite_default_scope('mmdet'):
        from mmdet.registry import MODELS
        from mmdet.utils import register_all_modules

        register_all_modules(init_default_scope=False)
        model = MODELS.build(cfg)
        model.init_weights()
    return model


def test_in_a_detector(tmp_path):
    """Saved, and its backbone loaded again; all families in one, as mmdet takes long to import."""
    pytest.importorskip('mmdet')
    for files in FAMILIES.values():
        path, expected = tmp_path / 'published.pth', files.build(out_norm='output')
        torch.save(dict(model=files.state()), path)
        norms = {n: t for n, t in expected.state_dict().items() if n.startswith('out_norms.')}
        trained = detector(files, path)
        assert same(trained.backbone.state_dict(), {**files.ours(), **norms})
        torch.save(dict(state_dict=trained.state_dict(), meta={}), path)
        report = load_published(expected, path)
        assert same(expected.state_dict(), trained.backbone.state_dict())
        assert report.kind == 'mmvitbackbones' and not report.new
        others = [n for n in trained.state_dict() if not n.startswith('backbone.')]
        assert others and report.unused == others
        report = load_published(trained, path)
        assert report.kind == 'mmvitbackbones' and not report.new and not report.unused
    with pytest.raises(TypeError, match='RMT, ViL.*or a classifier, detector or .*, got Linear'):
        load_published(torch.nn.Linear(1, 1), path)


# Images of other channels.


@every_family
def test_weights_for_colours_are_summed_for_grey_images(files):
    """A grey image then gives what three equal channels give."""
    colour, grey = files.build().double(), files.build(in_channels=1).double()
    weights = {n: t.double() if t.is_floating_point() else t for n, t in files.state().items()}
    load_published(colour, weights)
    report = load_published(grey, weights)
    first = [n for n, t in colour.state_dict().items() if grey.state_dict()[n].shape != t.shape]
    assert first and sorted(report.summed) == sorted(first) and not report.resized
    assert 'summed over colours, for images of one channel: stem.' in str(report)
    x = image(64, 96)[:, :1].to(next(grey.parameters()))
    with torch.no_grad():
        for ours, theirs in zip(grey.eval()(x), colour.eval()(x.expand(-1, 3, -1, -1))):
            torch.testing.assert_close(ours, theirs)


@every_family
def test_weights_for_colours_are_for_no_other_channels(files):
    model = files.build(in_channels=4)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match='in_channels is 4: it is taken for 3, or for 1'):
        load_published(model, files.state())
    assert same(model.state_dict(), before)
