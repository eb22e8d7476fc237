"""What is wrong with the data that a config reads."""

from __future__ import annotations

import importlib
import inspect
import os.path as osp
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS
from rich.console import Console
from rich.progress import track

from ..datasets.checking.coco import CocoFile, Use, check_coco
from ..datasets.checking.findings import Finding, Kind, Tally
from ..datasets.checking.folders import (
    SUFFIXES,
    check_folders,
    check_list,
    check_same_folders,
    class_folders,
)
from ..datasets.checking.images import check_presence, check_sample, decode
from ..datasets.checking.images import summed_up as summed_up_images
from ..datasets.checking.maps import Labels, check_map, check_map_presence, list_images, sampled
from ..datasets.checking.maps import summed_up as summed_up_maps
from ..datasets.cores import on_all_cores
from .nodes import dicts, numbers_of_classes

MAY_NOT = 'change its permissions (chmod +r, of folders +rx), or run as another user'
_A_PROCESS = 50  # images that make a process worth its start
_LEFT_OUT = 'left out as mmdetection does'


@dataclass
class _Images:
    """Images that something names, with the sizes that it says they have."""

    folder: str
    source: str
    sizes: dict[str, tuple[int, int] | None]


@dataclass
class _Maps:
    """Maps of classes: the image of each, and the map, relative to their folders."""

    images: str
    folder: str
    pairs: list[tuple[str, str]]
    labels: Labels


@dataclass
class Report:
    """What a check found.

    Attributes:
        findings: The faults.
        images: The number of images that the data sets name.
        maps: The number of maps of classes.
    """

    findings: list[Finding] = field(default_factory=list)
    images: int = 0
    maps: int = 0


def find_faults(cfg: Config, loaders: Sequence[str], full: bool = False) -> Report:
    """Check the data of a config, which are there.

    Lists of images, annotations and labels are read whole, and folders are listed. Of images some
    heads are read, and some maps are decoded.

    Args:
        cfg (Config): The config.
        loaders (Sequence[str]): Which of its data loaders are looked at.
        full (bool): Whether to decode all images and maps, too, on all cores.

    Returns:
        Report: The faults.
    """
    search = _Search(cfg)
    for loader in loaders:
        if cfg.get(loader):
            search.look_at(loader)
    search.look_at_files(full)
    unique = dict.fromkeys(search.findings)  # validation and test may share a file
    return Report(
        list(unique),
        len({osp.join(each.folder, name) for each in search.images for name in each.sizes}),
        len({osp.join(each.folder, name) for each in search.maps for _, name in each.pairs}),
    )


