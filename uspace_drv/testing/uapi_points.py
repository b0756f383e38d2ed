"""How much of the kernel's interface for user-space drivers is covered: sixty points, counted.

Linux include/uapi/linux/vfio.h and include/uapi/linux/iommufd.h: the calls on container and group,
on a device, its features, type1 and iommufd. UIO is tiny and stands apart; what only s390 and POWER
have is left out, but for the two calls that share type1's numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_FILES = {
    "edu": "tests/drivers/test_edu.py",
    "vfio": "tests/backends/test_on_vfio.py",
    "opening": "tests/backends/test_on_vfio_opening.py",
    "device": "tests/backends/test_on_vfio_device.py",
    "features": "tests/backends/test_on_vfio_features.py",
    "mediated": "tests/backends/test_on_mediated.py",
    "dma": "tests/backends/test_on_dma.py",
    "mock": "tests/iommufd/test_on_mock.py",
}
"""Short names of the test files that run in a guest."""


@dataclass(frozen=True)
class Point:
    """One call of the kernel: its name, the first Linux that has it, and what we have of it.

    `wrapped` is a dotted name in this package, None where there is nothing. `test` is 'file::name'
    of the test that makes the call on a real kernel; where no kernel in our guests answers it, it
    is None and `unsupported` says why.
    """

    name: str
    since: str
    wrapped: str | None
    test: str | None
    unsupported: str = ""

    @property
    def counts(self) -> bool:
        """Whether it is wrapped and tested on a real kernel: only both are worth a point."""
        return self.wrapped is not None and self.test is not None


def _points(prefix: str, home: str, *rows: tuple[str, ...]) -> Sequence[Point]:
    return tuple(_point(prefix, home, *row) for row in rows)


def _point(  # noqa: PLR0913, PLR0917 - the columns of the table
    prefix: str, home: str, name: str, since: str, wrapped: str, test: str, unsupported: str = ""
) -> Point:
    file, _, function = test.partition(" ")
    return Point(
        name=prefix + name,
        since=since,
        wrapped=f"uspace_drv.{home}.{wrapped}" if wrapped else None,
        test=f"{_FILES[file]}::{function}" if test else None,
        unsupported=unsupported,
    )


_POWER = "POWER's sPAPR IOMMU alone knows it"

POINTS: Mapping[str, Sequence[Point]] = {
    "container and group": _points(
        "VFIO_", "backends.vfio",
        ("GET_API_VERSION", "3.6", "container.Container", "edu test_identifies_itself"),
        ("CHECK_EXTENSION", "3.6", "container.Container.set_iommu", "edu test_identifies_itself"),
        ("SET_IOMMU", "3.6", "container.Container.set_iommu", "edu test_dma_both_ways"),
        ("GROUP_GET_STATUS", "3.6", "group.GroupOpening.open",
         "vfio test_group_that_is_not_viable_names_the_sibling"),
        ("GROUP_SET_CONTAINER", "3.6", "group.GroupOpening.open", "edu test_dma_both_ways"),
        ("GROUP_UNSET_CONTAINER", "3.6", "group.GroupOpening.close",
         "opening test_another_opening_goes_on_with_it"),
        ("GROUP_GET_DEVICE_FD", "3.6", "group.GroupOpening.open_device",
         "edu test_identifies_itself"),
    ),
    "device": _points(
        "VFIO_", "backends.vfio",
        ("DEVICE_GET_INFO", "3.6", "device.VfioDevice.can_reset", "edu test_conforms"),
        ("DEVICE_GET_REGION_INFO", "3.6", "regions.VfioRegions.open",
         "device test_regions_of_a_function"),
        ("DEVICE_GET_IRQ_INFO", "3.6", "irqs.VfioIrqs.counts",
         "device test_software_fires_several_at_once"),
        ("DEVICE_SET_IRQS", "3.6", "irqs.VfioIrqs.line", "edu test_factorial_by_interrupt"),
        ("DEVICE_RESET", "3.6", "device.VfioDevice.reset", "vfio test_function_level_reset"),
        ("DEVICE_GET_PCI_HOT_RESET_INFO", "3.12", "hot_reset.HotReset.affected",
         "features test_takes_the_sibling_along"),
        ("DEVICE_PCI_HOT_RESET", "3.12", "hot_reset.HotReset.reset", "features test_hot_reset"),
        ("DEVICE_QUERY_GFX_PLANE", "4.16", "gfx.Gfx.plane", "mediated test_picture_in_a_region"),
        ("DEVICE_GET_GFX_DMABUF", "4.16", "gfx.Gfx.open_dmabuf",
         "mediated test_picture_in_a_dmabuf"),
        ("DEVICE_IOEVENTFD", "4.17", "doorbells.Doorbells.open",
         "device test_doorbell_rings_by_the_kernel"),
        ("DEVICE_BIND_IOMMUFD", "6.6", "cdev.CdevOpening.open", "edu test_dma_both_ways"),
        ("DEVICE_ATTACH_IOMMUFD_PT", "6.6", "cdev.CdevOpening.open", "edu test_dma_both_ways"),
        ("DEVICE_DETACH_IOMMUFD_PT", "6.6", "cdev.CdevOpening.close", "edu test_conforms"),
        ("MIG_GET_PRECOPY_INFO", "6.2", "migration.MigrationStream.precopy",
         "mediated test_precopy_says_what_is_left"),
    ),
    "device feature": _points(
        "VFIO_DEVICE_FEATURE_", "backends.vfio",
        ("PCI_VF_TOKEN", "5.7", "features.Features.set_vf_token", "features test_vf_token"),
        ("MIGRATION", "5.18", "migration.Migration.support", "mediated test_what_mtty_can"),
        ("MIG_DEVICE_STATE", "5.18", "migration.Migration.set_state",
         "mediated test_one_becomes_the_other"),
        ("LOW_POWER_ENTRY", "6.1", "power.Power.enter",
         "features test_configuration_space_wakes_it"),
        ("LOW_POWER_ENTRY_WITH_WAKEUP", "6.1", "power.Power.enter_until_woken",
         "features test_wake_up"),
        ("LOW_POWER_EXIT", "6.1", "power.Power.exit",
         "features test_configuration_space_wakes_it"),
        ("DMA_LOGGING_START", "6.1", "dma_logging.DmaLogging.start", "mediated test_dma_logging"),
        ("DMA_LOGGING_STOP", "6.1", "dma_logging.DmaLogging.stop", "mediated test_dma_logging"),
        ("DMA_LOGGING_REPORT", "6.1", "dma_logging.DmaLogging.dirty_pages",
         "mediated test_dma_logging"),
        ("MIG_DATA_SIZE", "6.2", "migration.Migration.data_size",
         "mediated test_what_mtty_can"),
        ("BUS_MASTER", "6.7", "features.Features.set_bus_master", "",
         "AMD's CDX bus alone knows it; on PCI it is a bit of the command register"),
        ("DMA_BUF", "6.19", "features.Features.export_bar",
         "features test_of_a_whole_bar_and_of_pieces"),
    ),
    "type1": _points(
        "VFIO_IOMMU_", "backends.vfio",
        ("GET_INFO", "3.6", "container.Container.ranges",
         "vfio test_iovas_lie_in_the_reach_of_the_device"),
        ("MAP_DMA", "3.6", "container.Container.map", "edu test_dma_both_ways"),
        ("UNMAP_DMA", "3.6", "container.Container.unmap",
         "vfio test_the_iommu_stops_the_device_after_close"),
        ("ENABLE", "3.8", "", "", _POWER),
        ("DISABLE", "3.8", "", "", _POWER),
        ("DIRTY_PAGES", "5.8", "dirty_pages.switch", "dma test_dirty_pages"),
    ),
    "iommufd": _points(
        "IOMMU_", "iommufd",
        ("DESTROY", "6.2", "Ioas.close", "mock test_what_is_destroyed_is_no_more"),
        ("IOAS_ALLOC", "6.2", "Iommufd.alloc_ioas",
         "mock test_an_attached_device_narrows_the_ranges"),
        ("IOAS_ALLOW_IOVAS", "6.2", "Ioas.allow",
         "mock test_the_kernel_chooses_in_what_is_allowed"),
        ("IOAS_COPY", "6.2", "Ioas.copy", "mock test_shares_a_mapping_between_address_spaces"),
        ("IOAS_IOVA_RANGES", "6.2", "Ioas.ranges",
         "mock test_there_may_be_more_ranges_than_anyone_expects"),
        ("IOAS_MAP", "6.2", "Ioas.map", "mock test_maps_and_unmaps"),
        ("IOAS_UNMAP", "6.2", "Ioas.unmap", "mock test_unmaps_everything"),
        ("OPTION", "6.2", "Ioas.huge_pages", "mock test_maps_page_by_page_if_asked_to"),
        ("VFIO_IOAS", "6.2", "Iommufd.vfio_ioas",
         "mock test_names_the_address_space_of_the_old_interface"),
        ("HWPT_ALLOC", "6.6", "Iommufd.alloc_hwpt",
         "mock test_a_page_table_shows_what_the_address_space_maps"),
        ("GET_HW_INFO", "6.6", "Iommufd.hardware", "mock test_says_what_the_iommu_can_do"),
        ("HWPT_SET_DIRTY_TRACKING", "6.7", "Hwpt.start_dirty_tracking",
         "mock test_finds_the_pages_that_a_device_wrote"),
        ("HWPT_GET_DIRTY_BITMAP", "6.7", "Hwpt.dirty_pages",
         "mock test_finds_the_pages_that_a_device_wrote"),
        ("HWPT_INVALIDATE", "6.8", "Hwpt.invalidate",
         "mock test_invalidates_a_nested_page_table"),
        ("FAULT_QUEUE_ALLOC", "6.11", "Iommufd.alloc_fault_queue",
         "mock test_answers_the_faults_of_a_device"),
        ("IOAS_MAP_FILE", "6.13", "Ioas.map_file", "mock test_maps_a_file"),
        ("VIOMMU_ALLOC", "6.13", "Iommufd.alloc_viommu",
         "mock test_a_virtual_iommu_takes_data_of_its_vendor"),
        ("VDEVICE_ALLOC", "6.13", "Viommu.alloc_vdevice",
         "mock test_a_guest_calls_its_devices_by_numbers_of_its_own"),
        ("IOAS_CHANGE_PROCESS", "6.14", "Iommufd.change_process",
         "mock test_another_process_takes_the_mappings_over"),
        ("VEVENTQ_ALLOC", "6.15", "Viommu.alloc_event_queue",
         "mock test_hears_of_events_and_of_those_it_lost"),
        ("HW_QUEUE_ALLOC", "6.17", "Viommu.alloc_hw_queue",
         "mock test_a_queue_of_the_hardware_pins_its_mapping"),
    ),
}  # fmt: skip
"""The points by the object that the call is made on."""
