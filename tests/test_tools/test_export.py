"""``tools/export.py``, and what ``docs/deploy.md`` does with its files."""

import json
import re
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from narrow_configs import narrow_config
from running_tools import ROOT, load, own_instances, run, succeed

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')
pytest.importorskip('onnxruntime')

import onnxruntime
from mmdet.structures import DetDataSample
from mmseg.structures import SegDataSample

from mmvitbackbones.deploy import Normalisation, OutputModel
from mmvitbackbones.deploy.files import needs

PICTURE = ROOT / 'docs' / 'demo_1.jpg'
SIZE = 101, 160


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Makes a narrow config, a model and its checkpoint."""
    folder = tmp_path_factory.mktemp('trained')

    def make(name, **backbone):
        cfg = narrow_config(name)
        cfg.model.backbone.update(backbone)
        if 'data_preprocessor' in cfg:
            cfg.model.data_preprocessor = cfg.data_preprocessor
        cfg.dump(folder / f'{name}.py')
        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        model = MODELS.build(dict(cfg.model, train_cfg=None)).eval()
        path = folder / f'{name}.pth'
        torch.save(dict(state_dict=model.state_dict(), meta={}), path)
        return folder / f'{name}.py', path, model, cfg

    return make


@pytest.fixture(scope='module')
def classifier(trained, tmp_path_factory):
    """A file of a narrow classifier, what the tool said, and the model."""
    config, checkpoint, model, _ = trained('cls_regionvit_ti_in1k')
    file = tmp_path_factory.mktemp('classifier') / 'focal.onnx'  # as the page calls one
    said = succeed('export', config, checkpoint, '--out', file, '--picture', PICTURE)
    return file, said, model


def pixels_of(size):
    """The picture's pixels, BGR, (1, 3, H, W)."""
    pixels = cv2.resize(cv2.imread(str(PICTURE)), size[::-1])
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].float()


def run_page(number, folder, monkeypatch):
    """Run a block of docs/deploy.md."""
    text = (ROOT / 'docs' / 'deploy.md').read_text()
    blocks = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    monkeypatch.chdir(folder)
    names = {'__name__': 'page'}
    with own_instances():
        exec(blocks[number], names)
    return names


def test_classifier(classifier):
    """Logits of the config's size; the file says how images are prepared."""
    file, said, model = classifier
    session = onnxruntime.InferenceSession(str(file))
    about = session.get_modelmeta().custom_metadata_map
    assert about['kind'] == 'classifier' and len(json.loads(about['classes'])) == 1000
    assert f'{file}: ' in said and '(any number, 3, 224, 224)' in said
    lines = re.findall(r'^(\w+), (\d) x 224 x 224 +(\S+) +\S+ s +\S+ s$', said, re.MULTILINE)
    assert [line[:2] for line in lines] == [('random', '1'), ('random', '2'), ('picture', '1')]
    assert max(float(line[2]) for line in lines) < 1e-4
    pixels = pixels_of((224, 224))
    with torch.no_grad():
        sample = model.test_step(dict(inputs=[*pixels.byte()], data_samples=None))[0]
    mean, std = (torch.tensor(json.loads(about[key])).view(3, 1, 1) for key in ('mean', 'std'))
    assert about['channels'] == 'RGB'
    (logits,) = session.run(None, {'images': ((pixels.flip(1) - mean) / std).numpy()})
    torch.testing.assert_close(
        torch.from_numpy(logits).softmax(1)[0], sample.pred_score, atol=1e-5, rtol=1e-4
    )


def test_the_page_runs_a_classifier(classifier, monkeypatch):
    file = classifier[0]
    (file.parent / 'docs').symlink_to(ROOT / 'docs')
    names = run_page(0, file.parent, monkeypatch)
    assert names['logits'].shape == (1, 1000) and 0 <= names['best'] < 1000


