"""Faults in data are found before a training, and said in a line each."""

import contextlib
import io
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')

from data_faults import (
    FAULTS,
    MAKERS,
    PICTURE,
    TRAIN,
    change_annotation,
    classification,
    detection,
    segmentation,
)
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from pycocotools import mask as masks
from running_tools import own_instances, run, succeed

from mmvitbackbones.datasets.checking.annotations import look_at_mask
from mmvitbackbones.datasets.checking.images import decode
from mmvitbackbones.datasets.cores import on_all_cores
from mmvitbackbones.running import check_data
from mmvitbackbones.running.data_faults import find_faults

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


@pytest.fixture(scope='session')
def good(tmp_path_factory):
    """Makes each data set once; returns a copy and its config."""
    root = tmp_path_factory.mktemp('good')
    for config, make in MAKERS.items():
        make(root / config.__name__)

    def make_copy(config, folder):
        shutil.copytree(root / config.__name__, folder)
        return Config(config(folder))

    return make_copy


@pytest.fixture
def folder(tmp_path):
    return tmp_path / 'meine Daten'


def lines(cfg, full=False):
    return [str(finding) for finding in find_faults(cfg, LOADERS, full).findings]


@pytest.mark.parametrize('full', [False, True])
@pytest.mark.parametrize('config', MAKERS)
def test_nothing_is_said_about_good_data(config, full, good, folder):
    cfg = good(config, folder)
    report = find_faults(cfg, LOADERS, full)
    assert not report.findings
    assert report.images == (45 if MAKERS[config].__name__ == 'make_class_folders' else 9)


