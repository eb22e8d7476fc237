"""What a published file holds and where each tensor belongs, without the package's own rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import tiny_backbones
import torch
from golden_cases import GoldenCase
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@dataclass
class Layout:
    """The tensors of a published file.

    Attributes:
        shapes (dict[str, tuple]): By published name.
        places (dict[str, list[str]]): By our name, the published ones that a tensor is made of.
        tied (dict[str, str]): Second copies, and what each is a copy of.
        unread (list[str]): What has no place in a model, as a report names it.
        classifier (list[str]): What of it a classifier needs.
        buffers (list[str]): What is no parameter.
        integers (list[str]): What is no floating-point tensor.
        never_read (int): How many numbers no output depends on.
    """

    shapes: dict[str, tuple] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)
    tied: dict[str, str] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    classifier: list[str] = field(default_factory=list)
    buffers: list[str] = field(default_factory=list)
    integers: list[str] = field(default_factory=list)
    never_read: int = 0

    def add(self, name: str, shape: Sequence[int], *ours: str) -> None:
        """Add a tensor, and our names of what it is a part of."""
        self.shapes[name] = tuple(shape)
        for place in ours:
            self.places.setdefault(place, []).append(name)
        if not ours:
            self.unread.append(name)

    def buffer(self, name: str, shape: Sequence[int], *ours: str, integers: bool = False) -> None:
        """Add what is no parameter."""
        self.add(name, shape, *ours)
        self.buffers.append(name)
        if integers:
            self.integers.append(name)

    def layer(self, name: str, ours: str, *weight: int, bias: bool = True) -> None:
        """Add a weight, and a bias of as many numbers as the weight has rows."""
        self.add(f'{name}.weight', weight, f'{ours}.weight')
        if bias:
            self.add(f'{name}.bias', weight[:1], f'{ours}.bias')

    def batch_norm(self, name: str, ours: str | None, dim: int) -> None:
        """Add a batch normalisation, or one of the classifier's."""
        if ours:
            self.layer(name, ours, dim)
        else:
            self.of_classifier(name, dim)
        for leaf, shape in (
            ('running_mean', (dim,)),
            ('running_var', (dim,)),
            ('num_batches_tracked', ()),
        ):
            places = [f'{ours}.{leaf}'] if ours else []
            self.buffer(f'{name}.{leaf}', shape, *places, integers=not shape)
            self.classifier += [] if ours else [f'{name}.{leaf}']

    def twin(self, name: str, first: str) -> None:
        """Add a second copy of a layer."""
        for leaf in ('weight', 'bias'):
            self.shapes[f'{name}.{leaf}'] = self.shapes[f'{first}.{leaf}']
            self.tied[f'{name}.{leaf}'] = f'{first}.{leaf}'

    def of_classifier(self, name: str, *weight: int) -> None:
        """Add what only a classifier needs."""
        self.add(f'{name}.weight', weight)
        self.add(f'{name}.bias', weight[:1])
        self.classifier += [f'{name}.weight', f'{name}.bias']

    def parameters(self, of_backbone: bool = False) -> int:
        """How many numbers a published model learns, or its backbone does that an output reads."""
        left_out = {*self.tied, *self.buffers, *(self.classifier if of_backbone else ())}
        counted = (shape for name, shape in self.shapes.items() if name not in left_out)
        count = sum(torch.Size(shape).numel() for shape in counted)
        return count - (self.never_read if of_backbone else 0)


@dataclass
class Change:
    """A model of other options than its file's, and what becomes of tensors; patterns of our names.

    Attributes:
        parts (dict): The model's options that differ.
        options (dict): Those that it shares with the file.
        unused (str): What the model has no use for.
        new (str): What the model has and starts new, with a warning.
        resized (str): What is of another size.
    """

    parts: dict
    options: dict = field(default_factory=dict)
    unused: str = ''
    new: str = ''
    resized: str = ''


@dataclass
class Odd:
    """A file that a model refuses.

    Attributes:
        state (Callable): Makes it.
        words (Sequence): What the message says; of a tuple, one.
        options (dict): The model's.
    """

    state: Callable[[], dict[str, Tensor]]
    words: Sequence[str | tuple[str, ...]]
    options: dict = field(default_factory=dict)


