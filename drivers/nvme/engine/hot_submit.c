/* From requests to commands in the submission queue (NVM Express 1.4, sections 4.2 to 4.4, 6). */
#include "hot.h"

#include <string.h>

/* What an opcode needs: section 6, figures 349 and on. */
enum {
    KNOWN = 1,
    HAS_BLOCKS = 2,
    HAS_DATA = 4,
    HAS_RANGES = 8,
    MAY_FORCE = 16,      /* FUA and limited retry */
    MAY_DEALLOCATE = 32,
};

static const uint8_t rules[16] = {
    [0x0] = KNOWN,                                                 /* flush */
    [0x1] = KNOWN | HAS_BLOCKS | HAS_DATA | MAY_FORCE,             /* write */
    [0x2] = KNOWN | HAS_BLOCKS | HAS_DATA | MAY_FORCE,             /* read */
    [0x4] = KNOWN | HAS_BLOCKS,                                    /* write uncorrectable */
    [0x5] = KNOWN | HAS_BLOCKS | HAS_DATA | MAY_FORCE,             /* compare */
    [0x8] = KNOWN | HAS_BLOCKS | MAY_FORCE | MAY_DEALLOCATE,       /* write zeroes */
    [0x9] = KNOWN | HAS_RANGES | MAY_DEALLOCATE,                   /* dataset management */
    [0xC] = KNOWN | HAS_BLOCKS | MAY_FORCE,                        /* verify */
};

/* Bytes 0 to 1 of a command: SGLs are used for data (PSDT, section 4.2). */
enum { BY_SGL = 1 << 14 };

struct pointers {
    uint64_t first, second; /* PRP1 and PRP2, or a descriptor */
};

