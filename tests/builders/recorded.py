"""CUDA graphs where there is no card: operations on the CPU are recorded one by one, and asked for again by a replay.

As on a card, nothing is computed while it is recorded, numbers are recorded as they are, tensors by where they lie, and
whoever asks for a value breaks the recording off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU = torch.device("cpu")
VALUES = (torch.ops.aten._local_scalar_dense.default,)  # what ``float(tensor)`` and ``if tensor`` ask for


class Recording(TorchDispatchMode):
    """Operations with the very tensors that they were given and gave."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []
        self.is_broken = False
        self._before: list[tuple[Tensor, Tensor]] = []  # what is written to, and a copy of what was there

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in VALUES:
            self.is_broken = True
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        for number, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                given = args[number] if number < len(args) else kwargs.get(argument.name)
                self._before += [(each, each.clone()) for each in tree_leaves(given) if isinstance(each, Tensor)]
        result = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, result))
        return result

    def undo(self) -> None:
        with torch.no_grad():
            for tensor, values in reversed(self._before):
                tensor.copy_(values)
        self._before = []

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, result in self.calls:
                again = func(*args, **kwargs)
                for kept, new in zip(tree_leaves(result), tree_leaves(again)):
                    if isinstance(kept, Tensor) and kept.data_ptr() != new.data_ptr():
                        kept.copy_(new)


class StandIn:
    """In the place of torch.cuda's streams and graphs; ``journal`` is what was asked of them."""

    def __init__(self) -> None:
        self.journal: list[str] = []
        stand_in = self

        class Stream:
            device = CPU

            def __init__(self, device=None) -> None:
                self.waited = 0

            def wait_stream(self, other) -> None:
                self.waited += 1

        class CUDAGraph:
            recording: Recording | None = None

            def replay(self) -> None:
                assert self.recording is not None, "replayed after it was reset, or before it was recorded"
                stand_in.journal.append("replayed")
                self.recording.replay()

            def reset(self) -> None:
                stand_in.journal.append("reset")
                self.recording = None

        class graph:
            def __init__(self, cuda_graph, pool=None, stream=None, capture_error_mode="global") -> None:
                assert capture_error_mode == "thread_local"  # threads copy batches meanwhile
                self._graph = cuda_graph
                self._stream = stream

            def __enter__(self) -> None:
                assert self._stream is not None
                assert self._stream is not stand_in.default
                stand_in.current = self._stream
                stand_in.is_open = True
                stand_in.gives_random_numbers = False
                self._recording = Recording()
                self._recording.__enter__()

            def __exit__(self, *error) -> None:
                self._recording.__exit__(*error)
                self._recording.undo()
                if (
                    self._recording.is_broken
                ):  # as PyTorch's: neither memory nor generator is closed, the stream not set back
                    raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
                stand_in.is_open = False
                stand_in.gives_random_numbers = True
                stand_in.current = stand_in.default
                self._graph.recording = self._recording
                stand_in.journal.append("recorded")

        self.Stream = Stream
        self.CUDAGraph = CUDAGraph
        self.graph = graph
        self.default = Stream()
        self.current = self.default
        self.is_open = False  # the memory of a recording
        self.gives_random_numbers = True  # outside of a recording: not in one, nor after one that was broken off
        self.generator = SimpleNamespace(clone_state=lambda: "clone", graphsafe_set_state=self.set_generator)

    def set_generator(self, state: str) -> None:
        assert state == "clone"
        self.gives_random_numbers = True

    @contextlib.contextmanager
    def stream(self, stream) -> Iterator[None]:
        before = self.current
        self.current = stream
        try:
            yield
        finally:
            self.current = before

    def close_memory(self, number: int, memory: tuple[int, int]) -> None:
        if not self.is_open:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.is_open = False

    def __call__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("Stream", "CUDAGraph", "graph", "stream"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: self.current)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "default_generators", (self.generator,))
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: self.journal.append("waited"))
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", self.close_memory, raising=False)
        freed = lambda number, memory: self.journal.append("freed")  # noqa: E731
        monkeypatch.setattr(torch._C, "_cuda_releasePool", freed, raising=False)
