/* The engine: NVMe queue pairs, plain C that knows nothing of Python.
 *
 * It follows the NVM Express Base Specification 1.4: sections 4.1 to 4.6 (queues, commands, PRP
 * lists, SGLs, completions), 6 (NVM commands), 5.7 and 7.13 (shadow doorbells). A queue belongs to
 * one thread at a time. Nothing is allocated after hot_open(). */
#ifndef NVME_HOT_H
#define NVME_HOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "uspace_drv.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "entries are written as they lie");

#define LIKELY(condition) __builtin_expect(!!(condition), 1)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

enum { COMMAND_SIZE = 64, COMPLETION_SIZE = 16, MOST_BLOCKS = 65536, MOST_RANGES = 256 };
enum { NO_SLOT = UINT32_MAX };

/* The same as in requests.py. */
enum { FORCE_UNIT_ACCESS = 1, LIMITED_RETRY = 2, DEALLOCATE = 4 };

struct hot_request {
    uint8_t opcode, flags;
    uint16_t reserved;
    uint32_t namespace;
    uint64_t lba, data, tag;
    uint32_t blocks, attributes;
};

struct hot_result {
    uint64_t tag, result;
    uint16_t status, reserved;
    uint32_t nanoseconds; /* 0 unless the queue is timed */
};

_Static_assert(sizeof(struct hot_request) == 40, "Request in requests.py");
_Static_assert(sizeof(struct hot_result) == 24, "Result in requests.py");

/* Memory that may be named to the device. The table never changes; a new one takes its place. */
struct hot_range {
    uint64_t iova, size, address; /* address: in this process */
    void *owner;
};

struct hot_ranges {
    size_t users, count;
    struct hot_range items[]; /* ascending IOVAs, none overlaps another */
};

struct hot_namespace {
    uint32_t id, shift, most_blocks;
    uint64_t blocks;
};

/* What is wrong with a request, and with a completion. */
enum hot_wrong {
    NOTHING_WRONG,
    WRONG_OPCODE,
    WRONG_FLAGS,
    WRONG_NAMESPACE,
    WRONG_COUNT,
    PAST_THE_END,
    ODD_DATA,
    FOREIGN_DATA,
};

enum hot_breach { NO_BREACH, BREACH_ID, BREACH_QUEUE, BREACH_HEAD };

/* A completion that breaks the protocol, until it is reported. */
struct hot_violation {
    enum hot_breach breach;
    uint16_t id, queue, head, status;
    uint32_t index;       /* in the completion queue */
    uint32_t first, last; /* heads that were possible */
};

/* `state` is the command's id with SLOT_BUSY, or 0. Ids repeat late, so that a completion that
 * comes twice is not taken for that of the slot's next command. */
enum { SLOT_BUSY = 1 << 16 };

struct hot_slot {
    uint64_t tag;
    int64_t began; /* of a timed queue: before it was submitted */
    uint32_t state, next_id;
};

/* Two words in one page that the device or the other side reads and writes. */
struct hot_bell {
    volatile uint32_t *value, *shadow, *event; /* each may be NULL */
};

enum hot_transfer { TRANSFER_NONE, TRANSFER_FLYING, TRANSFER_DONE };

struct hot_queue {
    /* submitting */
    uint64_t *commands;
    uint32_t tail, entries;
    uint32_t free_count, depth;
    uint32_t *free_slots; /* a stack, so that a list that is used again is in the cache */
    struct hot_slot *slots; /* as many as slot_mask says; those from depth on are never busy */
    uint32_t slot_mask, id_step, id_end;
    uint32_t waiting;
    struct hot_range last_range;          /* where data was found last */
    struct hot_namespace last_namespace;  /* likewise; blocks 0: none */
    uint64_t *lists, lists_iova;
    uint32_t page_shift;
    bool sgl, timed; /* timed: results say how long they took */
    int64_t now;     /* of a timed queue: when it last submitted or collected something */
    uint64_t submitted;
    struct hot_bell tail_bell;

    /* completing */
    volatile uint64_t *completions;
    uint32_t head, completion_entries;
    uint32_t phase, number;
    uint32_t fetched;  /* the submission queue's head, as the device last said */
    uint32_t unfetched; /* entries from there to the tail */
    uint64_t completed;
    struct hot_bell head_bell;
    struct hot_result *results; /* depth of them: those that wait */
    struct hot_violation violation;
    uint32_t transfer_slot;
    enum hot_transfer transfer;
    uint16_t transfer_status;

