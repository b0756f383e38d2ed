/* From completions to results (NVM Express 1.4, section 4.6); what the device says is checked. */
#define _POSIX_C_SOURCE 200112L
#include "hot.h"

#include <string.h>
#include <time.h>

/* Looks at the queue between two looks at the clock, which costs as much as many. */
enum { LOOKS = 64, BRISK_LOOKS = 4096 };

/* ns that the first of several entries may wait for the others. */
enum { GATHER = 5000 };

int64_t
hot_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* The phase was read before, with the rest of that half. x86 keeps loads of ordinary memory in
 * order by itself. */
static inline void
order_loads(void)
{
#if defined(__x86_64__)
    atomic_signal_fence(memory_order_seq_cst);
#else
    uspace_read_barrier();
#endif
}

/* Dwords 2 and 3 in one load, so that phase, id, queue and head belong together. */
static inline uint64_t
latest(const struct hot_queue *queue)
{
    return queue->completions[(size_t)queue->head * 2 + 1];
}

static inline bool
is_new(const struct hot_queue *queue, uint64_t upper)
{
    return ((upper >> 48) & 1) == queue->phase;
}

static inline uint32_t
steps_to(const struct hot_queue *queue, uint32_t head)
{
    return head >= queue->fetched ? head - queue->fetched : head + queue->entries - queue->fetched;
}

static inline enum hot_breach
judge(const struct hot_queue *queue, uint64_t upper)
{
    uint32_t id = (upper >> 32) & 0xFFFF, number = (upper >> 16) & 0xFFFF, head = upper & 0xFFFF;
    if (UNLIKELY(queue->slots[id & queue->slot_mask].state != (id | SLOT_BUSY)))
        return BREACH_ID;
    if (UNLIKELY(number != queue->number))
        return BREACH_QUEUE;
    if (UNLIKELY(head >= queue->entries || steps_to(queue, head) > queue->unfetched))
        return BREACH_HEAD;
    return NO_BREACH;
}

static void
note_violation(struct hot_queue *queue, enum hot_breach breach, uint64_t upper)
{
    queue->violation = (struct hot_violation){
        .breach = breach,
        .id = (uint16_t)(upper >> 32),
        .queue = (uint16_t)(upper >> 16),
        .head = (uint16_t)upper,
        .status = (uint16_t)(upper >> 48),
        .index = queue->head,
        .first = queue->fetched,
        .last = queue->tail,
    };
}

static inline void
step(struct hot_queue *queue)
{
    if (UNLIKELY(++queue->head == queue->completion_entries)) {
        queue->head = 0;
        queue->phase ^= 1;
    }
}

static inline uint32_t
duration(const struct hot_queue *queue, uint32_t slot)
{
    if (LIKELY(!queue->timed))
        return 0;
    int64_t taken = queue->now - queue->slots[slot].began;
    return taken < UINT32_MAX ? (uint32_t)taken : UINT32_MAX;
}

/* A good completion: its slot is free again. Whether it is a result, not that of the transfer. */
static inline bool
settle(struct hot_queue *queue, uint64_t lower, uint64_t upper, struct hot_result *result)
{
    uint32_t slot = (upper >> 32) & queue->slot_mask, head = upper & 0xFFFF;
    uint16_t status = (uint16_t)(upper >> 49);
    queue->unfetched -= steps_to(queue, head);
    queue->fetched = head;
    queue->completed++;
    queue->slots[slot].state = 0;
    queue->free_slots[queue->free_count++] = slot;
    if (UNLIKELY(slot == queue->transfer_slot)) {
        queue->transfer = TRANSFER_DONE;
        queue->transfer_status = status;
        queue->transfer_slot = NO_SLOT;
        return false;
    }
    *result = (struct hot_result){
        .tag = queue->slots[slot].tag,
        .result = lower,
        .status = status,
        .nanoseconds = duration(queue, slot),
    };
    return true;
}

size_t
hot_collect(struct hot_queue *queue, struct hot_result *results, size_t room)
{
    uint32_t first = queue->head, looked = 0;
    size_t count = 0;
    if (UNLIKELY(queue->violation.breach))
        return 0;
    while (count < room) {
        uint64_t upper = latest(queue);
        if (!is_new(queue, upper))
            break;
        order_loads();
        if (!looked)
            hot_look_at_clock(queue);
        uint64_t lower = queue->completions[(size_t)queue->head * 2];
        enum hot_breach breach = judge(queue, upper);
        if (UNLIKELY(breach))
            note_violation(queue, breach, upper);
        else
            count += settle(queue, lower, upper, &results[count]);
        step(queue);
        looked++;
        if (UNLIKELY(breach))
            break;
    }
    if (looked)
        hot_ring(&queue->head_bell, first, queue->head);
    return count;
}

size_t
hot_take_waiting(struct hot_queue *queue, struct hot_result *results, size_t room)
{
    size_t count = queue->waiting < room ? queue->waiting : room;
    if (count == 0)
        return 0;
    queue->waiting -= (uint32_t)count;
    memcpy(results, queue->results, count * sizeof(*results));
    memmove(queue->results, queue->results + count, queue->waiting * sizeof(*results));
    return count;
}

/* Whether the last one of so many entries is new; the device fills them in order. */
static inline bool
has_entries(const struct hot_queue *queue, uint32_t count)
{
    uint32_t place = queue->head + count - 1, phase = queue->phase;
    if (place >= queue->completion_entries) {
        place -= queue->completion_entries;
        phase ^= 1;
    }
    return ((queue->completions[(size_t)place * 2 + 1] >> 48) & 1) == phase;
}

/* Spin until so many entries are new, or one is and GATHER has passed: false at the deadline. Who
 * looks at the last one does not take the line away that the device is writing, and who collects
 * many at once rings seldom. A pause between two looks would cost as much as a fast device takes,
 * so the first looks do without. */
static bool
await_entries(const struct hot_queue *queue, size_t wanted, int64_t deadline)
{
    uint32_t flying = hot_in_flight(queue);
    uint32_t count = wanted < flying ? (uint32_t)wanted : flying ? flying : 1;
    int64_t first = 0;
    for (unsigned looks = 1;; looks++) {
        /* A device that leaves a hole has written the last one, but not the first. */
        if (has_entries(queue, count) && has_entries(queue, 1))
            return true;
        if (looks > BRISK_LOOKS)
            uspace_pause();
        if (looks % LOOKS)
            continue;
        int64_t now = hot_now();
        first = first ? first : now;
        if ((now - first >= GATHER || now >= deadline) && has_entries(queue, 1))
            return true;
        if (now >= deadline)
            return false;
    }
}

size_t
hot_collect_until(struct hot_queue *queue, struct hot_result *results, size_t room, size_t least,
                  int64_t deadline)
{
    size_t count = hot_collect(queue, results, room);
    while (count < least && !queue->violation.breach
           && await_entries(queue, least - count, deadline))
        count += hot_collect(queue, results + count, room - count);
    return count;
}

bool
hot_transfer_until(struct hot_queue *queue, int64_t deadline)
{
    while (queue->transfer == TRANSFER_FLYING && !queue->violation.breach
           && await_entries(queue, 1, deadline))
        queue->waiting += (uint32_t)hot_collect(queue, queue->results + queue->waiting,
                                                queue->depth - queue->waiting);
    return queue->transfer == TRANSFER_DONE;
}
