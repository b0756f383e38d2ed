/* The ioctls that map and unmap memory for DMA: Linux include/uapi/linux/vfio.h,
 * VFIO_IOMMU_MAP_DMA, and include/uapi/linux/iommufd.h, IOMMU_IOAS_MAP. */
#include "dma.h"

#include <errno.h>
#include <sys/ioctl.h>

/* The kernel's headers of the machine that builds may be older than iommufd. */
enum {
    VFIO_IOMMU_MAP_DMA = 0x3b71,
    VFIO_IOMMU_UNMAP_DMA = 0x3b72,
    IOMMU_IOAS_MAP = 0x3b85,
    IOMMU_IOAS_UNMAP = 0x3b86,
};

enum { TYPE1_READ = 1, TYPE1_WRITE = 2 };
enum { IOAS_FIXED_IOVA = 1, IOAS_WRITEABLE = 2, IOAS_READABLE = 4 };

struct type1_map {
    uint32_t argsz, flags;
    uint64_t vaddr, iova, size;
};

struct type1_unmap {
    uint32_t argsz, flags;
    uint64_t iova, size;
};

struct ioas_map {
    uint32_t size, flags, ioas_id, reserved;
    uint64_t user_va, length, iova;
};

struct ioas_unmap {
    uint32_t size, ioas_id;
    uint64_t iova, length;
};

static bool
issue(const struct dma_calls *calls, unsigned long request, void *argument, uint64_t size)
{
    int answer;
    if (size < LONG_CALL)
        return ioctl(calls->fd, request, argument) == 0;
    Py_BEGIN_ALLOW_THREADS
    answer = ioctl(calls->fd, request, argument);
    Py_END_ALLOW_THREADS
    return answer == 0;
}

bool
dma_kernel_map(const struct dma_calls *calls, const struct dma_piece *piece)
{
    bool reads = piece->rights & DEVICE_READS, writes = piece->rights & DEVICE_WRITES;
    if (calls->kernel == TYPE1_CONTAINER) {
        struct type1_map map = {
            .argsz = sizeof(map),
            .flags = (reads ? TYPE1_READ : 0) | (writes ? TYPE1_WRITE : 0),
            .vaddr = piece->address,
            .iova = piece->iova,
            .size = piece->size,
        };
        return issue(calls, VFIO_IOMMU_MAP_DMA, &map, piece->size);
    }
    struct ioas_map map = {
        .size = sizeof(map),
        .flags = IOAS_FIXED_IOVA | (reads ? IOAS_READABLE : 0) | (writes ? IOAS_WRITEABLE : 0),
        .ioas_id = calls->ioas,
        .user_va = piece->address,
        .length = piece->size,
        .iova = piece->iova,
    };
    return issue(calls, IOMMU_IOAS_MAP, &map, piece->size);
}

bool
dma_kernel_unmap(const struct dma_calls *calls, const struct dma_piece *piece)
{
    if (calls->kernel == TYPE1_CONTAINER) {
        struct type1_unmap unmap = {
            .argsz = sizeof(unmap), .iova = piece->iova, .size = piece->size};
        return issue(calls, VFIO_IOMMU_UNMAP_DMA, &unmap, piece->size)
               && unmap.size == piece->size;
    }
    struct ioas_unmap unmap = {
        .size = sizeof(unmap), .ioas_id = calls->ioas, .iova = piece->iova, .length = piece->size};
    return issue(calls, IOMMU_IOAS_UNMAP, &unmap, piece->size) && unmap.length == piece->size;
}
