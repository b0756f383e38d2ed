/* Cuts a byte stream into vfio-user messages and says which descriptors came with which of them
 * (QEMU docs/interop/vfio-user.rst, "Header"). Knows nothing of Python, and never blocks unless
 * told to. */
#ifndef USPACE_FRAMING_H
#define USPACE_FRAMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    HEADER_SIZE = 16,
    KERNEL_DESCRIPTORS = 253, /* as many as the kernel passes at once (SCM_MAX_FD) */
    TYPE_MASK = 0xF,          /* of the header's flags: 0 is a command, 1 a reply */
};

struct header {
    uint16_t id, command;
    uint32_t size, flags, error; /* size: of the whole message, in bytes */
};

struct descriptor {
    int fd;
    uint64_t place; /* in the stream: of the last byte that came with it */
};

struct framing {
    uint8_t *bytes;
    size_t capacity, start, end; /* what has come and was not taken is from start to end */
    uint64_t position;           /* of start, in the stream */
    size_t payload_limit;
    unsigned descriptor_limit, descriptor_count;
    bool lost; /* the kernel could not hand over every descriptor */
    struct descriptor descriptors[2 * KERNEL_DESCRIPTORS];
};

/* What stands at the start of the buffer. Its payload is valid until the next call; its
 * descriptors are the first `descriptor_count` of the framing's. */
struct frame {
    struct header header;
    const uint8_t *payload;
    size_t payload_size;
    unsigned descriptor_count;
};

enum verdict { FRAME_READY, FRAME_PARTIAL, BAD_SIZE, BAD_TYPE, TOO_MANY_DESCRIPTORS };

/* Look at the first message. The frame's header is valid once its 16 bytes are there. */
enum verdict framing_look(const struct framing *self, struct frame *frame);

/* Take that message off; its descriptors are the caller's now. */
void framing_take(struct framing *self, const struct frame *frame);

/* Receive once, after `framing_look` said FRAME_PARTIAL. Bytes, 0 at the end, or -errno. */
ssize_t framing_fill(struct framing *self, int fd, int flags);

/* Close every descriptor that nobody took, and give the memory back. */
void framing_drop(struct framing *self);

void header_pack(const struct header *header, uint8_t bytes[HEADER_SIZE]);

#endif
