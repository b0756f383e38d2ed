"""The verbs of the command line, which are methods of the driver for programs too.

Each is short: what it does is in facts.py, copying.py, bench.py, and below those in the controller,
its namespaces and queue pairs (NVM Express Base Specification 1.4).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, overload

from uspace_drivers.nvme.control.identity import NamespaceIdentity
from uspace_drivers.nvme.spec.commands import SecureErase
from uspace_drivers.nvme.verbs.bench import Bench, BenchFacts, Load, Pattern
from uspace_drivers.nvme.verbs.copying import DEPTH, Copied, Pipeline, Region, copy_in, copy_out
from uspace_drivers.nvme.verbs.facts import (
    ControllerFacts,
    Health,
    NamespaceDetails,
    NamespaceFacts,
    controller_facts,
    health,
    namespace_details,
    namespace_facts,
)
from uspace_drivers.nvme.verbs.files import STANDARD, Sink, Source
from uspace_drivers.nvme.verbs.soak import Plan, Soak, SoakFacts, new_seed
from uspace_drv import RegisterValueError, UnsupportedError
from uspace_drv.verbs import Progress, Size, destructive

if TYPE_CHECKING:
    from uspace_drivers.nvme.control.controller import Controller
    from uspace_drivers.nvme.engine.queue import QueuePair
    from uspace_drivers.nvme.storage.namespace import Namespace
    from uspace_drivers.nvme.storage.queues import Queues


class Verbs:
    """What can be asked of an NVMe controller in a word. Blocks are numbered from 0.

    A namespace or block that is not there raises `RegisterValueError`, what the controller refuses
    `CommandError`, a file that cannot be read or written `HostError`.
    """

    controller: Controller
    queues: Queues
    namespaces: dict[int, Namespace]
    refused: dict[int, str]

    if TYPE_CHECKING:

        def rescan(self) -> None:
            """Ask which namespaces there are."""

    @overload
    def identify(self) -> ControllerFacts: ...
    @overload
    def identify(self, *, namespace: int) -> NamespaceDetails: ...
    def identify(self, *, namespace: int | None = None) -> ControllerFacts | NamespaceDetails:
        """Say what the controller is and can do, or with --namespace, what that one is."""
        if namespace is None:
            return controller_facts(self.controller.identity)
        return namespace_details(self._identity(namespace))

    def list(self) -> tuple[NamespaceFacts, ...]:
        """List the namespaces: size, block size, what is used, format."""
        return tuple(map(namespace_facts, map(self._identity, self._ids())))

    def smart(self) -> Health:
        """Say how the controller is: warnings, temperatures, wear, what it has done so far."""
        return health(self.controller.smart_log())

    def read(self, lba: int, *, blocks: int = 1, namespace: int = 1) -> bytes:
        """Return what is in some blocks, from block LBA on."""
        target = self._namespace(namespace)
        if blocks < 1:
            raise RegisterValueError(f"namespace {namespace}: {blocks} blocks: give 1 or more")
        return bytes(target.read(lba, blocks))

    @destructive("namespace {namespace} is overwritten from block {lba} on")
    def write(self, lba: int, data: bytes, *, namespace: int = 1, pad: bool = False) -> None:
        """Write bytes from block LBA on, and flush them to the medium.

        A last block that would not be full is refused; with --pad, zeroes fill it up.
        """
        target = self._namespace(namespace)
        if not data:
            raise RegisterValueError("data: it is empty; give at least one byte")
        if not pad:
            Region(target, lba).check_whole(len(data), "data")
        rest = -len(data) % target.block_size
        target.write(lba, data + bytes(rest))
        target.flush()

    @destructive("namespace {namespace} is overwritten from block {lba} on")
    def copy_in(
        self,
        file: Path,
        *,
        lba: int = 0,
        namespace: int = 1,
        pad: bool = False,
        progress: Progress | None = None,
    ) -> Copied:
        """Write the whole of FILE (- is standard input) from block LBA on, and flush it.

        What does not fit is refused before anything is written, where the size of FILE is known.
        A last block that would not be full is refused; with --pad, zeroes fill it up. What is all
        zeroes becomes Write Zeroes, where the controller has that.
        """
        started = time.monotonic()
        region = Region(self._namespace(namespace), lba)
        with (
            Source(file) as source,
            self._pipeline(namespace) as pipe,
            _saying(pipe.settle, f"namespace {namespace} has", "later blocks may be new"),
        ):
            size, zeroes = copy_in(pipe, source, region, pad=pad, progress=progress)
            pipe.namespace.flush()
        return _copied(size, zeroes, started)

    def copy_out(
        self,
        file: Path,
        *,
        lba: int = 0,
        size: Size | None = None,
        namespace: int = 1,
        progress: Progress | None = None,
    ) -> Copied | None:
        """Read what follows from block LBA on, or SIZE bytes, into FILE (- is standard output).

        FILE is replaced if it is there, and gets holes where there are many zeroes. The size may
        end within a block.
        """
        started = time.monotonic()
        region = Region(self._namespace(namespace), lba)
        size = region.room if size is None else size
        region.check(size, str(file))
        with (
            self._pipeline(namespace) as pipe,
            Sink(file) as sink,
            _saying(lambda: sink.size or None, f"{sink.name} has", "it lacks the rest"),
        ):
            copy_out(pipe, sink, region, size, progress)
        return None if str(file) == STANDARD else _copied(size, sink.holes, started)

    @destructive("{blocks} blocks of namespace {namespace} from block {lba} on are lost")
    def trim(self, lba: int, blocks: int, *, namespace: int = 1) -> None:
        """Tell the controller that some blocks hold nothing that is needed."""
        self._namespace(namespace).trim([(lba, blocks)])

    @destructive("all data of namespace {namespace} is lost")
    def format(
        self,
        *,
        namespace: int = 1,
        block_size: Size | None = None,
        erase: SecureErase = SecureErase.NONE,
        timeout: float = 600.0,
    ) -> NamespaceFacts:
        """Format a namespace, without metadata; its block size stays unless another is given."""
        identity = self._identity(namespace)
        size = identity.block_size if block_size is None else block_size
        index = _format_index(identity, size)
        self.controller.format(namespace, index, erase=erase, timeout=timeout)
        self.rescan()
        return namespace_facts(self._identity(namespace))

    @destructive("random data is written all over namespace {namespace}", when="write")
    def bench(  # noqa: PLR0913 - one argument for each option
        self,
        *,
        depth: int = 32,
        size: Size = 4096,
        seconds: float = 5.0,
        pattern: Pattern = Pattern.RANDOM,
        write: bool = False,
        namespace: int = 1,
        progress: Progress | None = None,
    ) -> BenchFacts:
        """Measure commands and bytes a second, and how long commands take.

        Keeps DEPTH commands of SIZE bytes in flight for so many SECONDS. Percentiles are those of
        the last million commands. With --write it writes, which destroys what is there.
        """
        load = Load(depth, size, pattern, write)
        target = self._namespace(namespace)
        with self._queue(depth) as pair, closing(Bench(pair, target, load)) as bench:
            return bench.run(seconds, progress)

    @destructive("random data is written all over namespace {namespace}")
    def soak(  # noqa: PLR0913 - one argument for each option
        self,
        *,
        seconds: float = 60.0,
        seed: int | None = None,
        workers: int = 4,
        size: Size = 256 << 20,
        namespace: int = 1,
        progress: Progress | None = None,
    ) -> SoakFacts:
        """Write and read at random for so many SECONDS, and check every byte that comes back.

        WORKERS threads share SIZE bytes, spread over the namespace. The seed is random unless one
        is given; an error names it, and with it the same commands come again. Wrong data is an
        error that says which block, what was expected and what was found.
        """
        plan = Plan(new_seed() if seed is None else seed, workers, size)
        target = self._namespace(namespace)
        return Soak(self.controller, self.queues, target, plan).run(seconds, progress)

    def _namespace(self, number: int) -> Namespace:
        """Return one that can be read and written."""
        found = self.namespaces.get(number)
        if found is None and number in self.refused:
            raise UnsupportedError(self.refused[number])
        return found or self._miss(number)

    def _identity(self, number: int) -> NamespaceIdentity:
        """Ask now: what is used, and the format, change."""
        found = self.controller.identify_namespace(number) if number in self._ids() else None
        return found or self._miss(number)

    def _ids(self) -> Sequence[int]:
        return sorted(self.namespaces.keys() | self.refused.keys())

    def _miss(self, number: int) -> NoReturn:
        there = ", ".join(map(str, self._ids())) or "none"
        name = self.controller.name
        raise RegisterValueError(f"{name}: there is no namespace {number}; there are: {there}")

    @contextmanager
    def _queue(self, depth: int) -> Iterator[QueuePair]:
        """Have a queue pair for a while."""
        pair = self.queues.open(depth)
        try:
            yield pair
        finally:
            self.queues.close(pair)

    @contextmanager
    def _pipeline(self, namespace: int) -> Iterator[Pipeline]:
        """Have several commands at once for a while."""
        target = self._namespace(namespace)
        has_zeroes = self.controller.identity.io_support.write_zeroes
        with (
            self._queue(DEPTH) as pair,
            closing(Pipeline(pair, target, has_write_zeroes=has_zeroes)) as pipe,
        ):
            yield pipe


@contextmanager
def _saying(done: Callable[[], int | None], who: str, rest: str) -> Iterator[None]:
    """Whatever ends a copy before its time, say how much of it is done, if it had begun."""
    try:
        yield
    except BaseException as error:
        count = done()
        if count is not None:
            error.add_note(f"{who} the first {count} bytes; {rest}")
        raise


def _copied(size: int, zeroes: int, started: float) -> Copied:
    duration = time.monotonic() - started
    return Copied(size, zeroes, duration, throughput=size / duration)


def _format_index(found: NamespaceIdentity, block_size: int) -> int:
    """Return the first format with such blocks and no metadata."""
    plain = {1 << each.lbads: each for each in found.formats if each.lbads and not each.ms}
    if block_size not in plain:
        sizes = ", ".join(map(str, sorted(plain))) or "none"
        raise UnsupportedError(
            f"namespace {found.id}: no format has blocks of {block_size} bytes; there are: {sizes}"
        )
    return found.formats.index(plain[block_size])