def leaves(loader: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The data sets of a loader that read files, without what repeats, mixes or joins them."""
    for part in dicts(loader):
        if 'type' in part and not {'dataset', 'datasets'} & part.keys():
            if {'data_prefix', 'data_root', 'split', 'ann_file'} & part.keys():
                yield part


class _Search:
    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.findings: list[Finding] = []
        self.images: list[_Images] = []
        self.maps: list[_Maps] = []
        self._coco: dict[tuple[str, Use], CocoFile] = {}
        self._folders: str | None = None  # of the classes to train on

    def found(self, findings: Iterable[Finding]) -> None:
        self.findings += findings

    def look_at(self, loader: str) -> None:
        for dataset in leaves(self.cfg[loader]):
            kind = _class_of(dataset, self.cfg.get('default_scope'))
            with self._told_if_unreadable():
                if _reads_as(kind, 'CocoDataset'):
                    self._look_at_coco(loader, dataset, kind)
                elif _reads_as(kind, 'BaseSegDataset'):
                    self._look_at_maps(loader, dataset, kind)
                elif _reads_as(kind, 'CustomDataset'):
                    self._look_at_classes(loader, dataset, kind)

    def look_at_files(self, full: bool) -> None:
        """Look whether images and maps are there, and at some or all of them."""
        for images in self.images:
            with self._told_if_unreadable():
                self.found(check_presence(images.folder, images.sizes, images.source))
        for maps in self.maps:
            with self._told_if_unreadable():
                names = (name for _, name in maps.pairs)
                self.found(check_map_presence(maps.folder, names, maps.images))
        if full:
            self._decode_all()
        else:
            self._sample()

    @contextmanager
    def _told_if_unreadable(self) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            self.found([Finding(str(error.filename), 'may not be read', MAY_NOT)])
        except OSError as error:
            problem = f'cannot be read ({error.strerror})'
            self.found([Finding(str(error.filename), problem, 'name another, or replace it')])

    def _look_at_coco(self, loader: str, dataset: dict[str, Any], kind: Any) -> None:
        path = _join(dataset, dataset.get('ann_file'))
        prefix = dataset.get('data_prefix') or {}
        folder = osp.normpath(_join(dataset, prefix.get('img', '')))
        classes, filters = _classes(dataset, kind), dataset.get('filter_cfg') or {}
        steps = list(dicts(dataset.get('pipeline')))
        metrics = self._metrics(loader)
        same = [each for each, file in metrics if _same(file, path)]
        use = Use(
            classes,
            masks=any(step.get('with_mask') for step in steps),
            metrics=frozenset().union(*same),
            filters=bool(filters.get('filter_empty_gt')) and not dataset.get('test_mode'),
        )
        self._check_heads(len(classes) if classes else None)
        file = self._read(path, use)
        self.images.append(_Images(folder, path, file.images))
        least = 0 if dataset.get('test_mode') else filters.get('min_size', 0)
        small = Tally()
        smaller = Kind(f'images are smaller than {least} pixels', _LEFT_OUT, refused=False)
        for name, size in file.images.items():
            if size and min(size) < least:
                small.add(smaller, '{}: {} x {}'.format, name, *size)
        self.found(small.findings(path))
        for names, other in metrics:
            if not _same(other, path):
                self._compare_evaluator(loader, file, other, Use(classes, metrics=names))
        if prefix.get('seg') and any(step.get('with_seg') for step in steps):
            suffix = _option(dataset, kind, 'seg_map_suffix') or '.png'
            stuff = (self.cfg.model.get('roi_head') or {}).get('semantic_head') or {}
            maps = osp.normpath(_join(dataset, prefix['seg']))
            pairs = [(name, name.rsplit('.', 1)[0] + suffix) for name in file.images]
            self.maps.append(_Maps(folder, maps, pairs, Labels(stuff.get('num_classes', 255))))

    def _metrics(self, loader: str) -> list[tuple[frozenset[str], str]]:
        """What a loader's evaluators measure against which file."""
        evaluator = loader.replace('_dataloader', '_evaluator')
        found = []
        for metric in dicts(self.cfg.get(evaluator)) if evaluator != loader else []:
            if str(metric.get('type')).endswith('CocoMetric') and metric.get('ann_file'):
                names = metric.get('metric', 'bbox')
                names = frozenset([names] if isinstance(names, str) else names)
                # Files to be sent in are made without evaluation.
                if not metric.get('format_only'):
                    found.append((names, metric['ann_file']))
        return found

    def _read(self, path: str, use: Use) -> CocoFile:
        if (path, use) not in self._coco:
            self._coco[path, use] = check_coco(path, use)
            self.found(self._coco[path, use].findings)
        return self._coco[path, use]

    def _compare_evaluator(self, loader: str, file: CocoFile, path: str, use: Use) -> None:
        option = f'{loader.replace("_dataloader", "_evaluator")}.ann_file'
        if not osp.exists(path):
            problem = f'is not there, though {option} names it'
            self.found([Finding(path, problem, f'set {option} to the file of {loader}')])
            return
        missing = sorted(file.ids - self._read(path, use).ids, key=str)
        if missing:
            self.found(
                [
                    Finding(
                        path,
                        f'lacks {len(missing)} of the images of {loader} that {option} evaluates',
                        f'set {option} to the file of {loader}',
                        first=tuple(f'id {each}' for each in missing[:3]),
                        count=len(missing),
                    )
                ]
            )

    def _look_at_maps(self, loader: str, dataset: dict[str, Any], kind: Any) -> None:
        prefix = dataset.get('data_prefix') or {}
        folder = osp.normpath(_join(dataset, prefix.get('img_path', '')))
        classes = _classes(dataset, kind)
        suffix = _option(dataset, kind, 'img_suffix') or '.jpg'
        map_suffix = _option(dataset, kind, 'seg_map_suffix') or '.png'
        listed = _join(dataset, dataset.get('ann_file'))
        findings, names = list_images(folder, suffix, listed if osp.isfile(listed) else None)
        self.found(findings)
        source = listed if osp.isfile(listed) else folder
        self._check_heads(len(classes) if classes else None)
        self.images.append(_Images(folder, source, {n + suffix: None for n in names}))
        if prefix.get('seg_map_path') is None or not classes:
            return
        known = (getattr(kind, 'METAINFO', None) or {}).get('classes')
        labels = Labels(
            len(classes), bool(_option(dataset, kind, 'reduce_zero_label')), known and len(known)
        )
        maps = osp.normpath(_join(dataset, prefix['seg_map_path']))
        pairs = [(name + suffix, name + map_suffix) for name in names]
        self.maps.append(_Maps(folder, maps, pairs, labels))

    def _look_at_classes(self, loader: str, dataset: dict[str, Any], kind: Any) -> None:
        split, root = dataset.get('split'), dataset.get('data_root') or ''
        prefix = dataset.get('data_prefix') or split or ''
        prefix = prefix.get('img_path', '') if isinstance(prefix, Mapping) else prefix
        folder, listed = osp.normpath(_join(dataset, prefix)), dataset.get('ann_file')
        meta = osp.join(root, 'meta', f'{split}.txt')
        listed = _join(dataset, listed) if listed else meta if osp.isfile(meta) else None
        classes = _classes(dataset, kind)
        if dataset.get('with_label') is False or split == 'test':
            return
        count = len(classes) if classes is not None else None
        if listed:
            heads = [number for _, number in numbers_of_classes(self.cfg.get('model'))]
            findings, images = check_list(listed, count or next(iter(heads), None))
        else:
            suffixes = dataset.get('extensions') or SUFFIXES
            findings, images = check_folders(folder, classes, suffixes)
            count = count or len(class_folders(folder))
            if self._folders is None:
                self._folders = folder
            elif not any(finding.refused for finding in findings):
                findings += check_same_folders(self._folders, folder)
        self.found(findings)
        self._check_heads(count)
        self.images.append(_Images(folder, listed or folder, dict.fromkeys(images)))

    def _check_heads(self, count: int | None) -> None:
        """Compare the classes of the heads with those of the data."""
        for name, number in numbers_of_classes(self.cfg.get('model')):
            if count and number != count:
                self.found(
                    [
                        Finding(
                            self.cfg.filename or 'the config',
                            f'{name} is {number}, the data have {count} classes',
                            f'--cfg-options {name}={count}, or other classes',
                        )
                    ]
                )

    def _sample(self) -> None:
        """Read some heads of images, and some maps."""
        for images in self.images:
            self.found(check_sample(images.folder, images.sizes, images.source))
        for maps in self.maps:
            pairs = sampled(maps.pairs)
            self.found(_of_maps(maps, pairs, map(check_map, _map_tasks(maps, pairs))))

    def _decode_all(self) -> None:
        """Decode all images, then all maps, on all cores."""
        images_once = {
            (osp.join(each.folder, name), size): None
            for each in self.images
            for name, size in each.sizes.items()
        }
        faults = dict(zip(images_once, _with_bar('images', decode, list(images_once))))
        for images in self.images:
            named = (
                (name, faults[osp.join(images.folder, name), size])
                for name, size in images.sizes.items()
            )
            self.found(summed_up_images(named, images.source))
        for maps in self.maps:
            tasks = list(_map_tasks(maps, maps.pairs))
            found = _with_bar(f'maps in {maps.folder}', check_map, tasks)
            self.found(_of_maps(maps, maps.pairs, found))


def _with_bar(what: str, work: Callable[[Any], Any], tasks: list[Any]) -> Iterable[Any]:
    """What is found in each file, on all cores; a bar that is quiet where there is no terminal."""
    found = on_all_cores(work, tasks, _A_PROCESS)
    return track(found, what, len(tasks), console=Console(stderr=True), transient=True)


def _map_tasks(maps: _Maps, pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, Labels]]:
    for image, name in pairs:
        yield osp.join(maps.images, image), osp.join(maps.folder, name), maps.labels