def test_segmenter_takes_pixels(trained, tmp_path):
    """Its logits are resized to the image, of an odd size; the file normalises pixels itself."""
    config, checkpoint, model, cfg = trained('semfpn_rmt_t_80k')
    file = tmp_path / 'segmenter.pt2'
    said = succeed('export', config, checkpoint, '--out', file, '--size', *SIZE, '--normalise')
    assert 'pixels of 0 to 255, BGR' in said
    extra = {'metadata.json': ''}
    module = torch.export.load(file, extra_files=extra).module()
    about = json.loads(extra['metadata.json'])
    assert json.loads(about['mean']) == [0, 0, 0] and about['channels'] == 'BGR'
    assert about['outputs'] == ['logits'] and len(json.loads(about['classes'])) == 150
    pixels = pixels_of(SIZE)
    model.data_preprocessor.size = model.data_preprocessor.size_divisor = None
    model.data_preprocessor.test_cfg = None
    sample = SegDataSample(metainfo=dict(img_shape=SIZE, ori_shape=SIZE))
    with torch.no_grad():
        (logits,) = module(pixels)
        (found,) = model.test_step(dict(inputs=[*pixels.byte()], data_samples=[sample]))
    torch.testing.assert_close(logits[0], found.seg_logits.data, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    'name', ['maskrcnn_rmt_t_1x', pytest.param('retinanet_rmt_t_1x', marks=pytest.mark.sweep)]
)
def test_detections_from_raw_outputs(name, trained, tmp_path):
    """The model's heads decode the file's outputs as they decode their own."""
    config, checkpoint, model, cfg = trained(name)
    file = tmp_path / 'detector.onnx'
    said = succeed('export', config, checkpoint, '--out', file, '--size', *SIZE)
    assert 'these are raw outputs' in said
    session = onnxruntime.InferenceSession(str(file))
    images = Normalisation.of(cfg)(pixels_of(SIZE))
    outputs = session.run(None, {'images': images.numpy()})
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, map(torch.from_numpy, outputs), strict=True))

    def levels(output):
        return [outputs.pop(f'{output}_{level}') for level in range(5)]

    size = dict(img_shape=SIZE, ori_shape=SIZE, scale_factor=(1.0, 1.0))
    samples = [DetDataSample(metainfo=size) for _ in range(2)]
    for part in (model.test_cfg, model.test_cfg.get('rcnn') or {}):
        part['score_thr'] = 0.0
    with torch.no_grad():
        if name.startswith('retinanet'):
            raw = levels('cls_score'), levels('bbox_pred')
            (found,) = model.bbox_head.predict_by_feat(*raw, batch_img_metas=[size], rescale=True)
        else:
            raw = levels('rpn_cls_score'), levels('rpn_bbox_pred')
            proposals = model.rpn_head.predict_by_feat(*raw, batch_img_metas=[size], rescale=False)
            (found,) = model.roi_head.predict(levels('map'), proposals, samples[:1], rescale=True)
        expected = model.predict(images, samples[1:], rescale=True)[0].pred_instances
    assert not outputs and len(found) == len(expected) > 0
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        found.bboxes.sort(0)[0], expected.bboxes.sort(0)[0], atol=0.1, rtol=0
    )


@pytest.mark.sweep
def test_the_page_decodes_a_detector(tmp_path, monkeypatch):
    file = tmp_path / 'maskrcnn.onnx'
    succeed('export', 'maskrcnn_regionvit_s_1x', '--out', file, '--size', 256, 320)
    names = run_page(1, tmp_path, monkeypatch)
    assert names['found'].masks.shape[1:] == (256, 320)


@pytest.mark.sweep
def test_the_page_quantises_digits(tmp_path, monkeypatch):
    """What int8 costs: no more than two of a hundred digits."""
    trained = tmp_path / 'trained'
    succeed(
        *('train', 'demo_cls_regionvit', '--demo', '--work-dir', trained),
        options=['demo.max_iters=200'],
    )
    config, checkpoint = trained / 'demo_cls_regionvit.py', trained / 'iter_200.pth'
    file = tmp_path / 'digits.onnx'
    succeed('export', config, checkpoint, '--out', file, '--size', 64, 64)
    (tmp_path / 'data').symlink_to(ROOT / 'data')
    names = run_page(2, tmp_path, monkeypatch)
    paths = sorted(Path('data/demo_digits/validation').glob('*/*.png'))
    images = np.concatenate(
        [batch['images'] for batch in iter(names['Pictures'](paths).get_next, None)]
    )
    labels = np.array([int(path.parent.name[0]) for path in paths])
    right = {}
    for name in ('digits.onnx', 'digits_int8.onnx'):
        session = onnxruntime.InferenceSession(name)
        right[name] = (session.run(None, {'images': images})[0].argmax(1) == labels).mean()
    assert right['digits.onnx'] > 0.9 and right['digits_int8.onnx'] > right['digits.onnx'] - 0.02
    assert Path('digits_int8.onnx').stat().st_size < file.stat().st_size / 3


@pytest.mark.sweep
@pytest.mark.parametrize(
    'name, ending',
    [
        ('retinanet_vil_s_1x', 'onnx'),
        ('maskrcnn_focal_t_1x', 'pt2'),
        ('semfpn_rmt_s_80k', 'onnx'),
        ('upernet_regionvit_s_160k', 'onnx'),
        ('cls_regionvit_ti_in1k', 'onnx'),
    ],
)
def test_whole_models_take_all_sizes(name, ending, trained, tmp_path):
    config, checkpoint, _, _ = trained(name)
    options = ('--out', tmp_path / f'model.{ending}', '--dynamic', '--normalise')
    said = succeed('export', config, checkpoint, *options)
    assert 'any sides that 32 divides, 256 to 2048' in said


@pytest.mark.sweep
@pytest.mark.parametrize(
    'name, first, last',
    [
        ('htc_rmt_s_1x', 'map_0', 'rpn_bbox_pred_4'),
        ('cascade_maskrcnn_vil_s_3x', 'map_0', 'rpn_bbox_pred_4'),
        ('atss_focal_t_3x', 'cls_score_0', 'centerness_4'),
        ('sparsercnn_focal_t_3x', 'map_0', 'map_3'),
    ],
)
def test_other_heads_in_float16(name, first, last, trained, tmp_path):
    config, checkpoint, _, _ = trained(name)
    options = ('--out', tmp_path / 'model.onnx', '--size', 160, 192, '--half')
    said = succeed('export', config, checkpoint, *options)
    assert re.search(rf'^out: {first}, .*{last}: ', said, re.MULTILINE)


