"""A stand-in for a GPU's queue: copies arrive late, and steps are captured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aim.engine.transfer import DeviceQueue, HostCopy


class LateCopy(HostCopy):
    """Arrives when the queue has been asked to keep pace ``lag`` more times, or is waited for."""

    def __init__(self, queue: LateQueue, copies: Sequence[Tensor]) -> None:
        super().__init__(copies)
        self._queue, self._due = queue, queue.paces + queue.lag

    def done(self) -> bool:
        if self._queue.broken:
            raise RuntimeError("the device is gone")
        return self._queue.paces >= self._due

    def wait(self) -> None:
        self._queue.waits += 1
        if self._queue.broken:
            raise RuntimeError("the device is gone")
        self._queue.paces = max(self._queue.paces, self._due)


class LateQueue(DeviceQueue):
    captures = True

    def __init__(self, device: torch.device, lag: int = 3) -> None:
        super().__init__(device)
        self.lag, self.paces, self.waits, self.drains = lag, 0, 0, 0
        self.broken = self.refuse = False
        self.warmed: list[Callable[[], None]] = []

    def download(self, tensors: Sequence[Tensor]) -> HostCopy:
        return LateCopy(self, [tensor.clone() for tensor in tensors])

    def pace(self) -> None:
        self.paces += 1

    def drain(self) -> None:
        self.drains += 1

    def warm(self, run: Callable[[], None]) -> None:
        run()
        run()
        self.warmed.append(run)

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        assert self.warmed[-1] == run
        if self.refuse:
            raise RuntimeError("out of memory")
        return run
