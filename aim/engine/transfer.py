"""What an engine does with a device besides computing: in order, copies go in and come out, and the
host keeps pace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from torch import Tensor

from aim.ops.capture import capture

# steps that the host may be ahead of a GPU: enough to keep it busy, few enough that a cancelled
# request leaves soon
AHEAD = 8


class HostCopy:
    """Copies on their way to the host, which take a device's memory as it was when they were
    ordered.
    """

    def __init__(self, copies: Sequence[Tensor], event: torch.cuda.Event | None = None) -> None:
        self._copies, self._event = copies, event

    def done(self) -> bool:
        """Whether they have arrived. Raises what went wrong on the device."""
        return self._event is None or self._event.query()

    def wait(self) -> None:
        """Until they have arrived."""
        if self._event is not None:
            self._event.synchronize()

    def arrays(self) -> list[np.ndarray]:
        """What has arrived, on its own memory."""
        return [
            copy.numpy() if self._event is None else copy.numpy().copy() for copy in self._copies
        ]


class DeviceQueue:
    """For a device whose calls have happened when they return, or wait by themselves: CPU, MPS."""

    captures = False

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def work(self) -> AbstractContextManager[object]:
        """Inside it the device is used, by one thread at a time."""
        return torch.inference_mode()

    def send(self, values: Tensor) -> Tensor:
        """``values`` from the host, on the device."""
        return values.to(self.device)

    def upload(self, values: Tensor, into: Tensor) -> None:
        """Write ``values`` from the host over ``into``, which is contiguous and of the same
        dtype.
        """
        into.copy_(values)

    def download(self, tensors: Sequence[Tensor]) -> HostCopy:
        """Copy ``tensors`` to the host, each contiguous."""
        return HostCopy([tensor.to("cpu", copy=True) for tensor in tensors])

    def pace(self) -> None:
        """Wait until the device is at most ``AHEAD`` calls of this behind."""

    def drain(self) -> None:
        """Wait until all that was ordered is done."""

    def warm(self, run: Callable[[], None]) -> None:
        """Let ``run`` set up what its first call on this device sets up."""
        raise NotImplementedError

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        """What does again, at once, all that ``run`` does on the device; ``run`` was warmed and
        depends on nothing on the host.
        """
        raise NotImplementedError


class CudaQueue(DeviceQueue):
    """A stream of its own on a GPU. No call waits for it but ``pace``, ``drain`` and what prepares
    a capture.
    """

    captures = True

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        # before images; and from another set of streams than theirs
        self._stream = torch.cuda.Stream(device, priority=-1)
        for other in (torch.cuda.default_stream(device), torch.cuda.current_stream(device)):
            self._stream.wait_stream(other)  # the model's weights are written there
        # of every graph: they run one after another, and leave nothing in it
        self._pool = torch.cuda.graph_pool_handle()
        self._marks = [torch.cuda.Event(blocking=True) for _ in range(AHEAD)]
        self._paces = 0

    @contextmanager
    def _work(self) -> Iterator[None]:
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            yield

    def work(self) -> AbstractContextManager[object]:
        """Inside it the device is used, by one thread at a time."""
        return self._work()

    def send(self, values: Tensor) -> Tensor:
        """``values`` from the host, on the device."""
        # its memory is kept by the allocator till it was read
        return values.pin_memory().to(self.device, non_blocking=True)

    def upload(self, values: Tensor, into: Tensor) -> None:
        """Write ``values`` from the host over ``into``, which is contiguous and of the same
        dtype.
        """
        into.copy_(values.pin_memory(), non_blocking=True)

    def download(self, tensors: Sequence[Tensor]) -> HostCopy:
        """Copy ``tensors`` to the host, each contiguous."""
        copies = [
            torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors
        ]
        for copy, tensor in zip(copies, tensors, strict=True):
            copy.copy_(tensor, non_blocking=True)
        event = torch.cuda.Event(blocking=True)
        event.record(self._stream)
        return HostCopy(copies, event)

    def pace(self) -> None:
        """Wait until the device is at most ``AHEAD`` calls of this behind."""
        mark = self._marks[self._paces % AHEAD]
        mark.synchronize()
        mark.record(self._stream)
        self._paces += 1

    def drain(self) -> None:
        """Wait until all that was ordered is done."""
        self._stream.synchronize()

    def warm(self, run: Callable[[], None]) -> None:
        """Let ``run`` set up what its first call on this device sets up: kernels are compiled and
        loaded, workspaces allocated.
        """
        for _ in range(2):
            run()
        self._stream.synchronize()

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        """What does again, at once, all that ``run`` does on the device; ``run`` was warmed and
        depends on nothing on the host.
        """
        try:
            graph, _ = capture(run, self._stream, self._pool, warm=0)
        except RuntimeError:  # PyTorch goes on believing that it records into this pool
            self._pool = torch.cuda.graph_pool_handle()
            graph, _ = capture(run, self._stream, self._pool, warm=0)
        return graph.replay


def device_queue(device: torch.device) -> DeviceQueue:
    """The queue of ``device``."""
    return CudaQueue(device) if device.type == "cuda" else DeviceQueue(device)
