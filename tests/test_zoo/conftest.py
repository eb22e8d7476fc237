import copy

import pytest
import yaml

PAPERS = {
    'Some Net': {
        'title': 'Some: Net',
        'url': 'https://example.org/some',
        'year': 2021,
        'backbone': 'RegionViT',
        'note': 'Published\nwith its code.',
        'conventions': {
            'maskrcnn': {'products': True, 'boxes': 1000, 'masks': 100},
            'retinanet': {'products': False},
            'semfpn': {'products': False, 'classifier': True},
        },
    },
}
COUNTS = {'params': 50.093, 'gmacs': 171.04}
ROWS = {
    'maskrcnn_some_s_1x': {
        'paper': 'Some Net',
        'where': 'Table 5',
        'row': 'Some-S',
        'size': [672, 1120],
        'trained': 'MaskRCNN_1x_RegionViT-S.pth',
        'start': 'RegionViT-S.pth',
        'published': {'params': 50.1, 'gmacs': 171, 'box AP': 42.5, 'mask AP': 39.5},
        'ours': COUNTS,
    },
    'semfpn_some_s_80k': {
        'paper': 'Some Net',
        'where': 'Table 6',
        'row': 'Some-S',
        'size': [512, 512],
        'start': 'RegionViT-S.pth',
        'published': {'mIoU': 45.3, 'mIoU (multi-scale)': 46.2},
        'ours': COUNTS,
        'note': 'Table 7 says\n45.4',
        'unfit': '9 % more in\nTable 6',
    },
    'retinanet_some_s_1x': {
        'paper': 'Some Net',
        'where': None,
        'size': [800, 1344],
        'start': 'mine.pth',
        'ours': COUNTS,
    },
}


@pytest.fixture
def entries():
    """The content of a small data file, to be changed freely."""
    return copy.deepcopy({'papers': PAPERS, 'rows': ROWS})


@pytest.fixture
def write(tmp_path):
    """Write the content as a repository's data file, beside a config for each of ROWS."""

    def write_entries(entries):
        folder = tmp_path / 'configs'
        folder.mkdir(exist_ok=True)
        for name in [*ROWS, 'demo_some']:
            (folder / f'{name}.py').touch()
        file = folder / 'model_zoo.yml'
        file.write_text(entries if isinstance(entries, str) else yaml.safe_dump(entries))
        return file

    return write_entries
