/* Where a command's data lies: the driver's addresses, looked up in the table of the IOMMU. */
#include "data_path.h"

uint8_t *
path_reach(struct data_path *self, uint64_t iova, uint64_t size, uint64_t direction)
{
    uint8_t *bytes = uspace_reach(self->last, iova, size, direction);
    if (bytes)
        return bytes;
    const struct uspace_mapping *found = uspace_find_mapping(self->table, self->count, iova);
    if (found)
        self->last = found;
    return uspace_reach(found, iova, size, direction);
}

uint8_t *
path_entry(struct data_path *self, struct window *window, uint64_t iova, uint64_t direction)
{
    uint64_t inside = iova % QUEUE_PAGE, page = iova - inside;
    if (window->run != self->run || window->page != page) {
        *window = (struct window){page, self->run, path_reach(self, page, QUEUE_PAGE, direction)};
        if ((uintptr_t)window->bytes % COMPLETION_SIZE)
            window->bytes = NULL; /* Python can */
    }
    return window->bytes ? window->bytes + inside : NULL;
}

static bool
add_segment(struct data_path *self, uint64_t iova, uint64_t size, uint64_t direction)
{
    if (self->segment_count == MOST_SEGMENTS)
        return false;
    uint8_t *bytes = path_reach(self, iova, size, direction);
    self->segments[self->segment_count++] = (struct segment){bytes, size};
    return bytes != NULL;
}

/* Pages of a list; where more follow than fit its page, the last entry leads to the next list. */
static bool
add_listed(struct data_path *self, uint64_t place, uint64_t left, uint64_t direction)
{
    const uint64_t page = self->page_size;
    while (left) {
        uint64_t pages = (left + page - 1) / page, room = (page - place % page) / 8;
        uint64_t entries = pages < room ? pages : room, data = pages <= room ? pages : room - 1;
        if (place % 8)
            return false;
        const uint8_t *list = path_reach(self, place, 8 * entries, USPACE_TO_DEVICE);
        if (!list || (uintptr_t)list % 8)
            return false;
        for (uint64_t i = 0; i < data; i++) {
            uint64_t iova = uspace_read64(list + 8 * i); /* once: the driver may change it */
            uint64_t size = left < page ? left : page;
            if (iova % page || !add_segment(self, iova, size, direction))
                return false;
            left -= size;
        }
        if (left)
            place = uspace_read64(list + 8 * data);
        if (left && entries < 2)
            return false; /* a list of one entry that leads on for ever */
    }
    return true;
}

static bool
add_prps(struct data_path *self, const uint8_t *command, uint64_t size, uint64_t direction)
{
    const uint64_t page = self->page_size;
    uint64_t first = load64(command + 24), second = load64(command + 32);
    uint64_t room = page - first % page, here = size < room ? size : room;
    if (first % 4 || !add_segment(self, first, here, direction))
        return false;
    size -= here;
    if (size == 0)
        return true;
    if (size > page)
        return add_listed(self, second, size, direction);
    return second % page == 0 && add_segment(self, second, size, direction);
}

/* The usual SGL: one data block with an address. Segments of more are Python's. */
static bool
add_block(struct data_path *self, const uint8_t *command, uint64_t size, uint64_t direction)
{
    uint32_t length = load32(command + 32);
    uint8_t identifier = command[39];
    return self->has_sgl && identifier == 0 && length >= size
           && add_segment(self, load64(command + 24), size, direction);
}

bool
path_find_data(struct data_path *self, const uint8_t *command, uint64_t size, uint64_t direction)
{
    self->segment_count = 0;
    switch (command[1] >> 6) {
    case 0:
        return add_prps(self, command, size, direction);
    case 1:
        return add_block(self, command, size, direction);
    default:
        return false;
    }
}
