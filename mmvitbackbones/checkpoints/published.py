"""The one path on which published weights, and our own, get into a backbone."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from . import detectron2
from .conversion import Conversion, in_classifier
from .family import FAMILIES, Family, Hint, family_of
from .reading import read_checkpoint
from .soundness import check_kinds, check_values

if TYPE_CHECKING:
    from ..backbones.pyramid import Pyramid

COLOURS = 3  # channels of the images that all published weights are for
OURS = 'mmvitbackbones'  # what LoadReport.kind is for names of our own

# What a head's number of classes decides about: of classifiers, detectors and segmenters.
_CLASS_LAYER = re.compile(
    r'^(head\.fc|(.+\.)?(fc_cls|fc_reg|conv_logits|retina_cls|conv_seg))\.(weight|bias)$'
)
# A detector adds these to what was published for classification.
_MAY_START_NEW = re.compile(r'^out_norms\.|\.peg\.')
_BLOCK = re.compile(r'^stages\.(\d+)\.blocks\.(\d+)\.')
_NORM = re.compile(r'\.norm\d\.weight$')
_HINTS = (
    Hint('the file has PEG: set peg=True', unexpected=r'\.peg\.'),
    Hint('the file has output norms: set out_norm', unexpected=r'^out_norms\.'),
)


@dataclass
class LoadReport:
    """What became of each tensor of a checkpoint, and of a model.

    Attributes:
        source (str): The file, or 'a state dict'.
        kind (str): Whose names it had: a published family's, or our own (:data:`OURS`).
        loaded (list[str]): The model's tensors that were filled, by our names.
        resized (dict[str, tuple[torch.Size, torch.Size]]): Those of them that were resized: shape
            in the file, and here.
        summed (list[str]): Those of them that were summed over the colours of images, for a model
            of grey ones.
        new (list[str]): The model's tensors that start new.
        unused (list[str]): The file's tensors that the model has no use for, by their names; by
            ours where that is due to the model's options.
        tied (list[str]): The file's second copies of tensors that are tied, by their names.
        classes (tuple[int, int], optional): For how many classes the heads of the file and of the
            model are, where these numbers differ.
    """

    source: str
    kind: str
    loaded: list[str] = field(default_factory=list)
    resized: dict[str, tuple[torch.Size, torch.Size]] = field(default_factory=dict)
    summed: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    tied: list[str] = field(default_factory=list)
    classes: tuple[int, int] | None = None

    def __str__(self) -> str:
        """Summarise in a few lines for the log."""
        lines = [f'{self.source}: {self.kind} weights, {len(self.loaded)} tensors loaded']
        if self.resized:
            shapes = sorted({f'{tuple(a)} -> {tuple(b)}' for a, b in self.resized.values()})
            lines.append(f'  resized: {_brief(self.resized)} ({"; ".join(shapes)})')
        for title, names in (
            ('summed over colours, for images of one channel', self.summed),
            ('new', self.new),
            ('unused', self.unused),
            ('second copies of tied tensors', self.tied),
        ):
            if names:
                lines.append(f'  {title}: {_brief(names)}')
        return '\n'.join(lines)


def load_published(
    model: nn.Module,
    path_or_state_dict: str | os.PathLike[str] | Mapping[str, Any],
    source: str = 'a state dict',
) -> LoadReport:
    """Load published weights, or our own, into a backbone or a whole model.

    A published file is taken as it is: recognised by its names, renamed, and resized where the
    windows differ. Output norms and PEG may be missing from it, and start new; so does, with a
    warning, what cannot be resized. What the model's options switch off is left out.

    Args:
        model (nn.Module): One of this package's backbones; or a whole model with one: an
            ``ImageClassifier`` of mmpretrain with a neck of this package and a ``LinearClsHead``, a
            detector of mmdetection or a segmenter of mmsegmentation. For published detectors
            :func:`mmvitbackbones.as_published` makes the config. The last layers of heads for
            another number of classes start new, with a warning.
        path_or_state_dict (str | os.PathLike[str] | Mapping[str, Any]): A file, a URL, or what such
            a file holds.
        source (str): What messages call the latter, such as the file that it was read from.

    Returns:
        LoadReport: What was loaded, resized, left new and left unused; also written to the log.

    Raises:
        TypeError: If ``model`` is none of them.
        ValueError: If the weights are of another family or size, or tensors are missing or
            unexpected; the model is then left as it was.
        FileNotFoundError: If there is no such file.
        UnreadableCheckpointError: If the file is damaged or holds more than plain data.
    """
    # Whether it is one of ours, its family says.
    backbone: Any = model if family_of(model) else getattr(model, 'backbone', None)
    family = family_of(backbone)
    if family is None:
        names = ', '.join(known.name for known in FAMILIES)
        raise TypeError(
            f'load_published takes a backbone of this package ({names}), or a classifier, detector '
            f'or segmenter with one, got {type(model).__name__}'
        )
    if isinstance(path_or_state_dict, Mapping):
        checkpoint = path_or_state_dict
    else:
        source, checkpoint = str(path_or_state_dict), read_checkpoint(path_or_state_dict)
    state = tensors_of(checkpoint, source)
    kind, found = _identify(state, family, backbone.state_dict(), source)
    if is_classifier(model) and family.check_classifier is not None:
        family.check_classifier(backbone, kind != OURS, found.tensors, source)
    report = LoadReport(source, kind, unused=found.unused, tied=found.tied)
    filled, restarted = _fill(backbone, family, found.tensors, report)
    if backbone is model:
        report.unused += found.rest
    else:
        filled = {f'backbone.{name}': tensor for name, tensor in filled.items()}
        if detectron2.recognise(state):
            _check_settings(model, source)
        rest, new, report.classes = _fill_rest(model, found.rest, source)
        filled |= rest
        report.loaded += rest
        report.new += new
        report.unused += new
        restarted += new
    check_values(filled, model.state_dict(), source)
    model.load_state_dict(filled, strict=False)
    print_log(str(report), logger='current')
    _warn(restarted, report)
    return report


def _check_settings(model: Any, source: str) -> None:
    """Check that a published detector's model was built with its settings.

    Raises:
        ValueError: If not, and its boxes would be wrong.
    """
    anchors = getattr(getattr(model, 'bbox_head', None), 'prior_generator', None)
    if getattr(anchors, 'scale_major', False):
        raise ValueError(
            f'{source} has its anchors in another order than the model: build it from the config '
            'that mmvitbackbones.as_published gives'
        )
    stem = model.backbone.stem
    if getattr(stem, 'padding', 'published') != 'published':
        print_log(
            f"{source} was trained with regional_padding='published' and other settings, which "
            'mmvitbackbones.as_published gives to a config',
            logger='current',
            level=logging.WARNING,
        )


def is_classifier(model: nn.Module) -> bool:
    """Whether a model is an ``ImageClassifier`` with one of this package's backbones."""
    backbone = getattr(model, 'backbone', None)
    return type(model).__name__ == 'ImageClassifier' and family_of(backbone) is not None


