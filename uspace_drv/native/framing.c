/* Cuts a byte stream into vfio-user messages; see framing.h (recvmsg(2), unix(7), cmsg(3)). */
#define _GNU_SOURCE
#include "framing.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FIRST_CAPACITY = 65536 };

/* The header as it travels. The specification says the host's byte order; every implementation
 * that runs anywhere is little-endian. */
struct wire_header {
    uint16_t id, command;
    uint32_t size, flags, error;
};

_Static_assert(sizeof(struct wire_header) == HEADER_SIZE, "16 bytes, without padding");

void
header_pack(const struct header *header, uint8_t bytes[HEADER_SIZE])
{
    struct wire_header wire = {
        .id = htole16(header->id),
        .command = htole16(header->command),
        .size = htole32(header->size),
        .flags = htole32(header->flags),
        .error = htole32(header->error),
    };
    memcpy(bytes, &wire, HEADER_SIZE);
}

static void
header_unpack(struct header *header, const uint8_t *bytes)
{
    struct wire_header wire;
    memcpy(&wire, bytes, HEADER_SIZE);
    header->id = le16toh(wire.id);
    header->command = le16toh(wire.command);
    header->size = le32toh(wire.size);
    header->flags = le32toh(wire.flags);
    header->error = le32toh(wire.error);
}

static unsigned
descriptors_before(const struct framing *self, uint64_t place)
{
    unsigned count = 0;
    while (count < self->descriptor_count && self->descriptors[count].place < place)
        count++;
    return count;
}

static enum verdict
judge_header(const struct framing *self, const struct header *header)
{
    if (header->size < HEADER_SIZE || header->size - HEADER_SIZE > self->payload_limit)
        return BAD_SIZE;
    return (header->flags & TYPE_MASK) > 1 ? BAD_TYPE : FRAME_READY;
}

enum verdict
framing_look(const struct framing *self, struct frame *frame)
{
    size_t available = self->end - self->start;
    *frame = (struct frame){.descriptor_count = self->descriptor_count};
    bool whole = false;
    if (available >= HEADER_SIZE) {
        header_unpack(&frame->header, self->bytes + self->start);
        enum verdict verdict = judge_header(self, &frame->header);
        if (verdict != FRAME_READY)
            return verdict;
        frame->payload = self->bytes + self->start + HEADER_SIZE;
        frame->payload_size = frame->header.size - HEADER_SIZE;
        whole = available >= frame->header.size;
    }
    if (whole)
        frame->descriptor_count = descriptors_before(self, self->position + frame->header.size);
    if (frame->descriptor_count > self->descriptor_limit)
        return TOO_MANY_DESCRIPTORS;
    return whole ? FRAME_READY : FRAME_PARTIAL;
}

void
framing_take(struct framing *self, const struct frame *frame)
{
    self->start += frame->header.size;
    self->position += frame->header.size;
    self->descriptor_count -= frame->descriptor_count;
    memmove(self->descriptors, self->descriptors + frame->descriptor_count,
            self->descriptor_count * sizeof(self->descriptors[0]));
}

static bool
grow(struct framing *self, size_t capacity)
{
    uint8_t *bytes = realloc(self->bytes, capacity);
    if (!bytes)
        return false;
    self->bytes = bytes;
    self->capacity = capacity;
    return true;
}

/* Room for the message that has begun, and never less than one byte. */
static bool
make_room(struct framing *self)
{
    size_t available = self->end - self->start, wanted = FIRST_CAPACITY;
    if (self->start > 0)
        memmove(self->bytes, self->bytes + self->start, available);
    self->start = 0;
    self->end = available;
    if (available >= HEADER_SIZE) {
        struct header header;
        header_unpack(&header, self->bytes);
        if (header.size > wanted)
            wanted = header.size;
    }
    return wanted <= self->capacity || grow(self, wanted);
}

/* The kernel ends a read after the bytes that descriptors were sent with, so that the last byte
 * of this read lies in the message that they belong to. */
static void
keep_descriptors(struct framing *self, struct msghdr *message)
{
    uint64_t place = self->position + (self->end - self->start) - 1;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        size_t size = part->cmsg_len - CMSG_LEN(0);
        for (size_t at = 0; at + sizeof(int) <= size; at += sizeof(int)) {
            struct descriptor *next = &self->descriptors[self->descriptor_count++];
            next->place = place;
            memcpy(&next->fd, CMSG_DATA(part) + at, sizeof(int));
        }
    }
}

ssize_t
framing_fill(struct framing *self, int fd, int flags)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(KERNEL_DESCRIPTORS * sizeof(int))];
    } control;
    if (!make_room(self))
        return -ENOMEM;
    struct iovec room = {.iov_base = self->bytes + self->end,
                         .iov_len = self->capacity - self->end};
    struct msghdr message = {.msg_iov = &room, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    ssize_t got = recvmsg(fd, &message, flags | MSG_CMSG_CLOEXEC);
    if (got <= 0)
        return got < 0 ? -errno : 0;
    self->end += (size_t)got;
    self->lost |= (message.msg_flags & MSG_CTRUNC) != 0;
    keep_descriptors(self, &message);
    return got;
}

void
framing_drop(struct framing *self)
{
    for (unsigned i = 0; i < self->descriptor_count; i++)
        close(self->descriptors[i].fd);
    free(self->bytes);
    self->bytes = NULL;
    self->capacity = self->start = self->end = self->descriptor_count = 0;
}
