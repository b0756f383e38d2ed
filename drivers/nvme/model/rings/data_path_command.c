/* Reads, writes, write zeroes and flushes of plain namespaces (NVMe 1.4, section 6). */
#define _GNU_SOURCE
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data_path.h"

enum { FLUSH = 0, WRITE = 1, READ = 2, WRITE_ZEROES = 8 };
enum { LARGEST_FILL = 65536 };

/* Of dword 12: FUA and limited retry ask nothing of memory, the number of blocks is 0's based. */
#define COUNT_MASK 0x0000FFFFu
#define LIMITED_RETRY 0x80000000u
#define FORCE_UNIT_ACCESS 0x40000000u

struct range {
    const struct space *space;
    uint64_t offset, size;
};

/* Fused, metadata and all that is reserved are Python's. */
static bool
is_plain(const uint8_t *command)
{
    return (command[1] & 0x3F) == 0;
}

static const struct space *
space_of(const struct data_path *self, const uint8_t *command)
{
    uint32_t number = load32(command + 4);
    const struct space *space = number < NAMESPACES ? &self->spaces[number] : NULL;
    return space && space->blocks ? space : NULL;
}

static bool
find_range(const struct data_path *self, const uint8_t *command, struct range *range)
{
    const struct space *space = space_of(self, command);
    uint64_t block = load64(command + 40), dword = load32(command + 48);
    uint64_t blocks = (dword & COUNT_MASK) + 1;
    uint32_t plain = COUNT_MASK | LIMITED_RETRY | (space && !space->is_durable) * FORCE_UNIT_ACCESS;
    if (!space || dword & ~plain || block > space->blocks || blocks > space->blocks - block)
        return false;
    *range = (struct range){space, block << space->shift, blocks << space->shift};
    return true;
}

/* A file is not mapped: a disk that is full, or a file that somebody has cut, would end the process
 * by SIGBUS instead of an answer. Python does again what went wrong, and says why. */
static bool
read_file(const struct data_path *self, const struct range *range)
{
    off_t place = (off_t)range->offset;
    for (uint32_t i = 0; i < self->segment_count; i++) {
        const struct segment *segment = &self->segments[i];
        ssize_t moved = pread(range->space->file, segment->bytes, segment->size, place);
        if (moved != (ssize_t)segment->size)
            return false;
        place += moved;
    }
    return true;
}

/* A write behind the end of a file that was cut would make it whole again, with zeroes for what is
 * lost. */
static bool
write_file(const struct data_path *self, const struct range *range)
{
    const struct space *space = range->space;
    off_t place = (off_t)range->offset;
    struct stat found;
    if (fstat(space->file, &found) < 0
        || (uint64_t)found.st_size < space->blocks << space->shift)
        return false;
    for (uint32_t i = 0; i < self->segment_count; i++) {
        const struct segment *segment = &self->segments[i];
        ssize_t moved = pwrite(space->file, segment->bytes, segment->size, place);
        if (moved != (ssize_t)segment->size)
            return false;
        place += moved;
    }
    return true;
}

static void
read_memory(const struct data_path *self, const struct range *range)
{
    const uint8_t *from = range->space->bytes ? range->space->bytes + range->offset : NULL;
    for (uint32_t i = 0; from && i < self->segment_count; i++) {
        memcpy(self->segments[i].bytes, from, self->segments[i].size);
        from += self->segments[i].size;
    }
}

static void
write_memory(const struct data_path *self, const struct range *range)
{
    uint8_t *to = range->space->bytes ? range->space->bytes + range->offset : NULL;
    for (uint32_t i = 0; to && i < self->segment_count; i++) {
        memcpy(to, self->segments[i].bytes, self->segments[i].size);
        to += self->segments[i].size;
    }
}

static bool
execute_read(struct data_path *self, const uint8_t *command)
{
    struct range range;
    if (!find_range(self, command, &range) || range.size > self->most_bytes)
        return false;
    if (!path_find_data(self, command, range.size, USPACE_FROM_DEVICE))
        return false;
    if (!range.space->is_durable)
        read_memory(self, &range);
    else if (!read_file(self, &range))
        return false;
    if (path_faulted(self))
        return false;
    self->work.reads++;
    self->work.bytes_read += range.size;
    return true;
}

static bool
execute_write(struct data_path *self, const uint8_t *command)
{
    struct range range;
    if (!find_range(self, command, &range) || range.size > self->most_bytes)
        return false;
    if (range.space->is_durable && self->mode & MODE_WRITE_THROUGH)
        return false;
    if (!path_find_data(self, command, range.size, USPACE_TO_DEVICE))
        return false;
    if (!range.space->is_durable)
        write_memory(self, &range);
    else if (!write_file(self, &range))
        return false;
    if (path_faulted(self))
        return false;
    self->work.writes++;
    self->work.bytes_written += range.size;
    return true;
}

/* Python gives the pages of a large range back instead of filling them. */
static bool
execute_write_zeroes(struct data_path *self, const uint8_t *command)
{
    struct range range;
    if (!find_range(self, command, &range) || range.size > LARGEST_FILL)
        return false;
    if (range.space->is_durable)
        return false;
    if (range.space->bytes)
        memset(range.space->bytes + range.offset, 0, range.size);
    return !path_faulted(self);
}

static bool
execute_flush(struct data_path *self, const uint8_t *command)
{
    const struct space *space = space_of(self, command);
    return space && !space->is_durable;
}

bool
path_execute(struct data_path *self, const uint8_t *command)
{
    if (!is_plain(command))
        return false;
    switch (command[0]) {
    case READ:
        return execute_read(self, command);
    case WRITE:
        return execute_write(self, command);
    case WRITE_ZEROES:
        return execute_write_zeroes(self, command);
    case FLUSH:
        return execute_flush(self, command);
    default:
        return false;
    }
}
