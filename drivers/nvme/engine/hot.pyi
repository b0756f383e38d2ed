"""Types of the engine in C (hot.h): queue pairs and the memory that they may show to a controller.

It follows the NVM Express Base Specification 1.4: sections 3.1.24 and 3.1.25 (doorbells), 4.1 to
4.6 (queues, commands, PRP lists, SGLs, completions) and 6 (NVM commands). No call allocates
anything for a command, and none calls back into Python.
"""

# ruff: noqa: PYI021 - the docstrings are for editors, which cannot read them from C

from typing import Any, TypeAlias, final

from numpy.typing import NDArray
from typing_extensions import Buffer

# numpy's stubs call an array a buffer from Python 3.12 on only.
_Array: TypeAlias = NDArray[Any] | Buffer

@final
class Memory:
    """DMA memory that the queues of one controller may name to it. Any thread may use it.

    It keeps the arrays alive, and neither addresses nor IOVAs of two of them overlap.
    """

    def __init__(self) -> None: ...
    def add(self, array: _Array, iova: int, /) -> None:
        """Allow the whole of a contiguous array, which the device sees from `iova` on.

        Raises `RegisterValueError` where it is empty or overlaps another one.
        """

    def remove(self, iova: int, /) -> None:
        """Take back the array that was added at `iova`: new requests for it are refused.

        What is in flight goes on, so the caller waits for that before it unmaps anything.
        Raises `RegisterValueError` where no array starts there.
        """

    def find(self, array: _Array, /) -> int:
        """IOVA of a contiguous array, or -1 where it does not lie wholly inside one of them."""

@final
class Queue:
    """A submission and a completion queue. One thread at a time: a second one gets `BusyError`.

    Statuses have 15 bits: those of the completion without the phase bit, 0 is good. Results come in
    the order of the completions.

    What the device wrote is checked before it is used: phase, command id (in flight? ids carry a
    counter, so that one that comes twice is found out), queue id, and the submission queue's head
    (inside of the ring, only forward). An entry that fails is skipped and raises `DeviceError`
    once, in the first `poll`, `transfer`, `finish` or `run` that has no good result to return: the
    controller should be reset then. Whatever the entry stood for is still in flight.
    """

    name: str
    number: int
    depth: int
    """Commands that fit in at once."""
    in_flight: int
    """Commands that the device has not completed."""
    waiting: int
    """Results that came during a `transfer` and that `poll` will return."""
    free: int
    """Requests that `submit` would take now: depth - in_flight - waiting."""
    submitted: int
    """Commands since the queue was made."""
    completed: int
    tail: int
    """Of the submission queue: what its doorbell should say."""
    head: int
    """Of the completion queue: what its doorbell should say."""
    timed: bool
    """Set it, and each result says how long its command took, as this process saw it.

    From before it was submitted until it was collected; what is submitted or collected together
    has one time. At most 4.29 s; 0 for what was taken back by `abandon`. For what is in flight
    while it is set, that is wrong.
    """
    most_bytes: int
    """What one command can move: a list of one page (section 4.3)."""

    def __init__(
        self,
        name: str,
        number: int,
        submission: _Array,
        completion: _Array,
        lists: _Array,
        lists_iova: int,
        memory: Memory,
        /,
        *,
        page_size: int,
        sgl: bool = False,
    ) -> None:
        """Work on rings that the device knows already or will know, in writable DMA memory.

        `name` opens every message ("0000:00:04.0"), followed by the queue's number. `submission`
        holds entries of 64 bytes, `completion` of 16; `lists`, at a multiple of `page_size` (bytes,
        CC.MPS), has one page for each command in flight. `sgl`: one data block descriptor instead
        of PRPs. Raises `RegisterValueError` where a size or an alignment is wrong.
        """

    def use_doorbells(self, page: _Array, submission: int, completion: int, /) -> None:
        """Ring by 32-bit stores to mapped memory, at these offsets in bytes.

        Without it nothing rings: the caller writes `tail` after submitting, `head` after polling.
        """

    def use_shadow(
        self, doorbells: _Array, events: _Array, submission: int, completion: int, /
    ) -> None:
        """Ring in memory, and at the device only where its event index asks (section 5.7 and 7.13).

        Offsets in bytes, the same in both buffers. Until `reset`.
        """

    def set_namespace(self, namespace: int, shift: int, blocks: int, most_blocks: int, /) -> None:
        """Allow requests to a namespace of that many blocks of 1 << shift bytes; 0 forbids them.

        A request that moves data has at most `most_blocks` (MDTS), and never more than
        `most_bytes`. Others have at most 65536 blocks.
        """

    def submit(self, requests: _Array, start: int = 0, /) -> int:
        """Submit an array of `Request` from index `start` on: how many went in.

        Fewer than there are where the queue is full; the next call begins at `start` plus that.

        A wrong one raises `RegisterValueError` with its index and what is wrong; those before it
        were submitted. So does what is no array of one dimension with items of that size, here and
        wherever `Request` or `Result` are asked for.
        """

    def submit_command(self, command: _Array, data: int, size: int, tag: int, /) -> int:
        """Submit 64 bytes as they are, but for the id, and for PRP1 and PRP2 where size is not 0.

        `data` is the IOVA of `size` bytes. The command's id, or -1 where the queue is full.
        """

    def poll(self, results: _Array, /, least: int = 0, timeout: float = 0.0) -> int:
        """Fill an array of `Result` with what has completed: how many.

        Spins until `least` of them are there or `timeout` seconds have passed. Signals are handled
        meanwhile; should a handler raise, then the next call returns what was there.
        """

    def transfer(
        self,
        opcode: int,
        flags: int,
        namespace: int,
        lba: int,
        blocks: int,
        data: _Array | None,
        spin: float,
        /,
    ) -> int:
        """Do one request, spinning up to `spin` seconds for it: its status, or less than 0.

        -1: still in flight, ask `finish`. -2: `data` lies in no `Memory`, nothing was submitted.
        -3: the queue is full, nothing was submitted. `data` may be longer than the blocks need.
        Raises `BusyError` while another transfer is unfinished, and as `submit` does.
        """

    def finish(self, spin: float, /) -> int:
        """Go on with the transfer that returned -1: its status, or -1 again."""

    def run(self, requests: _Array, results: _Array, /, depth: int, timeout: float) -> int:
        """Do all of the requests, at most `depth` at once: how many are done, in `results`.

        Signals are handled meanwhile; should a handler raise, what is in flight stays so.

        Fewer where time is up or the device broke the protocol, which the next call raises; the
        rest of those submitted is in flight then. Nothing may be in flight before (`BusyError`).
        A wrong request raises as in `submit`, once those before it are done.
        """

    def abandon(self, results: _Array, status: int, /) -> int:
        """Take back what is in flight as if completed with `status`: how many came.

        Results that wait come first; as many as there is room for. A transfer in flight gets the
        status too, from `finish`.
        """

    def reset(self) -> None:
        """Begin anew: indexes, phase and entries zero, shadow doorbells forgotten.

        The device must have forgotten the queue. Raises `BusyError` while anything is in flight.
        """

    def id_of(self, tag: int, /) -> int:
        """Command id of the request in flight with this tag, for an abort; -1 if there is none."""

    def tag_of(self, id: int, /) -> int:  # noqa: A002 - the specification's word
        """Tag of the command in flight with this id, -1 if there is none."""
