"""Copies of a model for trials, made so that a machine holds the weights once.

In: a model that transformers has read. Out: copies that trials may change. transformers maps the
files of a model, so pages that nobody has written to are the same memory in all processes. Weights
of a copy that nobody trains are mapped again and need no memory of their own. Others are copied
from a mapping that is given up at once. Weights in another dtype than their file's are made from
it for every copy, so that between two copies a process holds nothing but the mapping.
"""

from __future__ import annotations

import copy
import itertools
import mmap
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from symnoise_ray.errors import UserError

_MAPS = Path("/proc/self/smaps")
"""The mappings of this process; Linux alone has it."""
_HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ (\d+) +(/.*)")
_WRITTEN = re.compile(r"Anonymous: +(\d+) kB")


class _Region(NamedTuple):
    """Addresses that show a file, from an offset on, in bytes; none of them was written to."""

    start: int
    end: int
    offset: int
    inode: int
    file: Path


class _State(NamedTuple):
    """What changes when a file is replaced (its inode), or written to."""

    inode: int
    size: int
    modified: int


class _Place(NamedTuple):
    """Where in a file a tensor lies, in bytes."""

    file: Path
    offset: int


class Pristine:
    """A model as it was read, which nobody may change, and where on disk its weights lie."""

    def __init__(self, model: nn.Module, as_stored: Callable[[], nn.Module]) -> None:
        """Give the memory back of weights that can be read again.

        Args:
            model: The model.
            as_stored: Reads it again, with the dtype of its files.
        """
        self.model = model
        self._sources = {id(tensor): tensor for tensor in _tensors(model)}
        self._places = _places(model)
        if _MAPS.exists() and len(self._places) < len(list(model.parameters())):
            self._find_in_files(as_stored())
        self._states = {place.file: _state(place.file) for place in self._places.values()}

    def _find_in_files(self, stored: nn.Module) -> None:
        """Let weights come from the same model as its files have it, where they are the same."""
        places = _places(stored)
        originals = dict(stored.named_parameters())
        for name, tensor in self.model.named_parameters():
            original = originals[name]
            if id(tensor) in self._places or id(original) not in places:
                continue
            if torch.equal(original.to(tensor.dtype), tensor):
                self._sources[id(tensor)] = original
                self._places[id(tensor)] = places[id(original)]
                tensor.data = tensor.data.new_empty(0)

    def copy(self, *, shared: bool) -> nn.Module:
        """A copy of the model.

        Args:
            shared: Whether the weights may lie in memory that all processes of a machine share, as
                is best where they are not trained, or move to a GPU. To write to them is safe, and
                costs memory of their own after all.

        Raises:
            UserError: a file of the model was written to since it was read.
        """
        files = {file: _mapped(file, state) for file, state in self._states.items()}
        memo: dict[int, Tensor] = {}
        for tensor in _tensors(self.model):
            source, place = self._sources[id(tensor)].data, self._places.get(id(tensor))
            if place is None:
                continue
            if (opened := files[place.file]) is not None:
                source = torch.frombuffer(
                    opened, dtype=source.dtype, count=source.numel(), offset=place.offset
                ).view(source.shape)
            # A copy lies where torch puts it. Products with one row depend on the place of a weight
            # in their last bit, and a trained model must answer alike once it is read from disk.
            stays = shared and opened is not None and source.dtype == tensor.dtype
            again = source if stays else source.to(tensor.dtype, copy=True)
            if isinstance(tensor, nn.Parameter):
                again = nn.Parameter(again, tensor.requires_grad)
            memo[id(tensor)] = again
        return copy.deepcopy(self.model, memo)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(model.parameters(), model.buffers())


def _places(model: nn.Module) -> dict[int, _Place]:
    """By the `id` of a tensor: its place, where a file holds it as it is in memory."""
    regions, places = _regions(), {}
    for tensor in _tensors(model):
        start, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        for region in regions if tensor.is_contiguous() and tensor.nbytes else ():
            offset = region.offset + start - region.start
            if region.start <= start and end <= region.end and not offset % tensor.itemsize:
                places[id(tensor)] = _Place(region.file, offset)
    return places


def _regions() -> list[_Region]:
    """The files that this process has mapped and has not written to; empty where none can be told.

    What was written to a private mapping is not in its file.
    """
    found: list[_Region] = []
    if not _MAPS.exists():
        return found
    head = None
    for line in _MAPS.read_text().splitlines():
        if (written := _WRITTEN.match(line)) and head is not None:
            start, end, offset = (int(number, 16) for number in head.groups()[:3])
            region = _Region(start, end, offset, int(head[4]), Path(head[5]))
            if written[1] == "0" and _is_there(region):
                found.append(region)
        elif re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            head = _HEAD.fullmatch(line)
    return found


def _is_there(region: _Region) -> bool:
    """Whether the name still leads to the file that is mapped."""
    state = _state(region.file)
    return state is not None and state.inode == region.inode


def _state(file: Path) -> _State | None:
    """The state of a file; None where there is none."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return _State(found.st_ino, found.st_size, found.st_mtime_ns)


def _mapped(file: Path, before: _State | None) -> mmap.mmap | None:
    """The bytes of a file; what is written to them stays with this mapping.

    None where another file has taken its place: the model in memory still has the first one's.

    Raises:
        UserError: it was written to since the state `before`, and with it the model in memory.
    """
    now = _state(file)
    if now is None or before is None or now.inode != before.inode:
        return None
    if now != before:
        raise UserError(
            f"{file}: must stay as it is while trials begin with it, but was written to; put the "
            "weights back and start the sweep again"
        )
    with file.open("rb") as opened:
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