const struct hot_namespace *
hot_namespace_of(struct hot_queue *queue, uint32_t id)
{
    size_t low = 0, high = queue->namespace_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (queue->namespaces[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < queue->namespace_count && queue->namespaces[low].id == id;
    return found ? &queue->namespaces[low] : NULL;
}

static inline bool
has_namespace(struct hot_queue *queue, uint32_t id)
{
    if (LIKELY(queue->last_namespace.id == id && queue->last_namespace.blocks))
        return true;
    const struct hot_namespace *found = hot_namespace_of(queue, id);
    if (found)
        queue->last_namespace = *found;
    return found;
}

static inline bool
has_memory(struct hot_queue *queue, const struct hot_ranges *ranges, uint64_t iova, uint64_t size)
{
    const struct hot_range *last = &queue->last_range;
    if (LIKELY(size <= last->size && iova - last->iova <= last->size - size))
        return true;
    const struct hot_range *found = hot_range_at(ranges, iova, size);
    if (found)
        queue->last_range = *found;
    return found;
}

static inline enum hot_wrong
check_flags(const struct hot_request *request, unsigned rule)
{
    unsigned allowed = (rule & MAY_FORCE ? FORCE_UNIT_ACCESS | LIMITED_RETRY : 0)
                       | (rule & MAY_DEALLOCATE ? DEALLOCATE : 0);
    bool extra = request->attributes && !(rule & HAS_RANGES);
    return (request->flags & ~allowed) || extra ? WRONG_FLAGS : NOTHING_WRONG;
}

static inline enum hot_wrong
check_blocks(const struct hot_queue *queue, const struct hot_request *request, unsigned rule)
{
    const struct hot_namespace *namespace = &queue->last_namespace;
    uint32_t most = rule & HAS_DATA ? namespace->most_blocks : MOST_BLOCKS;
    uint32_t blocks = request->blocks;
    if (UNLIKELY(blocks - 1 >= most))
        return WRONG_COUNT;
    if (UNLIKELY(blocks > namespace->blocks || request->lba > namespace->blocks - blocks))
        return PAST_THE_END;
    return NOTHING_WRONG;
}

/* Bytes that the command moves, where it is a good one. */
static inline enum hot_wrong
check(struct hot_queue *queue, const struct hot_ranges *ranges, const struct hot_request *request,
      unsigned rule, uint64_t *size)
{
    enum hot_wrong wrong;
    if (UNLIKELY(!rule))
        return WRONG_OPCODE;
    if (UNLIKELY((request->flags | request->attributes)
                 && (wrong = check_flags(request, rule)) != NOTHING_WRONG))
        return wrong;
    if (UNLIKELY(!has_namespace(queue, request->namespace)))
        return WRONG_NAMESPACE;
    if (LIKELY(rule & HAS_BLOCKS) && (wrong = check_blocks(queue, request, rule)) != NOTHING_WRONG)
        return wrong;
    if (UNLIKELY((rule & HAS_RANGES) && request->blocks - 1 >= MOST_RANGES))
        return WRONG_COUNT;
    *size = rule & HAS_RANGES ? (uint64_t)request->blocks * 16
            : rule & HAS_DATA ? (uint64_t)request->blocks << queue->last_namespace.shift
                              : 0;
    if (UNLIKELY(*size && request->data % 4))
        return ODD_DATA;
    if (UNLIKELY(*size && !has_memory(queue, ranges, request->data, *size)))
        return FOREIGN_DATA;
    return NOTHING_WRONG;
}

/* Section 4.3: the first entry may begin inside of a page, the second one is a list where more
 * than two pages are touched. */
static inline struct pointers
describe_by_prps(struct hot_queue *queue, uint32_t slot, uint64_t data, uint64_t size)
{
    uint64_t page = UINT64_C(1) << queue->page_shift;
    uint64_t next = (data & ~(page - 1)) + page;
    struct pointers pointers = {.first = data};
    if (LIKELY(size <= next - data))
        return pointers;
    uint64_t rest = size - (next - data);
    if (rest <= page) {
        pointers.second = next;
        return pointers;
    }
    uint64_t *list = queue->lists + ((uint64_t)slot << (queue->page_shift - 3));
    size_t count = (rest + page - 1) >> queue->page_shift;
    for (size_t i = 0; i < count; i++)
        list[i] = next + (i << queue->page_shift);
    pointers.second = queue->lists_iova + ((uint64_t)slot << queue->page_shift);
    return pointers;
}

/* Section 4.4: IOVAs of a buffer have no gaps, so one data block descriptor (type 0) is enough. */
static inline struct pointers
describe(struct hot_queue *queue, uint32_t slot, uint64_t data, uint64_t size)
{
    if (queue->sgl)
        return (struct pointers){.first = data, .second = size};
    return describe_by_prps(queue, slot, data, size);
}

/* Takes a slot; its new id is what a command carries. */
static inline uint32_t
take_slot(struct hot_queue *queue, uint64_t tag)
{
    uint32_t number = queue->free_slots[--queue->free_count];
    struct hot_slot *slot = &queue->slots[number];
    uint32_t id = slot->next_id;
    uint32_t next = id + queue->id_step;
    slot->next_id = next < queue->id_end ? next : number;
    slot->state = id | SLOT_BUSY;
    slot->tag = tag;
    slot->began = queue->now;
    return id;
}

static inline uint64_t *
take_entry(struct hot_queue *queue)
{
    uint64_t *entry = queue->commands + (size_t)queue->tail * (COMMAND_SIZE / 8);
    queue->tail = queue->tail + 1 == queue->entries ? 0 : queue->tail + 1;
    queue->unfetched++;
    queue->submitted++;
    return entry;
}

/* Section 6.9 and others: dwords 10 to 13. */
static inline void
put_request(struct hot_queue *queue, const struct hot_request *request, unsigned rule,
            uint64_t size)
{
    uint32_t id = take_slot(queue, request->tag);
    uint64_t flags = request->flags, blocks = (uint64_t)request->blocks - 1;
    struct pointers data = {0};
    if (LIKELY(size))
        data = describe(queue, id & queue->slot_mask, request->data, size);
    uint64_t *entry = take_entry(queue);
    entry[0] = request->opcode | (size && queue->sgl ? BY_SGL : 0) | (uint64_t)id << 16
               | (uint64_t)request->namespace << 32;
    entry[1] = 0;
    entry[2] = 0;
    entry[3] = data.first;
    entry[4] = data.second;
    entry[5] = rule & HAS_BLOCKS ? request->lba : 0;
    entry[6] = rule & HAS_BLOCKS ? blocks | (flags & 3) << 30 | (flags & DEALLOCATE) << 23 : 0;
    entry[7] = 0;
    if (UNLIKELY(rule & HAS_RANGES))
        entry[5] = blocks | (request->attributes | (flags & DEALLOCATE)) << 32;
}

size_t
hot_submit(struct hot_queue *queue, const struct hot_ranges *ranges,
           const struct hot_request *requests, size_t count, enum hot_wrong *wrong)
{
    uint32_t tail = queue->tail;
    size_t done, room = hot_free(queue), end = count < room ? count : room;
    *wrong = NOTHING_WRONG;
    queue->last_range.size = 0; /* it may have gone since the last call */
    hot_look_at_clock(queue);
    for (done = 0; done < end; done++) {
        struct hot_request request = requests[done];
        atomic_signal_fence(memory_order_seq_cst); /* another thread may change the original */
        unsigned rule = request.opcode < 16 ? rules[request.opcode] : 0;
        uint64_t size;
        *wrong = check(queue, ranges, &request, rule, &size);
        if (UNLIKELY(*wrong))
            break;
        put_request(queue, &request, rule, size);
    }
    if (done)
        hot_ring(&queue->tail_bell, tail, queue->tail);
    return done;
}

uint32_t
hot_submit_command(struct hot_queue *queue, const void *command, uint64_t data, uint64_t size,
                   uint64_t tag)
{
    hot_look_at_clock(queue);
    uint32_t id = take_slot(queue, tag), tail = queue->tail;
    uint64_t words[COMMAND_SIZE / 8];
    memcpy(words, command, COMMAND_SIZE);
    words[0] = (words[0] & ~UINT64_C(0xFFFF0000)) | (uint64_t)id << 16;
    if (size) {
        struct pointers pointers = describe(queue, id & queue->slot_mask, data, size);
        words[0] |= queue->sgl ? BY_SGL : 0;
        words[3] = pointers.first;
        words[4] = pointers.second;
    }
    memcpy(take_entry(queue), words, COMMAND_SIZE);
    hot_ring(&queue->tail_bell, tail, queue->tail);
    return id;
}