class PublishedFiles:
    """A paper's files and the models that take them.

    Options are those of the backbone; a file is laid out as its paper's model with them.

    Attributes:
        golden (str): How the golden cases are called.
        backbone (type): The class of the models.
        archs (dict): Its sizes.
        arch (dict): A tiny one.
        options (dict): More options of the tiny model.
        file_only (tuple[str, ...]): Options of files that a backbone has not.
        variants (dict[str, dict]): Options that change what is in a file.
        sizes (dict[str, dict]): Options of the published sizes.
        millions (dict[str, tuple]): Options, parameters as a paper counts them, how exactly.
        own (dict[str, dict]): Options that change what is in our own files.
        same_tensors (dict[str, dict]): Options that do not.
        changes (dict[str, Change]): Models of other options than a file's.
        needed (list[str]): Our names of some tensors without each of which a file is refused.
        unconvertible (str): Which odd file is refused by its names or shapes alone.
        other_buffers (list[str]): Published names of what other options of the paper's code save.
        report (tuple[dict, dict, str]): Options, those of the model alone, the report of it.
    """

    golden: str
    backbone: type
    archs: dict
    arch: dict
    options: dict = {}
    file_only: tuple[str, ...] = ()
    variants: dict[str, dict] = {'plain': {}}
    sizes: dict[str, dict]
    millions: dict[str, tuple] = {}
    own: dict[str, dict]
    same_tensors: dict[str, dict] = {}
    changes: dict[str, Change]
    needed: list[str]
    unconvertible: str
    other_buffers: list[str] = []
    report: tuple[dict, dict, str]

    def __init__(self) -> None:
        self._made: dict[str, dict[str, Tensor]] = {}

    @property
    def name(self) -> str:
        """As messages call the family."""
        return self.backbone.family.name

    def layout(self, **options) -> Layout:
        """Lay out a file by the published rules of naming."""
        options = {'arch': self.arch, **self.options, **options}
        arch, layout = options.pop('arch'), Layout()
        arch = dict(base=arch) if isinstance(arch, str) else arch
        self.fill(layout, {**self.archs.get(arch.get('base'), {}), **arch}, **options)
        return layout

    def fill(self, layout: Layout, arch: dict, **options) -> None:
        """Add a file's tensors."""
        raise NotImplementedError

    def relayout(self, ours: str, tensors: list[Tensor]) -> Tensor:
        """What a tensor of ours is, made of the published ones the slow way."""
        raise NotImplementedError

    def of_case(self, case: GoldenCase) -> dict:
        """Options of a golden case."""
        raise NotImplementedError

    def odd(self) -> dict[str, Odd]:
        """Files that are refused; nothing is made yet."""
        raise NotImplementedError

    def state(self, **options) -> dict[str, Tensor]:
        """Make a file with random values, so small that a float64 output keeps its last digits."""
        made = self._made.get(repr(options))
        if made is None:
            made = self._made[repr(options)] = self._make(options)
        return {name: tensor.clone() for name, tensor in made.items()}

    def _make(self, options: dict) -> dict[str, Tensor]:
        torch.manual_seed(0)
        layout, state = self.layout(**options), {}
        for name, shape in layout.shapes.items():
            if name in layout.integers:
                state[name] = torch.randint(1, 10**6, shape)
            elif name in layout.tied:
                state[name] = state[layout.tied[name]].clone()
            else:
                state[name] = torch.randn(shape) * (0.2 if len(shape) > 1 else 1)
            if name.endswith('.running_var'):
                state[name].abs_().add_(0.5)
        return state

    def ours(self, state: dict[str, Tensor] | None = None, **options) -> dict[str, Tensor]:
        """What a file's tensors are in a model of its options; by default, of :meth:`state`."""
        state = self.state(**options) if state is None else state
        return {
            name: self.relayout(name, [state[published] for published in sources])
            for name, sources in self.layout(**options).places.items()
        }

    def without(self, *names: str, **options) -> dict[str, Tensor]:
        """Make a file that lacks tensors."""
        return {n: t for n, t in self.state(**options).items() if n not in names}

    def changed(self, name: str, *shape: int, **options) -> dict[str, Tensor]:
        """Make a file in which a tensor is of another shape."""
        return {**self.state(**options), name: torch.ones(shape)}

    def shapes_only(self, **options) -> dict[str, Tensor]:
        """Make a file of one zero a tensor, of a small type, which take no memory."""
        layout = self.layout(**options)
        zero = {True: torch.zeros((), dtype=torch.int8), False: torch.zeros((), dtype=torch.half)}
        return {n: zero[n in layout.integers].expand(s) for n, s in layout.shapes.items()}

    def build(self, seed: int = 1, **options) -> nn.Module:
        """Build a model, by default one that has no more than a file."""
        torch.manual_seed(seed)
        options = {
            **dict(arch=self.arch, out_norm=None, drop_path_rate=0.0),
            **self.options,
            **options,
        }
        return self.backbone(**{n: v for n, v in options.items() if n not in self.file_only})

    def shapes_only_model(self, **options) -> nn.Module:
        """Build a model that takes no memory either."""
        with torch.device('meta'), WithoutValues():
            return self.build(**options)

    def trained(self, **options) -> nn.Module:
        """Build a model with random parameters and statistics."""
        model = tiny_backbones.randomise(self.build(**options))
        for name, tensor in model.state_dict().items():
            if name.endswith('.num_batches_tracked'):
                tensor.fill_(7)
        return model


class WithoutValues(TorchFunctionMode):
    """Save the time that in-place operations take on tensors that have no values."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        first, name = args[0] if args else None, getattr(func, '__name__', '')
        in_place = re.search('[^_]_$', name) and name != 'requires_grad_'
        if in_place and isinstance(first, Tensor) and first.is_meta:
            return first
        return func(*args, **(kwargs or {}))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two state dicts are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def bilinear(table: Tensor, size: int) -> Tensor:
    """Resize (heads, side ** 2): centres of cells, borders repeated."""
    side = round(table.shape[1] ** 0.5)
    weights = torch.zeros(size, side, dtype=torch.float64)
    for row in range(size):
        place = min(max((row + 0.5) * side / size - 0.5, 0), side - 1)
        low = min(int(place), max(side - 2, 0))
        weights[row, low] += 1 - (place - low)
        if place > low:
            weights[row, low + 1] += place - low
    grid = table.double().unflatten(1, (side, side))
    return (weights @ grid @ weights.T).flatten(1)


def published_bias(table: Tensor, queries: tuple, keys: tuple, centre: int) -> Tensor:
    """Bias of queries and keys at (y, x) places; (heads, side ** 2), its rows from key to query."""
    side = round(table.shape[1] ** 0.5)
    qy, qx = (coordinate[:, None] for coordinate in queries)
    ky, kx = keys
    return table[:, (qy - ky + centre) * side + qx - kx + centre]


def places(side: int, start: int = 0) -> tuple[Tensor, Tensor]:
    """Rows and columns of the tokens of a square, in row-major order."""
    y, x = torch.meshgrid(*[torch.arange(side) + start] * 2, indexing='ij')
    return y.flatten(), x.flatten()
