"""Make the model zoo's page and metafiles: ``python tools/make_model_zoo.py``."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from mmvitbackbones.zoo import HEADS, KINDS, Convention, Paper, Row, Zoo, head_of, read_zoo

ROOT = Path(__file__).resolve().parents[1]
METAFILES = 'configs/metafiles'
MADE_BY = 'Made by tools/make_model_zoo.py from configs/model_zoo.yml: change that file, not this.'
NOT_OURS = (
    "Accuracies are those that the papers' authors published for their own code and weights. "
    'Nobody has measured ours on ImageNet, COCO or ADE20K.'
)
# Tasks and data sets as OpenMMLab's metafiles name them, by accuracy.
RESULTS = {
    'box AP': ('Object Detection', 'COCO'),
    'mask AP': ('Instance Segmentation', 'COCO'),
    'mIoU': ('Semantic Segmentation', 'ADE20K'),
    'top-1': ('Image Classification', 'ImageNet-1K'),
}


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split(':')[0])
    parser.add_argument(
        '--check', action='store_true', help='write nothing, fail where a file is out of date'
    )
    parser.add_argument('--root', type=Path, default=ROOT, help='the repository')
    return parser.parse_args(args)


def make_files(zoo: Zoo) -> dict[str, str]:
    """Return the contents of all files that are made, by their paths in the repository."""
    metafiles = {
        f'{METAFILES}/{slug(name)}.yml': metafile(zoo, name) for name in sorted(zoo.papers)
    }
    return {
        'docs/model_zoo.md': page(zoo),
        'model-index.yml': to_yaml({'Import': list(metafiles)}),
        **metafiles,
    }


def slug(name: str) -> str:
    """Return a paper's name as a file's: 'Focal Transformer' as focal_transformer."""
    return re.sub(r'\W+', '_', name.lower())


def to_yaml(content: dict) -> str:
    """Write YAML with a line on where it comes from."""
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    return f'# {MADE_BY}\n{text}'


def metafile(zoo: Zoo, name: str) -> str:
    """Return a paper's metafile; its weights are those that the authors publish."""
    paper = zoo.papers[name]
    collection = {
        'Name': name,
        'Metadata': {'Architecture': [paper.backbone], 'Note': NOT_OURS},
        'Paper': {'URL': paper.url, 'Title': paper.title},
        'README': 'docs/model_zoo.md',
    }
    models = [model(config, row, paper) for config, row in rows_of(zoo, name).items()]
    return to_yaml({'Collections': [collection], 'Models': models})


def model(config: str, row: Row, paper: Paper) -> dict:
    """Return a row as an entry of a metafile."""
    published = row.published
    metadata = {
        'Source': source(row),
        'Input Size': size_of(row),
        'Parameters (M)': row.ours['params'],
        'GMACs': row.ours['gmacs'],
    }
    for key, label in (('params', 'Parameters (M, published)'), ('gmacs', 'GMACs (published)')):
        if key in published:
            metadata[label] = published[key]
    results = []
    for metric, (task, dataset) in RESULTS.items():
        metrics = {
            published_name(key): published[key]
            for key in (metric, f'{metric} (multi-scale)')
            if key in published
        }
        if metrics:
            results.append({'Task': task, 'Dataset': dataset, 'Metrics': metrics})
    return {
        'Name': config,
        'In Collection': row.paper,
        'Config': f'configs/{config}.py',
        'Metadata': metadata,
        **({'Results': results} if results else {}),
        **({'Weights': paper.source.files[row.trained]} if can_fetch(row, paper) else {}),
    }


def can_fetch(row: Row, paper: Paper) -> bool:
    """Return whether the authors' trained model can be fetched, as far as is known."""
    return bool(row.trained) and paper.source.access == 'open'


def published_name(metric: str) -> str:
    """Return a metric's name that nobody takes for a measurement of ours."""
    if metric.endswith(')'):
        return f'{metric[:-1]}, published)'
    return f'{metric} (published)'


def source(row: Row) -> str:
    """Say where in the paper the row is."""
    return f'{row.where}, {row.row}' if row.where else 'a recipe, nothing published'


def size_of(row: Row) -> str:
    """Return height x width of the image that is counted."""
    return f'{row.size[0]} x {row.size[1]}'


def rows_of(zoo: Zoo, paper: str) -> dict[str, Row]:
    """Return the rows of a paper by their configs."""
    return {config: row for config, row in zoo.rows.items() if row.paper == paper}


def page(zoo: Zoo) -> str:
    """Return the model zoo's page."""
    lines = [
        '# Model zoo',
        '',
        f'<!-- {MADE_BY} -->',
        '',
        f'**{NOT_OURS}**',
        '',
        "Every row of the papers' tables for which there is a config. Parameters (in millions) "
        'and GMACs (billions of multiplications, of one image of the size given as height x '
        'width) are the published ones and, counted in the same way, ours. An empty cell: no '
        'number is published. `python tools/complexity.py --check` counts all of them.',
        '',
        'Train a row with `python tools/train.py configs/CONFIG.py`, evaluate it with '
        '`python tools/test.py configs/CONFIG.py CHECKPOINT` (`--tta` for the multi-scale '
        "columns), read it in Python with `mmvitbackbones.get_config('CONFIG')`. Classifiers start "
        'from scratch, at 384 x 384 from `load_from`. HTC reads COCO-stuff maps, too, or does '
        'without them (`model.roi_head.semantic_head=None`).',
        '',
        '**Weights.** The last column has the trained model of the row that its authors publish '
        'and this package loads; else what its backbone starts from (`start`); nothing for '
        'classifiers that nobody published. `python tools/download.py configs/CONFIG.py` fetches '
        'them into `checkpoints/`. [What can still be fetched](published_weights.md).',
    ]
    for name, paper in zoo.papers.items():
        lines += ['', *section(paper, name, rows_of(zoo, name))]
    return '\n'.join(lines) + '\n'