@pytest.mark.parametrize('fault', FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_said_in_a_line(fault, good, folder):
    cfg = good(fault.config, folder)
    fault.spoil(folder, cfg)
    try:
        check_data(cfg, *LOADERS)
        before_training = []
    except (ValueError, OSError) as error:
        before_training = str(error).splitlines()
    assert bool(before_training) == (fault.refused and not fault.full)
    found = before_training or lines(cfg, fault.full)
    matching = [line for line in found if re.search(fault.said, line)]
    assert len(matching) == 1, found
    said = matching[0]
    assert ': refused: ' in said or not fault.refused or 'Missing' in said, said
    # Nothing is made up about what is sound.
    assert len([line for line in found if line != said and not _is_advice(line)]) <= 1, found


def _is_advice(line):
    return re.match(r'tools/check_data\.py|Expected:|  |Put or link', line)


SKIPPED = [fault for fault in FAULTS if not fault.refused]


@pytest.mark.parametrize('fault', SKIPPED, ids=lambda fault: fault.name)
def test_what_is_not_refused_can_be_read(fault, good, folder):
    """By the toolboxes, all of it; and what they are said to skip they skip."""
    cfg = good(fault.config, folder)
    before = _read_all(cfg)
    fault.spoil(folder, cfg)
    after = _read_all(cfg)
    said = ' '.join(lines(cfg))
    if fault.config is detection and re.search('skipped|left out|not loaded|ignored', said):
        assert after <= before
        if 'small' not in said:  # that image has no objects
            assert after < before
    elif fault.config is detection and 'clipped' in said:
        assert after == before


def _read_all(cfg):
    """The number of objects that a data set to train on yields."""
    dataset = cfg.train_dataloader.dataset
    with own_instances(), contextlib.redirect_stdout(io.StringIO()):
        init_default_scope(cfg.default_scope)
        built = DATASETS.build(dataset.get('dataset') or dataset)
        samples = [sample['data_samples'] for sample in built]
    return sum(len(sample.gt_instances) for sample in samples if 'gt_instances' in sample)


def test_an_unannotated_set_may_be_predicted_for_a_server(good, folder):
    cfg = good(detection, folder)
    cfg.test_evaluator.format_only = True
    content = json.loads((folder / TRAIN).read_text())
    content['annotations'] = []
    (folder / 'test.json').write_text(json.dumps(content))
    cfg.test_dataloader.dataset.ann_file = cfg.test_evaluator.ann_file = str(folder / 'test.json')
    cfg.test_dataloader.dataset.data_prefix.img = 'train2017'
    assert not lines(cfg)
    cfg.test_evaluator.format_only = False
    cfg.test_evaluator.ann_file = str(folder / 'test.json')
    assert any('has no annotations' in line for line in lines(cfg))


@pytest.mark.parametrize('kind', ['LVISV1Dataset', 'CocoPanopticDataset'])
def test_files_of_other_forms_are_left_to_those_who_read_them(kind, good, folder):
    cfg = good(detection, folder)
    cfg.train_dataloader.dataset.dataset.type = kind
    (folder / TRAIN).write_text('{"images": [], "annotations": [{"segments_info": []}]}')
    assert not lines(cfg)


def _mixed(dataset):
    return dict(type='MultiImageMixDataset', dataset=dataset, pipeline=[dict(type='Mosaic')])


def _joined(dataset):
    return dict(type='ConcatDataset', datasets=[dataset, dict(dataset, test_mode=True)])


@pytest.mark.parametrize('wrap', [_mixed, _joined])
def test_data_inside_others_are_found(wrap, good, folder):
    cfg = good(detection, folder)
    cfg.train_dataloader.dataset = wrap(cfg.train_dataloader.dataset.dataset)
    assert not lines(cfg)
    (folder / 'train2017' / PICTURE).unlink()
    (line,) = lines(cfg)
    assert f'1 images are not in {folder}/train2017 ({PICTURE}): refused' in line


def test_semantic_maps_of_a_detector(good, folder):
    """As HTC reads those of COCO-stuff."""
    cfg = good(detection, folder)
    dataset = cfg.train_dataloader.dataset.dataset
    dataset.data_prefix.seg, dataset.pipeline[1].with_seg = 'maps', True
    for path in Path(folder, 'train2017').iterdir():
        values = np.zeros(Image.open(path).size[::-1], np.uint8)
        (folder / 'maps').mkdir(exist_ok=True)
        Image.fromarray(values + 182).save(folder / 'maps' / f'{path.stem}.png')
    assert not lines(cfg)
    cfg.model.roi_head.semantic_head.num_classes = 182
    assert any('6 maps have values beyond the 182 classes' in line for line in lines(cfg, True))
    (folder / 'maps' / 'Brücke im Grünen 1.png').unlink()
    assert any('1 images have no map in' in line for line in lines(cfg))


def test_several_faults_are_all_said(good, folder):
    cfg = good(detection, folder)
    change_annotation(folder, place=1, bbox=[1, 2, 3])
    change_annotation(folder, place=2, area=None)
    (folder / 'train2017' / PICTURE).unlink()
    with pytest.raises(ValueError) as caught:
        check_data(cfg, *LOADERS)
    *said, advice = str(caught.value).splitlines()
    assert len(said) == 3 and all(': refused: ' in line for line in said)
    assert advice.startswith('tools/check_data.py')


def test_what_is_skipped_is_said_before_a_training(good, folder, capsys):
    cfg = good(detection, folder)
    change_annotation(folder, bbox=[10, 10, 0, 20])
    check_data(cfg, 'train_dataloader')
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(': skipped as mmdetection does') and 'narrower or lower' in line


@pytest.mark.parametrize('value, fine', [(0, True), (1, True), (4, True), (5, False), (255, True)])
def test_labels_that_begin_with_one(value, fine, good, folder):
    """With reduce_zero_label, as ADE20K has it."""
    cfg = good(segmentation, folder)
    for part in (cfg.train_dataloader, cfg.val_dataloader):
        part.dataset.reduce_zero_label = True
    path = folder / 'masks/train/Brücke im Grünen 1.png'
    labels = np.asarray(Image.open(path)).copy()
    labels[0, 0] = value
    Image.fromarray(labels).save(path)
    said = [line for line in lines(cfg) if 'values beyond' in line]
    assert bool(said) != fine
    if said:
        assert '1.png: 5)' in said[0] and 'classes are 1 to 4, and 0 and 255' in said[0]


@pytest.mark.parametrize('seed', range(5))
def test_runs_of_a_compressed_mask(seed):
    rng = np.random.default_rng(seed)
    mask = np.asfortranarray(rng.random((37, 91)) < rng.random(), np.uint8)
    rle = masks.encode(mask)
    rle['counts'] = rle['counts'].decode()
    assert look_at_mask(rle) == ('rle', (37, 91))
    rle['size'] = [91, 38]
    assert look_at_mask(rle) == ('rle', None)
    rle['counts'] = rle['counts'][:-1] + 'é'
    assert look_at_mask(rle).kind == 'broken'


def test_many_images_are_decoded_by_several_processes(good, folder):
    good(detection, folder)
    paths = sorted((folder / 'train2017').iterdir())
    paths[3].write_bytes(paths[3].read_bytes()[:500])
    tasks = [(str(path), None) for path in paths for _ in range(20)]
    faults = list(on_all_cores(decode, tasks, 10))
    assert [fault is not None for fault in faults] == [n // 20 == 3 for n in range(120)]


def as_nobody(work):
    """Run something in a child process without the rights of root; return what it returns."""
    if os.name != 'posix':
        pytest.skip('permissions are those of POSIX')
    receiver, sender = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            said = work()
        except BaseException as error:
            said = [f'{type(error).__name__}: {error}']
        os.write(sender, json.dumps(said).encode())
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, 'rb') as pipe:
        said = json.loads(pipe.read())
    os.waitpid(child, 0)
    return said


@pytest.fixture
def open_folder():
    """A folder that other users reach, too, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        yield Path(place, 'data')


@pytest.mark.parametrize(
    'closed, said',
    [
        ('train2017', r'^PermissionError: .*/train2017/? may not be read: .*chmod'),
        (TRAIN, r'instances_train2017\.json: may not be read: refused: .*chmod'),
        ('annotations', r'^PermissionError: .*/annotations/.* may not be read: .*chmod'),
        (f'train2017/{PICTURE}', r'1 images may not be read \(.*1\.jpg\): refused: .*chmod'),
    ],
)
def test_what_may_not_be_read_is_not_called_missing(closed, said, good, open_folder):
    cfg = good(detection, open_folder)
    lines(cfg)  # the toolbox is imported
    os.chmod(open_folder / closed, 0)
    try:
        found = as_nobody(lambda: _refusal(cfg).splitlines())
    finally:
        os.chmod(open_folder / closed, 0o755)
    assert re.search(said, found[0]) and 'not there' not in str(found), found


def _refusal(cfg):
    try:
        check_data(cfg, *LOADERS)
    except (ValueError, OSError) as error:
        return f'{type(error).__name__}: {error}' if isinstance(error, OSError) else str(error)
    return 'nothing'


def write(cfg, path):
    cfg.work_dir = str(path.parent / 'work')
    cfg.dump(path)
    return path


def test_the_command_is_content_with_good_data(good, folder, tmp_path):
    path = write(good(detection, folder), tmp_path / 'mine.py')
    said = succeed('check_data', path)
    assert 'nothing wrong (9 images)' in said


def test_the_command_says_what_is_wrong(good, folder, tmp_path):
    cfg = good(detection, folder)
    raw = (folder / 'train2017' / PICTURE).read_bytes()
    (folder / 'train2017' / PICTURE).write_bytes(raw[: len(raw) // 2])
    change_annotation(folder, area=0)
    done = run('check_data', write(cfg, tmp_path / 'mine.py'))
    area, image, count = done.stdout.splitlines()
    assert done.returncode == 1
    assert '1 annotations have an area of 0' in area and 'skipped' in area
    assert f'1 images are cut short ({PICTURE}): refused' in image
    assert count == '2 kinds of faults, 1 of them refused (9 images)'


@pytest.mark.parametrize(
    'make, config',
    [
        (MAKERS[detection], 'maskrcnn_regionvit_s_1x'),
        (MAKERS[segmentation], 'semfpn_regionvit_s_80k'),
        (MAKERS[classification], 'cls_regionvit_s_in1k'),
    ],
)
def test_the_command_on_a_users_own_data(make, config, folder, tmp_path):
    make(folder)
    arguments = (config, '--data', folder, '--work-dir', tmp_path / 'work')
    assert 'nothing wrong (' in succeed('check_data', *arguments)
    picture = next(iter(sorted(folder.glob('**/*train*/**/*.jpg'))))
    picture.write_bytes(picture.read_bytes()[:300])
    done = run('check_data', *arguments)
    assert done.returncode == 1 and picture.name in done.stdout, done


def test_a_set_to_test_on_alone_is_checked_alone(folder, tmp_path):
    MAKERS[detection](folder)
    shutil.rmtree(folder / 'train2017')
    (folder / TRAIN).unlink()
    said = succeed(
        'check_data', 'maskrcnn_regionvit_s_1x', '--data', folder, '--work-dir', tmp_path / 'work'
    )
    assert 'nothing wrong (3 images)' in said
