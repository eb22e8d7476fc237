import re
import runpy
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RELEASE = 'https://github.com/IBM/RegionViT/releases/download/weights-v0.1'
MAIN = runpy.run_path(str(ROOT / 'tools' / 'make_model_zoo.py'))['main']


def run(*args):
    MAIN(list(map(str, args)))


@pytest.fixture
def root(entries, write):
    """A small repository for which the tool has run."""
    root = write(entries).parents[1]
    run('--root', root)
    return root


def test_page_and_metafiles_of_this_repository_are_up_to_date():
    run('--check')


def test_page(root):
    page = (root / 'docs' / 'model_zoo.md').read_text()
    head, section = page.split('## Some Net\n')
    assert 'Nobody has measured ours on ImageNet, COCO or ADE20K.' in head
    lines = section.splitlines()
    assert lines[1].startswith('[Some: Net](https://example.org/some), 2021; `type=')
    assert 'Weights: [the authors](https://github.com/IBM/RegionViT); no trouble' in lines[1]
    assert 'Published with its code.' in lines
    assert '- Mask R-CNN: attention products counted, 1000 box and 100 mask regions.' in lines
    assert (
        '- Semantic FPN: attention products left out, '
        "parameters with the backbone's unused ImageNet classifier."
    ) in lines

    def table(kind):
        start = lines.index(f'### Some Net: {kind}') + 2
        return lines[start], lines[start + 2]

    names, row = table('instance segmentation')
    assert re.findall('[^|]*AP[^|]*', names) == [' box AP (published) ', ' mask AP (published) ']
    assert row == (
        '| [`maskrcnn_some_s_1x`](../configs/maskrcnn_some_s_1x.py) | Table 5, Some-S '
        '| 42.5 | 39.5 | 50.1 | 50.09 | 171 | 171.0 | 672 x 1120 '
        f'| [MaskRCNN_1x_RegionViT-S.pth]({RELEASE}/MaskRCNN_1x_RegionViT-S.pth) |'
    )
    names, row = table('semantic segmentation')
    assert '| mIoU (published) | mIoU (multi-scale, published) |' in names
    assert '| Table 6, Some-S | 45.3 | 46.2 |  | 50.09 |  | 171.0 | 512 x 512 |' in row
    assert row.endswith(f'| start: [RegionViT-S.pth]({RELEASE}/RegionViT-S.pth) |')
    names, row = table('object detection')
    assert 'AP' not in names
    assert '| a recipe, nothing published |  | 50.09 |  | 171.0 | 800 x 1344 |' in row
    assert row.endswith('| start: mine.pth, not published |')
    assert '- `semfpn_some_s_80k`: Table 7 says 45.4' in lines
    assert '- `semfpn_some_s_80k`: **does not fit what is published**. 9 % more in Table 6' in lines


def test_metafiles(root):
    index = yaml.safe_load((root / 'model-index.yml').read_text())
    assert index == {'Import': ['configs/metafiles/some_net.yml']}
    content = yaml.safe_load((root / index['Import'][0]).read_text())
    (collection,) = content['Collections']
    assert collection['Paper'] == {'URL': 'https://example.org/some', 'Title': 'Some: Net'}
    models = {model['Name']: model for model in content['Models']}
    assert list(models) == ['maskrcnn_some_s_1x', 'retinanet_some_s_1x', 'semfpn_some_s_80k']
    assert all((root / model['Config']).is_file() for model in models.values())
    assert {model['In Collection'] for model in models.values()} == {collection['Name']}
    assert models['maskrcnn_some_s_1x']['Results'] == [
        {
            'Task': 'Object Detection',
            'Dataset': 'COCO',
            'Metrics': {'box AP (published)': 42.5},
        },
        {
            'Task': 'Instance Segmentation',
            'Dataset': 'COCO',
            'Metrics': {'mask AP (published)': 39.5},
        },
    ]
    (result,) = models['semfpn_some_s_80k']['Results']
    assert result['Metrics'] == {'mIoU (published)': 45.3, 'mIoU (multi-scale, published)': 46.2}
    assert 'Results' not in models['retinanet_some_s_1x']
    assert [name for name, model in models.items() if 'Weights' in model] == ['maskrcnn_some_s_1x']
    weights = models['maskrcnn_some_s_1x']['Weights']
    assert weights == f'{RELEASE}/MaskRCNN_1x_RegionViT-S.pth'
    metadata = models['maskrcnn_some_s_1x']['Metadata']
    assert (metadata['GMACs'], metadata['GMACs (published)']) == (171.04, 171)


def test_check_names_what_is_out_of_date_and_writing_puts_it_right(root, entries, write):
    entries['rows']['maskrcnn_some_s_1x']['published']['box AP'] = 43.0
    write(entries)
    stale = root / 'configs' / 'metafiles' / 'gone.yml'
    stale.touch()
    before = (root / 'docs' / 'model_zoo.md').read_text()
    files = 'docs/model_zoo.md, configs/metafiles/some_net.yml, configs/metafiles/gone.yml'
    with pytest.raises(SystemExit, match=f'^out of date: {files}: run '):
        run('--root', root, '--check')
    assert (root / 'docs' / 'model_zoo.md').read_text() == before
    run('--root', root)
    assert not stale.exists()
    run('--root', root, '--check')
    write({})
    with pytest.raises(SystemExit, match='^error: .*papers, rows missing$'):
        run('--root', root, '--check')
