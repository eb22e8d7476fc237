"""What the tools say, before anything starts, about what cannot work."""

import os
import sys

import golden_cases
import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')

from mmengine.config import Config
from running_tools import ROOT, load, own_instances

from mmvitbackbones.running import check_data

MASKRCNN = 'configs/maskrcnn_regionvit_s_1x.py'
UPERNET = 'configs/upernet_focal_t_160k.py'
CLASSIFIER = 'configs/cls_vil_t_in1k.py'
IN21K = 'configs/cls_regionvit_b_in21k.py'
FINETUNED = 'configs/cls_regionvit_b_384_in1k.py'
WEIGHTS = ('--demo', '--cfg-options', 'model.backbone.init_cfg.checkpoint=absent.pth')


@pytest.fixture
def tool(monkeypatch, capsys, tmp_path):
    """Run a tool's main() in an empty folder; returns its exit code and message."""

    def run(name, *arguments):
        main = load(name).main
        arguments = [str(ROOT / a) if str(a).startswith('configs/') else str(a) for a in arguments]
        monkeypatch.setattr(sys, 'argv', [f'{name}.py', *arguments])
        monkeypatch.chdir(tmp_path)
        with own_instances(), pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    'arguments, words',
    [
        (('train', 'configs/none.py'), ['no config', 'none.py']),
        (('train', MASKRCNN), ['data/coco/annotations/instances_train2017.json', '--demo']),
        (('train', MASKRCNN), ['val2017/*.jpg', '--data-root']),
        (('train', UPERNET), ['ADE20K is', 'data/ade/ADEChallengeData2016/images/training']),
        (('train', UPERNET), ['annotations/validation/*.png', '--data-root', '--demo']),
        (('train', MASKRCNN, *WEIGHTS), ['absent.pth', 'model.backbone.init_cfg', 'IBM/RegionViT']),
        (('train', UPERNET, *WEIGHTS), ['absent.pth', 'microsoft/Focal-Transformer']),
        (('train', MASKRCNN, '--data-root', 'elsewhere'), ['elsewhere/train2017']),
        (('train', UPERNET, '--data-root', 'elsewhere'), ['elsewhere/annotations/training']),
        (('train', MASKRCNN, '--data-root', 'x', '--demo'), ['--data-root']),
        (('train', MASKRCNN, '--demo', '--resume', 'none.pth'), ["no checkpoint 'none.pth'"]),
        (('test', MASKRCNN, 'none.pth', '--demo'), ["no checkpoint 'none.pth'"]),
        (('test', MASKRCNN, 'none.pth', '--demo', '--out', 'a.json'), ['--out', '.pkl']),
        (
            ('train', CLASSIFIER),
            ['ImageNet-1K is', 'data/imagenet/train', 'meta/val.txt', '--demo'],
        ),
        (('train', CLASSIFIER, '--data-root', 'x'), ['Missing or empty: x/train']),
        (('train', IN21K), ['ImageNet-21K is', 'data/imagenet21k/train', 'meta/train.txt']),
        (
            ('train', FINETUNED, '--demo', '--cfg-options', 'load_from=a.pth'),
            ["'a.pth'", 'load_from='],
        ),
        (
            ('train', CLASSIFIER, '--demo', '--cfg-options', 'model.pretrained=a.pth'),
            ["'a.pth' by load_from"],
        ),
    ],
)
def test_plain_message(tool, arguments, words):
    code, message = tool(*arguments)
    assert code == 2
    for word in words:
        assert word in message


