"""Configs with a mistake: the file, the line and the mistake, in one line."""

import pytest
from running_tools import ROOT, run

pytest.importorskip('mmdet')

BASE = f"_base_ = '{ROOT}/configs/maskrcnn_rmt_t_1x.py'\n"
# What is in other.py, in mine.py, and what is said.
WRONG = {
    'a name': (
        '',
        'a = 1\n\nb = undefined\n',
        "mine.py, line 3: NameError: name 'undefined' is not",
    ),
    'a name in a base': ('b = undefined\n', "_base_ = 'other.py'\n", 'other.py, line 1: NameError'),
    'syntax': ('', 'a = 1\nb = = 2\n', 'mine.py, line 2: SyntaxError: invalid syntax'),
    'syntax in a base': ('b = [\n', "_base_ = 'other.py'\n", 'other.py, line 1: SyntaxError'),
    'an error': ('', "\nraise ValueError('too old')\n", 'mine.py, line 2: ValueError: too old'),
    'no base': ('', "_base_ = 'absent.py'\n", 'mine.py: FileNotFoundError: '),
    'no base in a toolbox': (
        '',
        "_base_ = 'mmdet::_base_/absent.py'\n",
        '_base_/absent.py" does not',
    ),
    'an import': (
        '',
        "custom_imports = dict(imports=['absent_module'])\n",
        "mine.py: ImportError: No module named 'absent_module'",
    ),
    'no model': ('', 'model = 5\n', 'mine.py: model must be a dict with a type, got 5'),
    'no backbone': (
        '',
        f'{BASE}model = dict(backbone=7)\n',
        'mine.py: backbone must be a dict with',
    ),
    'an option': (
        '',
        f'{BASE}model = dict(backbone=dict(drop_rat=0.1))\n',
        'RMT has no option drop_rat: did you mean drop_path_rate? It takes arch, attention, ',
    ),
    'a type': (
        '',
        f"{BASE}model = dict(backbone=dict(type='RTM'))\n",
        'RTM is not in the mmdet::model registry',
    ),
}


@pytest.mark.parametrize('mistake', WRONG)
def test_mistakes_are_placed(mistake, tmp_path):
    other, mine, words = WRONG[mistake]
    (tmp_path / 'other.py').write_text(other)
    (tmp_path / 'mine.py').write_text(mine)
    done = run('train', tmp_path / 'mine.py', '--demo', '--work-dir', tmp_path / 'work')
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    (last,) = (line for line in done.stderr.splitlines() if line.startswith('error: '))
    assert words in last
