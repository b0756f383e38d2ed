"""A device behind a vfio-user socket: a model that another process serves, or any such server."""

from uspace_drv.backends.vfio_user.device import VfioUserDevice

__all__ = ["VfioUserDevice"]
