"""The server's side: any device model behind a socket, for any client of vfio-user."""

from uspace_drv.vfiouser.server.listening import Server

__all__ = ["Server"]