def is_published(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint has the names of a published backbone, alone or in a whole model."""
    state = tensors_of(checkpoint)
    if detectron2.recognise(state):
        return True
    state = _split(state)[0]
    return any(family.recognise(state) for family in FAMILIES)


def _fill(
    backbone: Pyramid, family: Family, tensors: Mapping[str, Tensor], report: LoadReport
) -> tuple[dict[str, Tensor], list[str]]:
    """What to load into a backbone, and what starts new though it was expected to be loaded."""
    target, source = backbone.state_dict(), report.source
    _check_size(tensors, target, report)
    filled = {}
    for name, tensor in tensors.items():
        if name not in target:
            continue
        if _reads_colours(name, tensor) and target[name].shape[1] != COLOURS:
            if target[name].shape[1] != 1:
                raise ValueError(
                    f'{source} is for images of 3 channels, in_channels is '
                    f'{target[name].shape[1]}: it is taken for 3, or for 1, summed over colours'
                )
            tensor = tensor.sum(1, keepdim=True)
            report.summed.append(name)
        if tensor.shape != target[name].shape:
            resized = _resized(family, name, tensor, target[name].shape, source)
            if resized is None:
                report.unused.append(name)
                continue
            report.resized[name] = (tensor.shape, resized.shape)
            tensor = resized
        filled[name] = tensor
    report.loaded = list(filled)
    missing = [name for name in target if name not in filled]
    # All of a stage's, or the stem's, or none: a single one that is missing is an error.
    kept = {_place(name) for name in filled if family.starts_new.search(name)}
    restarted = [
        name for name in missing if family.starts_new.search(name) and _place(name) not in kept
    ]
    report.new = [name for name in missing if _MAY_START_NEW.search(name) or name in restarted]
    unexpected = [name for name in tensors if name not in target]
    switched_off = [
        name
        for name in unexpected
        # Of stages that are not emitted a norm is not needed.
        if _is_switched_off(name, family, filled)
        or (backbone.out_norm and name.startswith('out_norms.'))
    ]
    _check_names(
        missing=[name for name in missing if name not in report.new],
        unexpected=[name for name in unexpected if name not in switched_off],
        source=source,
        hints=family.hints,
    )
    report.unused += switched_off
    return filled, restarted


def _reads_colours(name: str, tensor: Tensor) -> bool:
    """Whether it is the kernel of a layer that reads an image of three colours."""
    return name.startswith('stem.') and tensor.dim() == 4 and tensor.shape[1] == COLOURS


def _fill_rest(
    model: nn.Module, tensors: Mapping[str, Tensor], source: str
) -> tuple[dict[str, Tensor], list[str], tuple[int, int] | None]:
    """What to load into a model's necks and heads, what of them starts new, and both classes."""
    target = {n: t for n, t in model.state_dict().items() if not n.startswith('backbone.')}
    found = {in_classifier(name): tensor for name, tensor in tensors.items()}
    new = [
        name
        for name, tensor in found.items()
        if name in target
        and _CLASS_LAYER.match(name)
        and tensor.shape[1:] == target[name].shape[1:]
        and tensor.shape[0] != target[name].shape[0]
    ]
    filled = {name: tensor for name, tensor in found.items() if name in target and name not in new}
    _check_names(
        missing=[name for name in target if name not in filled and name not in new],
        unexpected=[name for name in found if name not in target],
        source=source,
    )
    for name, tensor in filled.items():
        if tensor.shape != target[name].shape:
            raise ValueError(
                f'{source}: {name} is of shape {tuple(tensor.shape)}, the model wants '
                f'{tuple(target[name].shape)}'
            )
    return filled, new, _num_classes(model, found, target, new)


def _num_classes(
    model: nn.Module, found: Mapping[str, Tensor], target: Mapping[str, Tensor], new: list[str]
) -> tuple[int, int] | None:
    """For how many classes a file's heads are, and a model's; None where no head starts new."""
    for name in new:
        head, layer, _ = name.rsplit('.', 2)
        if layer == 'fc_reg':  # may have one box for all
            continue
        module: Any = model.get_submodule(head)
        ours = module.num_classes
        theirs, rows = len(found[name]), len(target[name])
        # A channel for each anchor of a class; else one for the background, or none.
        theirs = theirs * ours // rows if layer == 'retina_cls' else theirs - rows + ours
        return theirs, ours
    return None


def _place(name: str) -> str:
    """The stage that a tensor is of, or the stem."""
    first, *others = name.split('.')
    return f'{first}.{others[0]}' if first == 'stages' else first


def _is_switched_off(name: str, family: Family, filled: Iterable[str]) -> bool:
    found = family.switched_off.search(name)
    return found is not None and not any(other.startswith(name[: found.end()]) for other in filled)


def _resized(
    family: Family, name: str, tensor: Tensor, shape: torch.Size, source: str
) -> Tensor | None:
    """The tensor in the model's shape; None where it starts new."""
    try:
        resized = family.resize(name, tensor, shape)
    except ValueError as error:
        raise ValueError(f'{source}: {error}') from None
    if resized is None and not family.starts_new.search(name):
        raise ValueError(
            f'{source}: {name} is of shape {tuple(tensor.shape)}, the model wants {tuple(shape)}: '
            'are they of the same family, arch and options?'
        )
    return resized


def _warn(restarted: list[str], report: LoadReport) -> None:
    """Name what was expected to be loaded and starts new all the same."""
    other = 'another shape there, for which no resizing is defined'
    if report.classes:
        other = 'heads for {} classes there, for {} here'.format(*report.classes)
    for reason, names in (
        (other, set(report.unused)),
        ('not in the file', set(restarted) - set(report.unused)),
    ):
        new = [name for name in restarted if name in names]
        if new:
            print_log(
                f'{report.source}: these start new, to be trained ({reason}): '
                f'{_brief(new, keep_stages=True)}',
                logger='current',
                level=logging.WARNING,
            )


def tensors_of(checkpoint: Mapping[str, Any], source: str = 'the checkpoint') -> dict[str, Tensor]:
    """The state dict of a checkpoint, without the prefixes of wrappers and what is no weight.

    Args:
        checkpoint (Mapping[str, Any]): A state dict, or a mapping that has one under 'state_dict',
            'model' or 'net'.
        source (str): The file, for messages.

    Raises:
        ValueError: As :func:`~mmvitbackbones.checkpoints.soundness.check_kinds`.
    """
    for key in ('state_dict', 'model', 'net'):
        if isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
            break
    check_kinds(checkpoint, source)
    # detectron2's files may have arrays instead.
    return {
        re.sub(r'^module\.', '', name): torch.as_tensor(value)
        for name, value in checkpoint.items()
        if (
            isinstance(value, Tensor)
            or isinstance(value, np.ndarray)
            and value.dtype.kind in 'biuf'
        )
        and not name.startswith('data_preprocessor.')
    }


def _brief(names: Iterable[str], keep_stages: bool = False) -> str:
    """Names for a line of the log, those that differ in numbers, or in the block's, as one."""
    number = r'(?<=\.blocks\.)\d+(?=\.)' if keep_stages else r'(?:(?<=\.)|(?<=^layer))\d+(?=\.)'
    return ', '.join(dict.fromkeys(re.sub(number, '*', name) for name in names))


def _identify(
    state: dict[str, Tensor], family: Family, target: Mapping[str, Tensor], source: str
) -> tuple[str, Conversion]:
    """Whose names the state dict has, and its tensors under ours."""
    no_weights: list[str] = []
    if detectron2.recognise(state):
        no_weights = [name for name in state if detectron2.NO_WEIGHT.search(name)]
        state = detectron2.convert(state)
    state, others = _split(state)
    if family.recognise(state):
        try:
            found = family.convert(state)
        except ValueError as error:
            raise ValueError(f'{source}: {error}') from None
        found.rest.update(others)
        found.unused += no_weights
        return f'published {family.name}', found
    for other in FAMILIES:
        if other.recognise(state):
            raise ValueError(f'{source} holds {other.name} weights, the model is {family.name}')
    ours = Conversion(tensors=state, rest=others)
    if not set(ours.tensors) & set(target):
        names = ', '.join(list(state)[:3]) or 'no tensor at all'
        raise ValueError(
            f'{source} holds neither published {family.name} weights nor our own; it has {names} '
            f'({len(state)} tensors)'
        )
    return OURS, ours


def _split(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The backbone's tensors of a whole model, by the backbone's names, and the others."""
    if not any(name.startswith('backbone.') for name in state):
        return state, {}
    others = {n: tensor for n, tensor in state.items() if not n.startswith('backbone.')}
    state = {n[len('backbone.') :]: t for n, t in state.items() if n.startswith('backbone.')}
    return state, others


def _check_size(
    tensors: Mapping[str, Tensor], target: Mapping[str, Tensor], report: LoadReport
) -> None:
    """Compare depths and channels first: one plain sentence instead of a hundred names."""
    theirs, ours = _outline(tensors), _outline(target)
    if theirs != ours:
        raise ValueError(
            f'{report.source} is of another arch: it has {_describe(theirs)}; the model has '
            f'{_describe(ours)}. Set arch to the size of the file'
        )


def _outline(tensors: Mapping[str, Tensor]) -> list[tuple[int, int]]:
    """Depth and channels of each stage."""
    blocks: dict[int, set[int]] = {}
    dims: dict[int, int] = {}
    for name, tensor in tensors.items():
        found = _BLOCK.match(name)
        if found:
            stage = int(found[1])
            blocks.setdefault(stage, set()).add(int(found[2]))
            if _NORM.search(name):
                dims[stage] = len(tensor)
    return [(len(blocks[stage]), dims.get(stage, 0)) for stage in sorted(blocks)]


def _describe(outline: list[tuple[int, int]]) -> str:
    depths = ', '.join(str(depth) for depth, _ in outline) or 'none'
    dims = ', '.join(str(dim) for _, dim in outline) or 'none'
    return f'depths {depths} and channels {dims}'


def _check_names(
    missing: list[str], unexpected: list[str], source: str, hints: Iterable[Hint] = ()
) -> None:
    if not missing and not unexpected:
        return
    problems = [
        f'{len(names)} {title} ({", ".join(names[:5])}{", ..." if len(names) > 5 else ""})'
        for title, names in (('missing', missing), ('unexpected', unexpected))
        if names
    ]
    fitting = (hint.words for hint in (*_HINTS, *hints) if hint.fits(missing, unexpected))
    words = next(fitting, None)
    hint = f' ({words})' if words else ''
    raise ValueError(f'{source} does not fit the model{hint}: {"; ".join(problems)} tensors')
