"""Device drivers in user space: registers, interrupts and DMA, the same on VFIO, UIO or a model.

The public names are listed in `__init__.pyi`. Each is loaded when it is first used, so that the
command line, which needs few of them, starts fast.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
