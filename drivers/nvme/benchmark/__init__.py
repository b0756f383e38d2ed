"""The suite "nvme" of `uspace bench`: this driver beside Linux's own, which fio(1) judges."""

from uspace_drivers.nvme.benchmark.comparisons import compare
from uspace_drv.bench import GuestMachine, Suite

suite = Suite(
    summary="NVMe reads beside Linux's own driver, as fio judges it; without a device beside C",
    compare=compare,
    # Two equal disks that hold nothing, so that QEMU's part in each read is as small as can be. No
    # IOMMU: emulating its translation would cost more than all else.
    guest=GuestMachine(
        devices=("nvme,drive=disk0,serial=0,addr=4", "nvme,drive=disk1,serial=1,addr=5"),
        drives=tuple(f"null-co,node-name=disk{number},size={1 << 30}" for number in (0, 1)),
        hugepages=64,
        words=("vfio.enable_unsafe_noiommu_mode=1", "nvme.poll_queues=1"),
        newest_qemu=True,
        device="0000:00:05.0",
        beside="0000:00:04.0",
        via="vfio-noiommu-cdev",
        unsafe_dma_without_iommu=True,
    ),
)

__all__ = ["suite"]