def section(paper: Paper, name: str, rows: dict[str, Row]) -> Iterator[str]:
    """Yield the lines of a paper's section."""
    yield f'## {name}'
    yield ''
    yield (
        f"[{paper.title}]({paper.url}), {paper.year}; `type='{paper.backbone}'`. Weights: "
        f'[the authors]({paper.source.page}); {paper.source.state}.'
        + (f' They also publish {paper.source.others}.' if paper.source.others else '')
    )
    yield ''
    if paper.note:
        yield one_line(paper.note)
        yield ''
    yield 'How rows are counted:'
    yield ''
    for head, convention in paper.conventions.items():
        yield f'- {HEADS[head][0]}: {in_words(head, convention)}.'
    for kind in KINDS:
        of_kind = {config: row for config, row in rows.items() if kind_of(config) == kind}
        if of_kind:
            yield ''
            yield f'### {name}: {kind.lower()}'
            yield ''
            yield from table(kind, of_kind, paper)
            yield from notes(of_kind)


def kind_of(config: str) -> str:
    """Return the kind of a config's head."""
    return HEADS[head_of(config)][1]


def in_words(head: str, convention: Convention) -> str:
    """Describe how a head's rows are counted."""
    words = 'attention products ' + ('counted' if convention.products else 'left out')
    if HEADS[head][1] == 'Instance segmentation':
        words += f', {convention.boxes} box and {convention.masks} mask regions'
    if not convention.semantic:
        words += ', without the semantic branch'
    if not convention.beyond_map:
        words += ', but for those with keys beyond the map'
    if not convention.depthwise:
        words += ', depth-wise convolutions left out'
    if convention.classifier:
        words += ", parameters with the backbone's unused ImageNet classifier"
    return words


def table(kind: str, rows: dict[str, Row], paper: Paper) -> Iterator[str]:
    """Yield the lines of a table; accuracies that no row has get no column."""
    metrics = [key for key in KINDS[kind] if any(key in row.published for row in rows.values())]
    counts = ['params (published)', 'params (ours)', 'GMACs (published)', 'GMACs (ours)', 'image']
    counts += ['weights']
    yield cells(['config', "the paper's row", *map(published_name, metrics), *counts])
    yield cells(['---'] * (2 + len(metrics) + len(counts)))
    for config, row in rows.items():
        published = [str(row.published.get(key, '')) for key in (*metrics, 'params', 'gmacs')]
        *accuracies, params, gmacs = published
        yield cells(
            [
                f'[`{config}`](../configs/{config}.py)',
                source(row),
                *accuracies,
                params,
                f'{row.ours["params"]:.2f}',
                gmacs,
                f'{row.ours["gmacs"]:.1f}',
                size_of(row),
                weights(row, paper),
            ]
        )


def weights(row: Row, paper: Paper) -> str:
    """Return what is published of a row's weights, and where."""
    files, access = paper.source.files, paper.source.access
    file = row.trained or row.start
    if not file:
        return ''
    if file not in files:
        return f'start: {file}, not published'
    link = f'[{file}]({files[file]})' + ('' if access == 'open' else f' ({access})')
    return link if row.trained else f'start: {link}'


def cells(texts: list[str]) -> str:
    """Return a line of a table."""
    return '| ' + ' | '.join(text.replace('|', '\\|') for text in texts) + ' |'


def notes(rows: dict[str, Row]) -> Iterator[str]:
    """Yield what else is to be known of a table's rows; the same note is said once."""
    configs: dict[str, list[str]] = {}
    for config, row in rows.items():
        if row.note:
            configs.setdefault(row.note, []).append(config)
        if row.unfit:
            text = f'**does not fit what is published**. {row.unfit}'
            configs.setdefault(text, []).append(config)
    if configs:
        yield ''
    for text, names in configs.items():
        yield f'- {", ".join(f"`{name}`" for name in names)}: {one_line(text)}'


def one_line(text: str) -> str:
    """Return a text without line breaks."""
    return ' '.join(text.split())


def content_of(path: Path) -> str | None:
    """Return a file's text, None where there is no such file."""
    return path.read_text('utf-8') if path.is_file() else None


def main(args: list[str] | None = None) -> None:
    """Write the files or check them."""
    args = parse_args(args)
    try:
        files = make_files(read_zoo(args.root / 'configs' / 'model_zoo.yml'))
    except (OSError, ValueError) as error:
        sys.exit(f'error: {error}')
    paths = {args.root / path: text for path, text in files.items()}
    stale = sorted(set((args.root / METAFILES).glob('*.yml')) - set(paths))
    if args.check:
        changed = [path for path, text in paths.items() if content_of(path) != text]
        if changed or stale:
            names = ', '.join(str(path.relative_to(args.root)) for path in [*changed, *stale])
            sys.exit(f'out of date: {names}: run python tools/make_model_zoo.py')
        return
    for path in stale:
        path.unlink()
    for path, text in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, 'utf-8')


if __name__ == '__main__':
    main()
