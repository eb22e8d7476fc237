"""The papers and the rows of their tables: the data file that lists them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .. import backbones
from ..checkpoints.family import Source, family_of
from .configs import config_folder, config_names

# Kinds of heads and the accuracies that papers report for them.
KINDS = {
    'Object detection': ('box AP', 'box AP (multi-scale)'),
    'Instance segmentation': (
        'box AP',
        'mask AP',
        'box AP (multi-scale)',
        'mask AP (multi-scale)',
    ),
    'Semantic segmentation': ('mIoU', 'mIoU (multi-scale)'),
    'Image classification': ('top-1',),
}
# What configs' names start with: the head's own name, and its kind.
HEADS = {
    'atss': ('ATSS', 'Object detection'),
    'cascade_maskrcnn': ('Cascade Mask R-CNN', 'Instance segmentation'),
    'cls': ('Classifier', 'Image classification'),
    'dyhead': ('DyHead', 'Object detection'),
    'htc': ('HTC', 'Instance segmentation'),
    'maskrcnn': ('Mask R-CNN', 'Instance segmentation'),
    'retinanet': ('RetinaNet', 'Object detection'),
    'semfpn': ('Semantic FPN', 'Semantic segmentation'),
    'sparsercnn': ('Sparse R-CNN', 'Object detection'),
    'upernet': ('UperNet', 'Semantic segmentation'),
}


@dataclasses.dataclass(frozen=True)
class Convention:
    """How a paper counts the rows of one head.

    Args:
        products (bool): Whether the products of attention (of queries and keys, and with values)
            are counted.
        boxes (int): Regions that go through the box heads.
        masks (int): Regions that go through the mask heads.
        classifier (bool): Whether the parameters hold the unused classifier and its norm.
        semantic (bool): Whether HTC's semantic branch is counted.
        beyond_map (bool): Whether products of ViL's queries with keys beyond the map are counted,
            which are masked.
        depthwise (bool): Whether the backbone's depth-wise convolutions are counted.
    """

    products: bool
    boxes: int = 0
    masks: int = 0
    classifier: bool = False
    semantic: bool = True
    beyond_map: bool = True
    depthwise: bool = True


@dataclasses.dataclass(frozen=True)
class Paper:
    """A paper.

    Args:
        title (str): Its title.
        url (str): Its address.
        year (int): The year of the conference.
        backbone (str): The class of its backbone.
        conventions (dict[str, Convention]): How it counts, by head (a key of ``HEADS``).
        note (str): What else is to be known of its numbers.
    """

    title: str
    url: str
    year: int
    backbone: str
    conventions: dict[str, Convention]
    note: str = ''

    @property
    def source(self) -> Source:
        """Where its authors publish weights."""
        return getattr(backbones, self.backbone).family.source


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a paper's table, and what we count.

    Args:
        paper (str): A key of `Zoo.papers`.
        where (str, optional): The table; None: no paper reports this row, it is a recipe.
        size (Sequence[int]): Height and width of the image that is counted.
        ours (dict[str, float]): Our 'params' (millions) and 'gmacs', counted as the paper does.
        row (str): The row's name in the table.
        published (dict[str, float]): The paper's 'params', 'gmacs' and accuracies, those of the
            head's kind in ``KINDS`` (percent); those that it does not report are not in it.
        trained (str): The file of the whole trained model that its authors publish; '': none.
        start (str): The file that the backbone starts from; '': none, or that of ``load_from``.
        note (str): What else is to be known, such as tables that disagree.
        unfit (str): Where no convention fits the row: what was tried.
    """

    paper: str
    where: str | None
    size: Sequence[int]
    ours: dict[str, float]
    row: str = ''
    published: dict[str, float] = dataclasses.field(default_factory=dict)
    trained: str = ''
    start: str = ''
    note: str = ''
    unfit: str = ''


_Entry = TypeVar('_Entry', Convention, Paper, Row)


@dataclasses.dataclass(frozen=True)
class Zoo:
    """The data file: papers by their names and rows by the names of their configs."""

    papers: dict[str, Paper]
    rows: dict[str, Row]

    def convention(self, name: str) -> Convention:
        """Return how the row's paper counts the row's head."""
        return self.papers[self.rows[name].paper].conventions[head_of(name)]


def head_of(name: str) -> str:
    """Return the head, a key of ``HEADS``, that the name of a config starts with.

    Raises:
        ValueError: If it starts with none of them.
    """
    for head in HEADS:
        if name.startswith(f'{head}_'):
            return head
    raise ValueError(f'{name!r} starts with none of the heads {", ".join(HEADS)}')