class RunsCode:
    """Makes a file when it is unpickled without care."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize(
    'arguments',
    [
        ('train', MASKRCNN, '--demo', '--cfg-options', 'load_from=BOMB'),
        ('train', MASKRCNN, '--demo', '--cfg-options', 'model.backbone.init_cfg.checkpoint=BOMB'),
        ('train', MASKRCNN, '--demo', '--resume', 'BOMB'),
        ('test', MASKRCNN, 'BOMB', '--demo'),
        ('predict', 'BOMB', 'docs/demo_1.jpg', '--out', 'predictions'),
        ('export', MASKRCNN, 'BOMB', '--out', 'detector.onnx'),
        ('visualize', 'docs/demo_1.jpg', 'BOMB', '--out', 'seen'),
    ],
    ids=lambda arguments: ' '.join(arguments),
)
def test_no_tool_runs_what_a_checkpoint_says(tool, tmp_path, arguments):
    """With either stack's mmengine: OneDL's runs the code in what it cannot read safely."""
    bomb, ran = tmp_path / 'bomb.pth', tmp_path / 'ran'
    torch.save(dict(state_dict=dict(x=RunsCode(ran)), meta=dict(epoch=1, iter=1)), bomb)
    arguments = [argument.replace('BOMB', str(bomb)) for argument in arguments]
    arguments = [str(ROOT / a) if a.startswith('docs/') else a for a in arguments]
    code, message = tool(*arguments)
    assert code == 2 and 'could run code' in message and not ran.exists()
    torch.load(bomb, weights_only=False)
    assert ran.exists()  # what would have happened


@pytest.mark.parametrize(
    'text, arguments, words',
    [
        ('', ('--data-root', 'x'), ['--data-root needs a config with a data_root', 'mine.py']),
        ("default_scope = 'mmpose'", ('--demo',), ['--demo runs configs of mmdet', "'mmpose'"]),
    ],
)
def test_configs_of_ones_own_that_lack_something(tool, tmp_path, text, arguments, words):
    (tmp_path / 'mine.py').write_text(text)
    code, message = tool('train', tmp_path / 'mine.py', *arguments)
    assert code == 2
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    'config, missing',
    [
        (MASKRCNN, 'data/coco/val2017'),
        (UPERNET, 'data/ade/ADEChallengeData2016/annotations/validation'),
        (CLASSIFIER, 'data/imagenet/val'),
        (IN21K, 'data/imagenet21k/val'),
    ],
)
def test_no_data_to_evaluate_on(tool, config, missing, tmp_path):
    path = tmp_path / 'any.pth'
    torch.save({'state_dict': {'a': torch.zeros(1)}}, path)
    code, message = tool('test', config, path)
    assert code == 2 and missing in message and 'Expected' in message and '--demo' in message


def test_images_without_classes(tool, tmp_path):
    """As ImageNet's validation images come out of their archive."""
    for k in range(1000):
        (tmp_path / 'train' / f'n{k:08d}').mkdir(parents=True)
    (tmp_path / 'val').mkdir()
    (tmp_path / 'val' / 'ILSVRC2012_val_00000001.JPEG').touch()
    code, message = tool('train', CLASSIFIER, '--data-root', tmp_path)
    assert code == 2 and f'{tmp_path}/val holds 0 folders of classes' in message
    assert 'meta/val.txt' in message and 'Expected' in message
    options = ['train_dataloader.dataset.data_prefix=val', 'val_dataloader.dataset.classes=[a]']
    code, message = tool('train', CLASSIFIER, '--data-root', tmp_path, '--cfg-options', *options)
    assert code == 2 and f'{tmp_path}/val holds 0' in message


def test_a_class_that_was_not_kept_back(tool, tmp_path):
    for name in ('a', 'b'):
        (tmp_path / 'val' / name).mkdir(parents=True)
    file = tmp_path / 'any.pth'
    torch.save({'state_dict': {'a': torch.zeros(1)}}, file)
    code, message = tool('test', IN21K, file, '--data-root', tmp_path)
    assert code == 2 and f'{tmp_path}/val holds 2 folders of classes instead of 21841' in message


@pytest.mark.parametrize('prefix', ['', {}])
def test_data_need_no_prefix(prefix, tmp_path):
    dataset = dict(type='CustomDataset', data_root=str(tmp_path), data_prefix=prefix)
    check_data(Config(dict(train_dataloader=dict(dataset=dataset))), 'train_dataloader')


def test_data_of_an_unknown_layout():
    dataset = dict(type='VOCDataset', data_root='absent', data_prefix=dict(sub_data_root='2007/'))
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    with pytest.raises(FileNotFoundError) as caught:
        check_data(cfg, 'train_dataloader')
    message = str(caught.value)
    assert 'data of VOCDataset is not there. Missing or empty: absent/2007/.' in message
    assert 'Expected' not in message


