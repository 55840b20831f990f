"""What a function asks of a CUDA device, recorded once and then asked for in a single launch.

Only here are streams and graphs of PyTorch's called; what is recorded and when, is decided elsewhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

# Recordings that the driver broke off. PyTorch goes on asking them which memory is theirs, so they must not go away.
_BROKEN_OFF: list[torch.cuda.CUDAGraph] = []


@contextlib.contextmanager
def on_stream(stream: torch.cuda.Stream) -> Iterator[None]:
    """What the block asks for is done on ``stream``: after all that was asked for before, and before what follows."""
    outside = torch.cuda.current_stream(stream.device)
    stream.wait_stream(outside)
    with torch.cuda.stream(stream):
        yield
    outside.wait_stream(stream)


def recorded(work: Callable[[], Tensor], stream: torch.cuda.Stream) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """The graph of what ``work`` asks of the device of ``stream``, and where each replay leaves its result.

    Nothing is computed before the first replay. What ``work`` reads must stay where it lies for as long as the graph is
    replayed; what it makes lies in memory of the graph, until that is reset. Raises what ``work`` raises, or
    RuntimeError where it asks for something that cannot be recorded, such as a value.
    """
    graph = torch.cuda.CUDAGraph()
    memory = torch.cuda.graph_pool_handle()
    try:
        # The outer one sets the stream back where the inner one does not come to it.
        with (
            torch.cuda.stream(stream),
            # Other threads copy batches and checkpoints meanwhile: what they ask for is neither recorded nor an error.
            torch.cuda.graph(graph, pool=memory, stream=stream, capture_error_mode="thread_local"),
        ):
            result = work()
    except Exception:
        _give_up(graph, memory, stream.device)
        raise
    return graph, result


def _give_up(graph: torch.cuda.CUDAGraph, memory: tuple[int, int], device: torch.device) -> None:
    """Frees what a recording has taken that came to no end.

    PyTorch closes the recording's memory and its random numbers at its end, which one that the driver has broken off
    never reaches.
    """
    number = torch.cuda.current_device() if device.index is None else device.index
    try:
        torch._C._cuda_endAllocateToPool(number, memory)
    except RuntimeError:  # it was closed: the work erred, the recording did not
        graph.reset()
        return
    torch._C._cuda_releasePool(number, memory)
    _BROKEN_OFF.append(graph)
    # Or every later random number on the device is refused: "Offset increment outside graph capture".
    generator = torch.cuda.default_generators[number]
    generator.graphsafe_set_state(generator.clone_state())
