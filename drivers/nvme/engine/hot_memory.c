/* Which memory may be named to the device, and under which IOVA. */
#include "hot.h"

/* Neither side overflows: a range's end fits 64 bits. */
static bool
holds(uint64_t start, uint64_t length, uint64_t first, uint64_t size)
{
    return first >= start && size <= length && first - start <= length - size;
}

const struct hot_range *
hot_range_at(const struct hot_ranges *ranges, uint64_t iova, uint64_t size)
{
    size_t low = 0, high = ranges->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (ranges->items[middle].iova <= iova)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return NULL;
    const struct hot_range *range = &ranges->items[low - 1];
    return holds(range->iova, range->size, iova, size) ? range : NULL;
}

bool
hot_find(const struct hot_ranges *ranges, uint64_t address, uint64_t size, uint64_t *iova)
{
    for (size_t i = 0; i < ranges->count; i++) {
        const struct hot_range *range = &ranges->items[i];
        if (holds(range->address, range->size, address, size)) {
            *iova = range->iova + (address - range->address);
            return true;
        }
    }
    return false;
}
