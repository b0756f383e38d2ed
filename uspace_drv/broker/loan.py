"""A device in the hands of a client: reset before, taken back afterwards."""

from __future__ import annotations

import ctypes
import os
import socket

from uspace_drv.backends.vfio import Opening, uapi
from uspace_drv.backends.vfio.call import call
from uspace_drv.broker.wire import Offer, Peer, send_offer
from uspace_drv.errors import HostError
from uspace_drv.teardown import Teardown
from uspace_drv.vfio_numbers import DeviceFlag


class Loan:
    """Lends `opening` to the peer at the other end of `connection`, until `close()`.

    Takes both over; the connection stays the caller's if this fails. `HostError` where the peer
    has hung up already, or does not read.
    """

    def __init__(
        self, address: str, opening: Opening, connection: socket.socket, peer: Peer
    ) -> None:
        self.peer = peer
        self._connection = connection
        self._way_out = Teardown()
        self._way_out.push("close the opening", opening.close)
        try:
            reset(address, opening)
            send_offer(connection, Offer(address, opening.handover()))
        except OSError as error:
            self._way_out.run(error)
            raise HostError(f"{address}: not handed over: {error}", cause=error) from error
        except BaseException as error:
            self._way_out.run(error)
            raise
        self._way_out.push("hang up", connection.close)

    def fileno(self) -> int:
        """Readable when the client hung up, or said what no client says."""
        return self._connection.fileno()

    def close(self) -> None:
        """Hang up, then take memory away from the device. Twice is fine."""
        self._way_out.run()


def reset(address: str, opening: Opening) -> None:
    """Reset the function, where it can be: the next client finds nothing of the one before."""
    fd = opening.open_device()
    try:
        info = uapi.DeviceInfo(ctypes.sizeof(uapi.DeviceInfo))
        call(address, fd, uapi.Request.DEVICE_GET_INFO, info)
        if info.flags & DeviceFlag.RESET:
            call(address, fd, uapi.Request.DEVICE_RESET, 0)
    finally:
        os.close(fd)
