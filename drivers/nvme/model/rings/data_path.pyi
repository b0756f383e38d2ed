"""Types of the model's data path in C (data_path.h): queues that are served without Python.

NVM Express Base Specification 1.4, sections 3.1.24 and 3.1.25 (doorbells), 4.1 (queues), 4.3 and
4.4 (data pointers), 4.6 (completions) and 6 (NVM commands).
"""

# ruff: noqa: PYI021 - the docstrings are for editors, which cannot read them from C

from typing import final

from typing_extensions import Buffer

@final
class DataPath:
    """Reads, writes, flushes and small write zeroes that are plainly good; all else is handed out.

    Whoever calls holds the turn of the model's memory (`Iommu.turn`), but for `interrupt`. While
    `run` is under way every other call raises `BusyError`. Numbers of queues are below 128, those
    of namespaces below 64; what is out of range, or open already, or not open, raises
    `RegisterValueError`.
    """

    def __init__(
        self,
        doorbells: Buffer,
        stride: int,
        page_size: int,
        most_bytes: int,
        has_sgl: bool,
        faults: Buffer,
    ) -> None:
        """`doorbells` is a mapped page, in which one lies `stride` bytes after the other.

        `page_size` in bytes is that of PRPs (CC.MPS); a command carries `most_bytes` (MDTS).
        `faults` is `Iommu.faults`. The first run returns `Event.MEMORY` at once.
        """

    def open_completion(self, number: int, address: int, entries: int, vector: int, /) -> None:
        """Make a completion queue at an IOVA; -1: it has no vector. Its doorbell becomes 0."""

    def open_submission(self, number: int, address: int, entries: int, completion: int, /) -> None:
        """Make a submission queue at an IOVA. Its doorbell becomes 0."""

    def has_completion(self, number: int, /) -> bool:
        """Whether it is open."""

    def has_submission(self, number: int, /) -> bool:
        """Whether it is open."""

    def close_completion(self, number: int, /) -> int:
        """Forget it; no submission queue may use it any more. The vector to lower, or -1."""

    def close_submission(self, number: int, /) -> None:
        """Forget it: nothing is fetched from it any more."""

    def head(self, submission: int, /) -> int:
        """The index of the command that is fetched next."""

    def take(self, submission: int, /) -> None:
        """Go on to the next command: the caller has fetched the one at the head."""

    def completion_of(self, submission: int, /) -> int:
        """The completion queue of a submission queue."""

    def next_entry(self, completion: int, /) -> tuple[int, int] | None:
        """IOVA and phase of the next completion; None where there is no room."""

    def step(self, completion: int, /) -> int:
        """Go on to the next completion: the caller has written this one. The vector, or -1."""

    def let_wait(self, completion: int, waits: bool, /) -> None:
        """While completions wait in Python, nothing is fetched that would overtake them."""

    def set_namespace(
        self, number: int, shift: int, blocks: int, address: int, file: int, /
    ) -> None:
        """Show `blocks` of 1 << shift bytes at an address of this process; 0 blocks: it is gone.

        Or in a file, whose descriptor is -1 where there is none; it stays the caller's. Its flushes
        are handed out, and what the kernel refuses. With neither everything is discarded.
        """

    def use_shadow(self, doorbells: int, /) -> None:
        """Doorbells of I/O queues lie at this IOVA, whatever is in the mapped page."""

    def run(self, table: Buffer, mode: int, /) -> int:
        """Serve the queues until something is to be said: `Event` bits. The GIL is released.

        `table` is `Iommu.table`; it cannot change meanwhile. `mode` has the bits of
        data_path.h, enum mode. A command that memory went away under is handed out, and the next
        run returns `Event.MEMORY`: refresh the table, for C looks at what is in it only.
        """

    def interrupt(self) -> None:
        """Let `run` return soon, from any thread; it returns at once until `resume`."""

    def resume(self) -> None:
        """Let it run again."""

    @property
    def command(self) -> tuple[int, bytes]:
        """`Event.COMMAND`: the submission queue and 64 bytes, for the model to execute."""

    @property
    def trouble(self) -> tuple[int, bool, int]:
        """What events of a doorbell or of memory are about: number, is_completion, value."""

    @property
    def raised(self) -> list[int]:
        """`Event.RAISED`: vectors of queues that got completions."""

    @property
    def lowered(self) -> list[int]:
        """`Event.LOWERED`: vectors of queues that were emptied."""

    def take_work(self) -> tuple[int, int, int, int]:
        """Reads, writes, bytes read, bytes written, since it was asked last."""
