"""A queue pair: one submission queue, its completion queue, and the engine that works on both.

NVMe Base Specification 1.4, section 4.1. Requests and results are numpy arrays (requests.py); the
engine (hot.c) turns them into commands and completions. One thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from uspace_drivers.nvme.engine.queue_life import QueueLife
from uspace_drivers.nvme.engine.requests import FULL, IN_FLIGHT, Result
from uspace_drivers.nvme.engine.waiting import Patience
from uspace_drivers.nvme.spec.status import Status
from uspace_drv import BusyError, DeviceError, DeviceTimeout, RegisterValueError, UspaceError

if TYPE_CHECKING:
    from uspace_drv.layout import Structures

SLICE = 0.1
"""Seconds that the engine may work on a batch before Python looks after it."""

GRACE = 0.2
"""Seconds that aborted commands may take to end."""

MOST_INTERRUPTIONS = 1000
"""Exceptions of signals' handlers that do not keep a queue from getting its memory back."""


class QueuePair(QueueLife):
    """One submission queue and its completion queue: takes requests and gives results.

    `spin` is how many seconds a wait keeps the processor busy before it sleeps, `timeout` how many
    the controller may take for a command before that is aborted. Both may be set.
    """

    def submit(self, requests: Structures, start: int = 0) -> int:
        """Hand requests from `start` on to the controller, one doorbell for all: how many went in.

        Fewer than there are when the queue is full. `RegisterValueError` names the first that is
        wrong; those before it went in.
        """
        return self.engine.submit(requests, start)

    def poll(self, least: int = 0, timeout: float = 0.0) -> Structures:
        """Results that are there: as soon as `least` are, or `timeout` seconds have passed.

        A view of `results`, good until the next call. It spins for `spin` seconds, then it sleeps.
        A controller that breaks the protocol raises `DeviceError`, and is reset.
        """
        if self._answered:
            return self._answered.pop(0)
        halts = self.halts
        try:
            spin = timeout if timeout < self.spin else self.spin  # noqa: FURB136 - min() costs
            count = self.engine.poll(self.results, least, spin)
            if count < least and timeout > self.spin:
                count = self._poll_on(count, least, timeout)
        except DeviceError as error:
            self.report(error, halts)
            raise
        return self._views[count] if count or not self._answered else self._answered.pop(0)

    def take(self) -> Structures:
        """Results that are there now, like `poll`; but who gets an error reports it himself."""
        if self._answered:
            return self._answered.pop(0)
        return self.results[: self.engine.poll(self.results)]

    def run(
        self,
        requests: Structures,
        results: Structures | None = None,
        *,
        depth: int = 0,
    ) -> Structures:
        """Do all these requests, at most `depth` at once, and return their results as they came.

        The queue is empty before and after. When nothing is answered for `timeout` seconds what is
        in flight is aborted, by a reset of the controller if need be, and nothing more is sent:
        what was not done has a status that says so.
        """
        results = Result.array(len(requests)) if results is None else results
        with self.turn or nullcontext():
            self._check_idle()
            try:
                with self._ending_well():
                    self._run(requests, results, min(depth or self.depth, self.depth))
            except BaseException:
                self._answered.clear()
                raise
        return results[: len(requests)]

    def transfer(self, *request: Any) -> int:
        """Do one request to its end; its arguments are those of `hot.Queue.transfer` but `spin`.

        Returns the status, or `NOT_SHOWN` where data lies in no DMA memory. `BusyError` where the
        queue is full of commands that were submitted and not polled.
        """
        status = self._transfer(*request)
        if status == FULL:
            raise self._busy()
        return status

    def _transfer(self, *request: Any) -> int:
        halts = self.halts
        try:
            try:
                status = self.fast(*request, self.spin)
            except DeviceError as error:
                self.report(error, halts)
                raise
            return self.finish() if status == IN_FLIGHT else status
        except BaseException:
            self.end_transfer()
            raise

    def report(self, error: DeviceError, halts: int | None = None) -> None:
        """Have the controller brought back that broke the protocol: all that is in flight ends.

        Nothing where it was meanwhile (`halts` is how often this queue was halted before), and
        nothing for a time-out: who raised that has aborted the command, or brought it back.
        """
        if halts in {None, self.halts} and not isinstance(error, DeviceTimeout):
            self.keeper.rescue(self, str(error))

    def finish(self) -> int:
        """Wait for the transfer that is in flight; its status.

        Raises `DeviceTimeout` when it is not answered within `timeout` seconds, and was aborted.
        """
        with self._ending_well():
            if (status := self._finish()) != IN_FLIGHT:
                return status
            self._end_late()
            status = self.engine.finish(0.0)
        if status == 0:
            return 0
        # Outside of the block above: it was aborted, and nothing else needs a reset.
        raise DeviceTimeout(
            f"{self.name}: no answer within {self.timeout:.1f} s; the command was aborted"
        )

    def forget(self) -> None:
        """Be as new, for somebody else: wait for what is in flight, and drop its results."""
        self.drain()
        self._answered.clear()

    def drain(self) -> None:
        """Wait until nothing is in flight, or abort it; results are kept for `poll`.

        It is done when this returns or raises what a signal's handler raised meanwhile, as Ctrl-C
        does; that ends the waiting, and not the aborting.
        """
        self._insist(self._drain)

    def end_transfer(self) -> None:
        """Leave no transfer in flight: to be called for any exception that came out of one.

        That of a signal's handler comes in the middle, and the caller's memory would be written
        when somebody else has it. Results of other commands are kept for `poll`.
        """
        if self.turn is None:  # who shares the queue has done so while it was his turn
            self._insist(self._end_transfer)

    def _transfer_in_turn(self, *request: Any) -> int:
        """Do one request to its end before another thread begins one."""
        with self.turn or nullcontext():
            try:
                status = self.engine.transfer(*request)
                return self.finish() if status == IN_FLIGHT else status
            except BaseException:
                self._insist(self._end_transfer)
                raise

    def _insist(self, work: Callable[[float], None]) -> None:
        """Do it, with a time-out in seconds, whatever signals' handlers raise; then raise that."""
        interruption, timeout = None, self.timeout
        for _ in range(MOST_INTERRUPTIONS):
            try:
                work(timeout)
                break
            except UspaceError:
                raise
            except BaseException as error:  # noqa: BLE001 - it is raised below
                interruption, timeout = error, 0.0
        if interruption is not None:
            raise interruption

    def _drain(self, timeout: float) -> None:
        if not self._settle(timeout):
            self._end_late()

    def _end_transfer(self, timeout: float) -> None:
        try:
            is_over = self._undisturbed(lambda: self.engine.finish(0.0)) != IN_FLIGHT
        except RegisterValueError:  # there is none
            return
        except DeviceError as error:
            self.report(error)
            return
        if not is_over:
            self._drain(timeout)

    def _check_idle(self) -> None:
        if self._halted is not None:
            self._halted.require_open()
        if self.in_flight or self._answered:
            raise self._busy()

    def _busy(self) -> BusyError:
        return BusyError(f"{self.name}: {self.in_flight} commands are in flight: poll() first")

    def _run(self, requests: Structures, results: Structures, depth: int) -> None:
        """Keep `depth` of them in flight; after an abort or a reset, send no more."""
        halts, before, done, total = self.halts, self.hot.submitted, 0, len(requests)
        patience = Patience(self.vector, self.keeper, self.timeout)
        is_polled = self.vector is None and self.engine is self.hot
        while done < total:
            mark, sent = patience.mark, self.hot.submitted - before
            if halts != self.halts and (sent == done or patience.is_over):
                _fill_in(results[done:], requests[done:])
                return
            if is_polled and halts == self.halts and sent == done:
                count = self.hot.run(requests[sent:], results[done:], depth, SLICE)
            else:
                if halts == self.halts and not is_polled:
                    self.engine.submit(requests[: min(total, done + depth)], sent)
                count = self._take(results[done:], self.in_flight // 4 + 1)
            if count:
                done += count
                patience.renew()
            elif patience.is_over:
                halts = -1
                self._end_late()
                patience.renew()
            elif sent == self.hot.submitted - before:
                patience.sleep(mark)

    def _take(self, results: Structures, least: int) -> int:
        """Results that were kept, or come now."""
        if not self._answered:
            return self.engine.poll(results, least, self.spin)
        kept = self._answered.pop(0)
        results[: len(kept)] = kept
        return len(kept)

    def _poll_on(self, count: int, least: int, timeout: float) -> int:
        """Sleep until enough is there, time is up, or another thread has halted the queue."""
        patience = Patience(self.vector, self.keeper, timeout)
        try:
            while count < least and not self._answered:
                mark = patience.mark
                count += self.engine.poll(self.results[count:])
                if count >= least or patience.is_over:
                    break
                patience.sleep(mark)
        except BaseException:
            self._answered += [self.results[:count].copy()] if count else []
            raise
        return count

    def _finish(self) -> int:
        """Sleep until the transfer is answered: its status, or that it is in flight."""
        patience = Patience(self.vector, self.keeper, self.timeout)
        while True:
            mark, is_over = patience.mark, patience.is_over
            status = self.engine.finish(0.0)
            if status != IN_FLIGHT or is_over:
                return status
            patience.sleep(mark)

    def _settle(self, timeout: float) -> bool:
        """Wait until nothing is in flight, and keep the results."""
        patience = Patience(self.vector, self.keeper, timeout)
        while self.in_flight:
            mark = patience.mark
            if count := self.engine.poll(self.results):
                self._answered.append(self.results[:count].copy())
            elif patience.is_over:
                return False
            else:
                patience.sleep(mark)
        return True

    def _end_late(self) -> None:
        """End what is in flight and late: by aborts, and where they do not help by a reset."""
        halts = self.halts
        try:
            self.keeper.abort_all(self)
            is_settled = self._settle(GRACE)
        except DeviceError:  # the reset comes to the same conclusion, or helps
            is_settled = False
        if not is_settled and halts == self.halts:
            self.keeper.rescue(self, f"no answer within {self.timeout:.1f} s")

    @contextmanager
    def _ending_well(self) -> Iterator[None]:
        """Leave nothing in flight when the caller hears of an error: its memory would be written.

        A controller that broke the protocol is reset, unless it was meanwhile.
        """
        halts = self.halts
        try:
            yield
        except DeviceError as error:
            self.report(error, halts)
            raise
        except BaseException:
            self.drain()
            raise


def _fill_in(results: Structures, requests: Structures) -> None:
    """Answer requests that were never sent."""
    results["tag"] = requests["tag"]
    results["status"] = Status.ABORTED_BY_HOST
    results["result"] = 0