def read_zoo(file: str | Path | None = None) -> Zoo:
    """Read the data file and check it, also against the configs beside it.

    Configs named ``demo_*`` are of no paper and need no row.

    Args:
        file (str or Path, optional): The file; None: this package's own.

    Raises:
        ValueError: If something in the file is missing, unknown or contradictory, or if it and
            the configs in its folder do not match; names file, entry and key.
    """
    file = Path(file or config_folder() / 'model_zoo.yml')
    try:
        data = _read_yaml(file)
        _check_keys(data, {'papers', 'rows'}, {'papers', 'rows'}, 'the file')
        papers = {
            name: _paper(entry, f'papers: {name}')
            for name, entry in _mapping(data['papers'], 'papers').items()
        }
        rows = {
            name: _make(Row, entry, f'rows: {name}')
            for name, entry in _mapping(data['rows'], 'rows').items()
        }
        zoo = Zoo(papers, rows)
        problems = [*_row_problems(zoo), *_config_problems(zoo, file.parent)]
        if problems:
            raise ValueError('; '.join(problems))
    except ValueError as error:
        raise ValueError(f'{file}: {error}') from error
    return zoo


def _read_yaml(file: Path) -> Any:
    """Read YAML; a key that is there twice, which YAML lets pass, is an error."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            if twice := sorted({key for key in keys if keys.count(key) > 1}):
                line = node.start_mark.line + 1
                raise ValueError(f'twice in the mapping of line {line}: {", ".join(twice)}')
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(file.read_text(encoding='utf-8'), Loader)
    except yaml.YAMLError as error:
        raise ValueError(f'not YAML: {error}') from error


def _mapping(entry: object, where: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise ValueError(f'{where}: expected keys and values, found {entry!r}')
    return entry


def _check_keys(entry: object, known: set[str], needed: set[str], where: str) -> None:
    entry = _mapping(entry, where)
    if unknown := sorted(set(map(str, entry)) - known):
        raise ValueError(
            f'{where}: unknown {", ".join(unknown)}; known: {", ".join(sorted(known))}'
        )
    if missing := sorted(needed - set(entry)):
        raise ValueError(f'{where}: {", ".join(missing)} missing')


def _make(cls: type[_Entry], entry: Any, where: str) -> _Entry:
    """Make a dataclass of a mapping with its fields as keys."""
    fields = dataclasses.fields(cls)
    unset = dataclasses.MISSING
    needed = {f.name for f in fields if f.default is unset and f.default_factory is unset}
    _check_keys(entry, {field.name for field in fields}, needed, where)
    return cls(**entry)


def _paper(entry: object, where: str) -> Paper:
    paper = _make(Paper, entry, where)
    if family_of(getattr(backbones, str(paper.backbone), None)) is None:
        raise ValueError(f'{where}: backbone {paper.backbone!r} is not one of this package')
    where = f'{where}: conventions'
    _check_keys(paper.conventions, set(HEADS), set(), where)
    conventions = {
        head: _make(Convention, convention, f'{where}: {head}')
        for head, convention in paper.conventions.items()
    }
    return dataclasses.replace(paper, conventions=conventions)


def _row_problems(zoo: Zoo) -> Iterator[str]:
    for name, row in zoo.rows.items():
        try:
            _check_row(name, row, zoo)
        except ValueError as error:
            yield f'rows: {name}: {error}'


def _check_row(name: str, row: Row, zoo: Zoo) -> None:
    head = head_of(name)
    label, kind = HEADS[head]
    if row.paper not in zoo.papers:
        raise ValueError(f'paper {row.paper!r} is not among the papers {", ".join(zoo.papers)}')
    if head not in zoo.papers[row.paper].conventions:
        raise ValueError(f'the paper {row.paper} has no convention for {head}')
    counts = {'params', 'gmacs'}
    _check_keys(row.ours, counts, counts, 'ours')
    _check_keys(row.published, {*counts, *KINDS[kind]}, set(), f'published ({label})')
    for key, value in [*row.ours.items(), *row.published.items()]:
        if not isinstance(value, (int, float)) or not value > 0:
            raise ValueError(f'{key} must be a number above 0, found {value!r}')
    if not (
        isinstance(row.size, list)
        and len(row.size) == 2
        and all(isinstance(side, int) and side > 0 for side in row.size)
    ):
        raise ValueError(f'size must be [height, width], found {row.size!r}')
    if row.trained and row.trained not in zoo.papers[row.paper].source.files:
        raise ValueError(f'trained: the authors publish no file {row.trained!r}')
    if row.where is None and row.published:
        raise ValueError('published numbers need the table that they are in: where')
    if row.where is not None and not row.row:
        raise ValueError(f"the row's name in {row.where} is missing: row")


def _config_problems(zoo: Zoo, folder: Path) -> Iterator[str]:
    configs = {name for name in config_names(folder) if not name.startswith('demo_')}
    if missing := sorted(configs - set(zoo.rows)):
        yield f'configs without a row: {", ".join(missing)}'
    if missing := sorted(set(zoo.rows) - configs):
        yield f'rows without a config: {", ".join(missing)}'