def _of_maps(
    maps: _Maps, pairs: Iterable[tuple[str, str]], faults: Iterable[tuple[str, str] | None]
) -> list[Finding]:
    named = zip((name for _, name in pairs), faults)
    return summed_up_maps(named, maps.folder, maps.labels)


def _class_of(dataset: Mapping[str, Any], scope: str | None) -> Any:
    """The class of a data set; None if it is not known here."""
    name = dataset['type']
    if not isinstance(name, str):
        return name
    name = name if '.' in name or not scope else f'{scope}.{name}'
    try:
        importlib.import_module(f'{name.split(".")[0]}.datasets')
    except ImportError:
        return None
    return DATASETS.get(name)


def _reads_as(kind: Any, base: str) -> bool:
    """Whether a data set is of a class, or of one below it that reads the same files as it does.

    LVIS and panoptic COCO, for example, are below ``CocoDataset`` and read other files.
    """
    for each in getattr(kind, '__mro__', ()):
        if each.__name__ == base:
            methods = ('load_data_list', 'parse_data_info')
            return all(getattr(kind, name) is getattr(each, name) for name in methods)
    return False


def _classes(dataset: Mapping[str, Any], kind: Any) -> tuple[str, ...] | None:
    """The names of the classes, as mmengine finds them; None where the data say them."""
    classes = dataset.get('classes') or (dataset.get('metainfo') or {}).get('classes')
    if isinstance(classes, str) and osp.isfile(classes):
        with open(classes, encoding='utf-8') as file:
            classes = [line.rstrip('\n') for line in file]
    classes = classes or (getattr(kind, 'METAINFO', None) or {}).get('classes')
    return None if classes is None else tuple(classes)


def _option(dataset: Mapping[str, Any], kind: Any, name: str) -> Any:
    """An option of a data set, or its default."""
    if name in dataset:
        return dataset[name]
    for base in kind.__mro__:
        parameter = inspect.signature(base.__init__).parameters.get(name)
        if parameter is not None and parameter.default is not parameter.empty:
            return parameter.default
    return None


def _join(dataset: Mapping[str, Any], path: str | None) -> str:
    """A path of a data set, below its root as mmengine joins them."""
    return osp.join(dataset.get('data_root') or '', path or '')


def _same(first: str, second: str) -> bool:
    return osp.abspath(first) == osp.abspath(second)
