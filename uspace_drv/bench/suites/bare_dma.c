/* Maps a buffer for DMA and unmaps it, with bare ioctls: the floor of the suite "dma".
 *
 * Linux include/uapi/linux/vfio.h, "VFIO_IOMMU_MAP_DMA"; include/uapi/linux/iommufd.h,
 * "IOMMU_IOAS_MAP". Each function returns the nanoseconds of all rounds, or a negative errno.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <time.h>

#define VFIO_IOMMU_MAP_DMA 0x3b71
#define VFIO_IOMMU_UNMAP_DMA 0x3b72
#define IOMMU_IOAS_MAP 0x3b85
#define IOMMU_IOAS_UNMAP 0x3b86
#define TYPE1_READ_WRITE 3
#define IOAS_FIXED_READ_WRITE 7

struct type1_map { uint32_t argsz, flags; uint64_t vaddr, iova, size; };
struct type1_unmap { uint32_t argsz, flags; uint64_t iova, size; };
struct ioas_map { uint32_t size, flags, ioas_id, reserved; uint64_t user_va, length, iova; };
struct ioas_unmap { uint32_t size, ioas_id; uint64_t iova, length; };

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

int64_t bare_type1(int fd, uint64_t vaddr, uint64_t iova, uint64_t size, int rounds)
{
	int64_t start = now();

	for (int round = 0; round < rounds; round++) {
		struct type1_map map = { sizeof map, TYPE1_READ_WRITE, vaddr, iova, size };
		struct type1_unmap unmap = { sizeof unmap, 0, iova, size };

		if (ioctl(fd, VFIO_IOMMU_MAP_DMA, &map) || ioctl(fd, VFIO_IOMMU_UNMAP_DMA, &unmap))
			return -errno;
	}
	return now() - start;
}

int64_t bare_ioas(int fd, uint32_t ioas, uint64_t vaddr, uint64_t iova, uint64_t size, int rounds)
{
	int64_t start = now();

	for (int round = 0; round < rounds; round++) {
		struct ioas_map map = {
			sizeof map, IOAS_FIXED_READ_WRITE, ioas, 0, vaddr, size, iova
		};
		struct ioas_unmap unmap = { sizeof unmap, ioas, iova, size };

		if (ioctl(fd, IOMMU_IOAS_MAP, &map) || ioctl(fd, IOMMU_IOAS_UNMAP, &unmap))
			return -errno;
	}
	return now() - start;
}
