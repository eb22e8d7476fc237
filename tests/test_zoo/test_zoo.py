import re

import pytest
import yaml

import mmvitbackbones
from mmvitbackbones.zoo import HEADS, Convention, read_zoo


def test_reads_rows_and_how_they_are_counted(entries, write):
    zoo = read_zoo(write(entries))
    row = zoo.rows['maskrcnn_some_s_1x']
    assert (row.where, row.row, row.size) == ('Table 5', 'Some-S', [672, 1120])
    assert row.published == {'params': 50.1, 'gmacs': 171, 'box AP': 42.5, 'mask AP': 39.5}
    assert zoo.papers[row.paper].year == 2021
    assert zoo.convention('maskrcnn_some_s_1x') == Convention(True, 1000, 100, False)
    assert zoo.convention('semfpn_some_s_80k') == Convention(False, 0, 0, True)
    recipe = zoo.rows['retinanet_some_s_1x']
    assert (recipe.where, recipe.published, recipe.note) == (None, {}, '')


def change(entries, path, value):
    *path, last = path.split('/')
    for key in path:
        entries = entries[key]
    if value is KeyError:
        del entries[last]
    else:
        entries[last] = value


@pytest.mark.parametrize(
    'path, value, message',
    [
        ('row', {}, 'the file: unknown row'),
        ('papers/Some Net/titel', 'x', 'papers: Some Net: unknown titel; known: backbone, conv'),
        ('papers/Some Net/title', KeyError, 'papers: Some Net: title missing'),
        ('papers/Some Net/backbone', 'Swin', "backbone 'Swin' is not one of this package"),
        ('papers/Some Net/conventions/fcos', {}, 'conventions: unknown fcos; known: atss'),
        ('papers/Some Net/conventions/semfpn', {}, 'conventions: semfpn: products missing'),
        ('papers/Some Net/conventions/semfpn', KeyError, 'the paper Some Net has no convention'),
        ('rows/maskrcnn_some_s_1x', None, 'rows: maskrcnn_some_s_1x: expected keys and values'),
        ('rows/maskrcnn_some_s_1x/paper', 'Other', "paper 'Other' is not among the papers Some N"),
        ('rows/maskrcnn_some_s_1x/published/mIoU', 1.0, r'published \(Mask R-CNN\): unknown mIoU'),
        ('rows/maskrcnn_some_s_1x/published/box AP', '42', "box AP must be a number .* found '42'"),
        ('rows/maskrcnn_some_s_1x/ours', {'params': 1}, 'maskrcnn_some_s_1x: ours: gmacs missing'),
        ('rows/maskrcnn_some_s_1x/size', [672], r'size must be \[height, width\], found \[672\]'),
        ('rows/maskrcnn_some_s_1x/trained', 'a.pth', "the authors publish no file 'a.pth'"),
        ('rows/maskrcnn_some_s_1x/where', None, 'published numbers need the table'),
        ('rows/maskrcnn_some_s_1x/row', KeyError, "the row's name in Table 5 is missing"),
        ('rows/maskrcnn_some_s_1x', KeyError, 'configs without a row: maskrcnn_some_s_1x'),
    ],
)
def test_bad_entries_are_named(entries, write, path, value, message):
    change(entries, path, value)
    file = write(entries)
    with pytest.raises(ValueError, match=message) as caught:
        read_zoo(file)
    assert str(caught.value).startswith(f'{file}: ')


def test_all_rows_without_a_config_are_named_at_once(entries, write):
    rows = entries['rows']
    rows['maskrcnn_some_b_1x'] = rows['maskrcnn_some_m_1x'] = rows['maskrcnn_some_s_1x']
    rows['fcos_some_s_1x'] = rows['maskrcnn_some_s_1x']
    with pytest.raises(ValueError) as caught:
        read_zoo(write(entries))
    assert 'rows without a config: fcos_some_s_1x, maskrcnn_some_b_1x, mask' in str(caught.value)
    assert "'fcos_some_s_1x' starts with none of the heads atss, casc" in str(caught.value)


def test_a_row_that_is_there_twice_is_an_error(entries, write):
    text = yaml.safe_dump(entries)
    row = 'retinanet_some_s_1x'
    with pytest.raises(ValueError, match=f'twice in the mapping of line [0-9]+: {row}'):
        read_zoo(write(f'{text}  {row}: {{}}\n'))
    with pytest.raises(ValueError, match='(?s)not YAML: .*line 1'):
        read_zoo(write('papers: {'))


def test_own_data_file_fits_the_configs():
    zoo = read_zoo()
    assert {row.paper for row in zoo.rows.values()} == set(zoo.papers)
    for paper in zoo.papers.values():
        assert hasattr(mmvitbackbones, paper.backbone)
        assert set(paper.conventions) <= set(HEADS)


def test_rows_of_published_detectors_have_their_files():
    """As RegionViT's authors name them: 28, of seven variants, two heads and two schedules."""
    found = {}
    for name, row in read_zoo().rows.items():
        if match := re.match(r'(maskrcnn|retinanet)_regionvit_([sb])(.*)_([13]x)$', name):
            head, size, options, schedule = match.groups()
            options = options.replace('_plus', '+').replace('_peg_896', 'peg_dagger')
            variant = size.upper() + options.replace('_peg', 'peg')
            kind = dict(maskrcnn='MaskRCNN', retinanet='RetinaNet')[head]
            if variant != 'S_without_regional':
                found[f'{kind}_{schedule}_RegionViT-{variant}.pth'] = row.trained
    assert len(found) == 28 and all(file == trained for file, trained in found.items())
