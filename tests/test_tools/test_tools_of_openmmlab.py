"""What other toolboxes' own tools make of our configs."""

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from mmengine.registry import DefaultScope
from running_tools import ROOT

from mmvitbackbones.running import load_config, make_demo_data


def run_get_flops(toolbox, monkeypatch, capsys, *arguments):
    """Run a toolbox's own get_flops.py in this process; return what it printed."""
    file = Path(toolbox.__file__).parent / '.mim/tools/analysis_tools/get_flops.py'
    spec = spec_from_file_location('get_flops', file)
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(sys, 'argv', ['get_flops.py', *map(str, arguments)])
    monkeypatch.chdir(ROOT)
    tool.main()
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def scope():
    """Tools set a default scope for the whole process."""
    with DefaultScope.overwrite_default_scope('mmengine'):
        yield


def counted(printed):
    """Flops as printed, in thousand millions."""
    number, unit = re.search(r'Flops: ([\d.]+)\s?([MGT])', printed).groups()
    return float(number) * dict(M=1e-3, G=1, T=1e3)[unit]


def test_get_flops_of_mmpretrain(monkeypatch, capsys):
    """About the 2.4 thousand millions of the paper."""
    mmpretrain = pytest.importorskip('mmpretrain')
    config = 'configs/cls_regionvit_ti_in1k.py'
    assert 2.0 < counted(run_get_flops(mmpretrain, monkeypatch, capsys, config)) < 2.8


def test_get_flops_of_mmdet(monkeypatch, capsys, tmp_path):
    """On an image of the demo, as it loads one of the data set."""
    mmdet = pytest.importorskip('mmdet')
    monkeypatch.chdir(ROOT)
    name = 'retinanet_regionvit_s_1x'
    cfg = load_config(f'configs/{name}.py', demo=True)
    make_demo_data(cfg)
    cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.dump(tmp_path / f'{name}.py')
    found = run_get_flops(mmdet, monkeypatch, capsys, tmp_path / f'{name}.py', '--num-images', 1)
    # The backbone's share at 256 x 256 alone is 7 thousand millions.
    assert 7 < counted(found) < 25