def test_grey_images(trained, tmp_path):
    """The config has to say how they are normalised."""
    config, checkpoint, _, _ = trained('cls_regionvit_ti_in1k', in_channels=1)
    options = ('--out', tmp_path / 'grey.pt2', '--size', 64, 96)
    done = run('export', config, checkpoint, *options)
    assert done.returncode == 2
    assert 'data_preprocessor.mean has 3 values, the backbone has in_channels=1' in done.stderr
    grey = 'model.data_preprocessor.mean=[116.3]', 'model.data_preprocessor.std=[57.1]'
    said = succeed('export', config, checkpoint, *options, options=grey)
    assert '(any number, 1, 64, 96)' in said


def test_the_sizes_that_configs_say(trained):
    """mmcv's crops are (width, height); a segmenter that slides sees crops."""
    export, args = load('export'), Namespace(size=None, dynamic=False)
    cfg = trained('cls_regionvit_ti_in1k')[3]
    assert export.chosen_size(args, cfg, 'classifier') == (224, 224)
    cfg.test_dataloader.dataset.pipeline[2].crop_size = (320, 128)
    assert export.chosen_size(args, cfg, 'classifier') == (128, 320)
    cfg = trained('semfpn_rmt_t_80k')[3]
    assert export.chosen_size(args, cfg, 'segmenter') is None
    cfg.model.test_cfg = dict(mode='slide', crop_size=(64, 96), stride=(32, 32))
    assert export.chosen_size(args, cfg, 'segmenter') == (64, 96)


def test_a_file_that_is_wrong_ends_in_an_error(trained, tmp_path):
    """Here of numbers that float16 does not reach."""
    config, checkpoint, model, _ = trained('cls_regionvit_ti_in1k')
    weights = model.state_dict()
    weights['neck.norm.weight'] *= 1e6
    torch.save(dict(state_dict=weights, meta={}), tmp_path / 'large.pth')
    file = tmp_path / 'half.pt2'
    options = ('--size', 64, 64, '--out', file, '--half')
    done = run('export', config, tmp_path / 'large.pth', *options)
    assert done.returncode == 1 and 'gave something else than the model' in done.stderr
    assert not file.exists()


@pytest.mark.parametrize(
    'arguments, words',
    [
        (('--out', 'x.txt'), ['--out', '.onnx or .pt2', 'x.txt']),
        (('--out', 'x.onnx', '--format', 'pt2'), ['--out', '.pt2', 'x.onnx']),
        (('--out', ROOT / 'README.md'), ['--out', 'README.md']),
        (('--out', 'x.onnx', '--size', '16', '64'), ['--size', 'at least 32']),
        (('--out', 'x.onnx', '--opset', '17'), ['--opset', '18']),
        (('--out', 'x.onnx', '--picture', 'absent.jpg'), ['absent.jpg']),
        (('absent.pth', '--out', 'x.onnx'), ['absent.pth']),
    ],
    ids=str,
)
def test_bad_arguments(arguments, words):
    done = run('export', 'cls_regionvit_ti_in1k', *arguments)
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr
    assert not (ROOT / 'x.onnx').exists()


def test_a_file_is_not_overwritten(tmp_path):
    (tmp_path / 'x.onnx').write_text('mine')
    done = run('export', 'cls_regionvit_ti_in1k', '--out', tmp_path / 'x.onnx')
    assert done.returncode == 2 and 'is there already' in done.stderr
    assert (tmp_path / 'x.onnx').read_text() == 'mine'


@pytest.mark.parametrize(
    'name, options, words',
    [
        ('dyhead_focal_l_2x', (), ['ModulatedDeformConv2d']),
        (
            'maskrcnn_regionvit_s_1x',
            ('--cfg-options', 'model.backbone.regional_padding=published'),
            ["regional_padding='published'", '--size'],
        ),
    ],
)
def test_what_cannot_be_exported(name, options, words, trained, tmp_path):
    config = trained(name)[0]
    done = run('export', config, '--out', tmp_path / 'x.onnx', *options)
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr
    assert not (tmp_path / 'x.onnx').exists()


def test_other_backbones_are_refused(tmp_path):
    config = tmp_path / 'resnet.py'
    config.write_text("_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'\n")
    options = ['model.backbone.init_cfg=None']
    done = run('export', config, '--out', tmp_path / 'x.onnx', options=options)
    assert done.returncode == 2 and 'ResNet' in done.stderr


def test_a_package_that_is_missing_is_named():
    with pytest.raises(ImportError, match=r'ONNX needs no_such_package: pip install'):
        needs('no_such_package')


def test_what_is_exported_of_a_backbone_alone():
    """Its maps, under names."""
    backbone = MODELS.build(dict(type='RMT', arch='tiny', out_indices=[1, 3]))
    with torch.no_grad():
        assert [*OutputModel(backbone).named(torch.zeros(1, 3, 64, 64))] == ['map_0', 'map_1']