    struct hot_namespace *namespaces;
    size_t namespace_count;
};

/* hot.c */
struct hot_shape {
    void *commands, *completions, *lists;
    size_t commands_size, completions_size, lists_size; /* bytes */
    uint64_t lists_iova;
    uint32_t number, page_shift;
    bool sgl;
};

/* Sizes and alignment are the caller's duty. False where there is no memory. */
bool hot_open(struct hot_queue *queue, const struct hot_shape *shape);
void hot_close(struct hot_queue *queue);
void hot_reset(struct hot_queue *queue);
bool hot_set_namespace(struct hot_queue *queue, struct hot_namespace namespace);
size_t hot_abandon(struct hot_queue *queue, struct hot_result *results, size_t room,
                   uint16_t status);

/* hot_memory.c. The range that holds all of these bytes, or NULL. */
const struct hot_range *hot_range_at(const struct hot_ranges *ranges, uint64_t iova, uint64_t size);
/* The IOVA of memory of this process; false where no range holds it. */
bool hot_find(const struct hot_ranges *ranges, uint64_t address, uint64_t size, uint64_t *iova);

/* hot_submit.c. How many went in; `wrong` says what stopped it, if not the queue's end. */
size_t hot_submit(struct hot_queue *queue, const struct hot_ranges *ranges,
                  const struct hot_request *requests, size_t count, enum hot_wrong *wrong);
/* The command's id. There is a free slot, and size is at most hot_most_bytes(). */
uint32_t hot_submit_command(struct hot_queue *queue, const void *command, uint64_t data,
                            uint64_t size, uint64_t tag);
const struct hot_namespace *hot_namespace_of(struct hot_queue *queue, uint32_t id);

/* hot_collect.c. How many results were written; less than `least` at the deadline (ns) or where the
 * device broke the protocol. */
size_t hot_collect(struct hot_queue *queue, struct hot_result *results, size_t room);
size_t hot_collect_until(struct hot_queue *queue, struct hot_result *results, size_t room,
                         size_t least, int64_t deadline);
/* What waits, oldest first. */
size_t hot_take_waiting(struct hot_queue *queue, struct hot_result *results, size_t room);
/* Whether the transfer is done; results of others wait meanwhile. */
bool hot_transfer_until(struct hot_queue *queue, int64_t deadline);
int64_t hot_now(void); /* ns on the monotonic clock */

/* hot_run.c */
struct hot_run {
    const struct hot_request *requests;
    struct hot_result *results;
    size_t count, submitted, done, depth;
    enum hot_wrong wrong;
};

/* Whether it is over: all done, a wrong request after those before it are done, or a violation. */
bool hot_run_until(struct hot_queue *queue, const struct hot_ranges *ranges, struct hot_run *run,
                   int64_t deadline);

/* Submit the one request that is waited for; there is a free slot. */
enum hot_wrong hot_transfer(struct hot_queue *queue, const struct hot_ranges *ranges,
                            const struct hot_request *request);

static inline uint32_t
hot_in_flight(const struct hot_queue *queue)
{
    return queue->depth - queue->free_count;
}

static inline uint32_t
hot_free(const struct hot_queue *queue)
{
    return queue->free_count - queue->waiting;
}

/* A list of one page, whatever the first byte's place in its page. */
static inline uint64_t
hot_most_bytes(const struct hot_queue *queue)
{
    return (UINT64_C(1) << queue->page_shift) << (queue->page_shift - 3);
}

/* Once for all that is submitted or collected together: that is when the caller knows of it. */
static inline void
hot_look_at_clock(struct hot_queue *queue)
{
    if (UNLIKELY(queue->timed))
        queue->now = hot_now();
}

/* The device may be told only after the entries, and only if it does not look there by itself
 * (sections 5.7 and 7.13: it wants to hear when the value passes its event index). */
static inline void
hot_ring(struct hot_bell *bell, uint32_t old, uint32_t new)
{
    uspace_write_barrier();
    if (bell->shadow) {
        uspace_write32(bell->shadow, new);
        atomic_thread_fence(memory_order_seq_cst);
        uint16_t event = (uint16_t)uspace_read32(bell->event);
        if ((uint16_t)(new - event - 1) >= (uint16_t)(new - old))
            return;
    }
    if (bell->value)
        uspace_write32(bell->value, new);
}

#endif
