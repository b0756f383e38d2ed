"""The header of BAR 0 and BAR 1 of QEMU's PCI test device (QEMU docs/specs/pci-testdev.rst)."""

from uspace_drv import RegisterBlock, array, ro, wo

NAME_SIZE = 32


class PciTestdevRegisters(RegisterBlock, size=0x10 + NAME_SIZE):
    """What the test that was started last expects."""

    test = wo(0x00, "start the test of this number", width=8)
    width = ro(0x01, "bytes of each write; anything but 1, 2 or 4: there is no such test", width=8)
    offset = ro(0x04, "where to write, in this BAR")
    data = ro(0x08, "what to write")
    count = ro(0x0C, "writes that were seen")
    name = array(ro(0x10, "ASCII, ended by 0", width=8), count=NAME_SIZE, stride=1)