def test_empty_folders_are_no_data(tool, tmp_path):
    """As an interrupted unpacking leaves them."""
    for kind in ('images', 'annotations'):
        for split in ('training', 'validation'):
            (tmp_path / kind / split).mkdir(parents=True)
    code, message = tool('train', UPERNET, '--data-root', tmp_path)
    assert code == 2 and 'images/training' in message and 'Expected' in message


@pytest.mark.skipif(torch.cuda.is_available(), reason='float16 works on a GPU')
def test_float16_without_a_gpu(tool):
    code, message = tool('train', MASKRCNN, '--demo', '--amp', 'float16')
    assert code == 2 and '--amp float16 needs a GPU: take --amp bfloat16' in message


def test_damaged_checkpoint(tool, tmp_path):
    path = tmp_path / 'cut.pth'
    torch.save({'state_dict': {'a': torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:900])
    code, message = tool('test', MASKRCNN, path, '--demo')
    assert code == 2 and 'cut.pth' in message and 'cut short' in message


@pytest.mark.skipif(torch.cuda.is_available(), reason='launchers work with GPUs')
@pytest.mark.parametrize(
    'launcher, problem',
    [
        ('slurm', '--launcher slurm needs GPUs: on CPUs take pytorch'),
        ('pytorch', '--launcher on a CPU needs torchrun, which sets RANK, WORLD_SIZE, MASTER_ADDR'),
    ],
)
def test_launcher_without_a_gpu(tool, monkeypatch, launcher, problem):
    """The rank that old launchers give as an option is where mmengine looks for it."""
    monkeypatch.setenv('LOCAL_RANK', 'restored afterwards')
    monkeypatch.delenv('LOCAL_RANK')
    launched = ('--launcher', launcher, '--local-rank', '1')
    code, message = tool('train', MASKRCNN, '--demo', *launched)
    assert code == 2 and problem in message
    assert os.environ['LOCAL_RANK'] == '1'


@pytest.mark.parametrize(
    'keys, words',
    [
        ('regionvit_tiny_cls', ['another arch', '64, 128, 256, 512', '96, 192, 384, 768']),
        (None, ['neither published RegionViT weights nor our own']),
    ],
)
def test_weights_of_another_arch_or_family(tool, tmp_path, keys, words):
    shapes = golden_cases.GoldenCase(keys).keys if keys else {'patch_embed.norm.weight': [[9], '']}
    path = tmp_path / 'published.pth'
    torch.save({'model': {name: torch.zeros(shape) for name, (shape, _) in shapes.items()}}, path)
    option = f'model.backbone.init_cfg.checkpoint={path}'
    code, message = tool('train', MASKRCNN, '--demo', '--cfg-options', option)
    assert code == 2 and 'published.pth' in message
    for word in words:
        assert word in message


def test_weights_to_start_from_that_do_not_fit(tool, tmp_path):
    path = tmp_path / 'other.pth'
    torch.save({'state_dict': {'stem.weight': torch.zeros(1)}}, path)
    code, message = tool('train', MASKRCNN, '--demo', '--cfg-options', f'load_from={path}')
    assert code == 2 and 'other.pth' in message and 'init_cfg' in message


@pytest.mark.parametrize(
    'option, words',
    [
        ('model.backbone.arch=huge', ['arch', "'tiny'", 'huge']),
        ('model.backbone.window_size=[7,7,7,14]', ['window_size', 'halve together']),
        ('model.backbone.windows=7', ['windows']),
        ('demo.iterations=5', ['demo', 'max_iters']),
        ('demo=5', ['demo', 'max_iters']),
        ('demo.max_iters=0', ['demo.max_iters', 'at least 1']),
        ('demo.size=16', ['demo.size', 'at least 32']),
    ],
)
def test_options_that_do_not_fit(tool, option, words):
    """Found when the model is built, before the data set is read."""
    arguments = ['train', MASKRCNN, '--demo', '--cfg-options', option]
    code, message = tool(*arguments)
    assert code == 2
    for word in words:
        assert word in message
