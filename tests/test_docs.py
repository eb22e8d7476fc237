"""What README and docs/ tell a reader to do can be done."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import golden_cases
import pytest
import running_tools
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS, init_default_scope

from mmvitbackbones import RegionViT
from mmvitbackbones.running import load_config

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (
        ROOT / 'README.md',
        ROOT / 'CONTRIBUTING.md',
        *sorted((ROOT / 'docs').glob('*.md')),
    )
}
# Commands that no test runs, by how they begin.
NOT_RUN = {
    'pip install': 'test_wheel installs the package; the versions come from the network',
    'MMCV_WITH_OPS=1': 'compiles mmcv for minutes',
    'FORCE_CUDA=1': 'compiles mmcv for a GPU',
    'rm -f .venv/setup.stamp': 'makes the set-up run again',
    '.venv/bin/python tools/test.py work_dirs/': 'test_own_data runs it, on what it has trained',
    '.venv/bin/python tools/export.py work_dirs/': 'test_export runs it, on what it has made',
    'OMP_NUM_THREADS=1 .venv/bin/torchrun': 'test_demo_tool runs two processes',
    'TOOLS=': 'names a folder of the environment',
    '.venv/bin/python $TOOLS/': 'tools of OpenMMLab, whose options are theirs',
    'tools/dist_': 'needs several GPUs; test_bad_input reads the scripts',
    'tools/slurm_': 'needs a cluster',
}


def blocks(kind):
    """Python blocks of all pages with the text before them: those of configs, or the others."""
    for page, text in PAGES.items():
        for number, match in enumerate(re.finditer(r'```python\n(.*?)```', text, re.DOTALL), 1):
            is_config = re.match('custom_|_base_', match[1]) is not None
            if is_config == (kind == 'config'):
                before = text[: match.start()]
                yield pytest.param(before, match[1], id=f'{page} {number}')


def commands():
    """Indented lines, without their comments."""
    for page, text in PAGES.items():
        text = re.sub(r'```.*?```', '', text, flags=re.DOTALL)
        for match in re.finditer(r'^    (?![ *-])(.+)$', text, re.MULTILINE):
            yield pytest.param(match[1].split('  #')[0].strip(), id=f'{page}: {match[1][:60]}')


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(page):
    text = PAGES[page]
    for target in re.findall(r'\]\((?!https?://)([^)]+)\)', text):
        path, _, anchor = target.partition('#')
        file = (ROOT / page).parent / path
        assert file.exists(), target
        if anchor:
            headings = re.findall(r'^#+ (.+)$', file.read_text(), re.MULTILINE)
            assert anchor in [heading.lower().replace(' ', '-') for heading in headings], target


def test_every_page_is_in_the_index():
    index = PAGES['docs/README.md']
    assert {p for p in PAGES if p.startswith('docs/') and f'({Path(p).name})' not in index} == {
        'docs/README.md'
    }


def test_readme_is_short():
    assert len(PAGES['README.md']) <= 6000


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A checkout with the files that pages name, made here."""
    for name in ('configs', 'docs'):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'checkpoints').mkdir()
    return tmp_path


@pytest.mark.parametrize('before, text', [*blocks('python')])
def test_python(folder, before, text):
    if 'onnxruntime' in text:
        return  # test_export runs it, on a file that it has exported
    for package in ('timm', 'segmentation_models_pytorch', 'transformers'):
        if re.search(rf'^(import|from) {package}\b', text, re.MULTILINE):
            pytest.importorskip(package)
    if 'RegionViT-Ti.pth' in text:
        case = golden_cases.GoldenCase('regionvit_tiny_cls')
        torch.save(dict(model=case.weights()), 'checkpoints/RegionViT-Ti.pth')
    if 'MaskRCNN_1x_RegionViT-S.pth' in text:
        case = golden_cases.GoldenCase('det_maskrcnn_regionvit_small_exact')
        torch.save(dict(model=case.weights()), 'checkpoints/MaskRCNN_1x_RegionViT-S.pth')
    elif 'RegionViT-S.pth' in text:
        torch.save(RegionViT('small').state_dict(), 'checkpoints/RegionViT-S.pth')
    if 'focal-tiny' in text:
        case = golden_cases.GoldenCase('focal_tiny_cls')
        torch.save(dict(model=case.weights()), 'checkpoints/focal-tiny-is224-ws7.pth')
    try:
        with running_tools.own_instances():
            exec(text, {'__name__': 'page'})
    finally:
        MODELS.module_dict.pop('MyRMT', None)


@pytest.mark.parametrize('before, text', [*blocks('config')])
def test_config(folder, before, text):
    """Below the _base_ that the page names; the model takes an image."""
    bases = re.findall(r"'(mm(?:det|seg)::[^']+)'", before)
    if not text.startswith('_base_'):
        base = bases[-1] if bases else 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
        text = f'_base_ = {base!r}\n{text}'
    Path('mine.py').write_text(text)
    cfg = Config.fromfile('mine.py')
    for hook in cfg.get('custom_hooks', []):
        HOOKS.build(hook)
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
        channels = getattr(model.backbone, 'in_channels', 3)
        maps = model.extract_feat(torch.empty(1, channels, 64, 96))
    assert all(m.shape[0] == 1 for m in maps)


@pytest.mark.parametrize('command', [*commands()])
def test_command(command, monkeypatch):
    """Its target is there, its options are known and fit its config."""
    if any(command.startswith(start) for start in NOT_RUN):
        return
    words = shlex.split(command)
    if words[0] == 'make':
        done = subprocess.run(['make', '-n', *words[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return
    assert words[0] == '.venv/bin/python' and words[1].startswith('tools/'), command
    tool = running_tools.load(Path(words[1]).stem)
    monkeypatch.setattr(sys, 'argv', words[1:])
    monkeypatch.chdir(ROOT)
    args = tool.parse_args()
    if getattr(args, 'config', None) and args.config.endswith('.py'):
        load_config(args.config, cfg_options=args.cfg_options)
