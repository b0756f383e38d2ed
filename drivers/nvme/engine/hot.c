/* A queue pair's beginning and end: its tables, reset, and taking back what is in flight. */
#include "hot.h"

#include <stdlib.h>
#include <string.h>

static uint32_t
smaller(size_t left, size_t right)
{
    return (uint32_t)(left < right ? left : right);
}

/* An id is the slot's number with a counter above it, as far as 16 bits go. 0xFFFF is never used:
 * NVM Express 2.0 reserves it. */
static void
number_slots(struct hot_queue *queue)
{
    uint32_t step = 1;
    while (step < queue->depth)
        step *= 2;
    queue->slot_mask = step - 1;
    queue->id_step = step;
    queue->id_end = step < 0x10000 ? 0x10000 - step : 0x10000;
}

static bool
fill_tables(struct hot_queue *queue)
{
    uint32_t slots = queue->slot_mask + 1;
    queue->slots = calloc(slots, sizeof(*queue->slots));
    queue->free_slots = calloc(queue->depth, sizeof(*queue->free_slots));
    queue->results = calloc(queue->depth, sizeof(*queue->results));
    if (!queue->slots || !queue->free_slots || !queue->results)
        return false;
    for (uint32_t slot = 0; slot < slots; slot++)
        queue->slots[slot].next_id = slot;
    for (uint32_t i = 0; i < queue->depth; i++)
        queue->free_slots[i] = queue->depth - 1 - i;
    return true;
}

bool
hot_open(struct hot_queue *queue, const struct hot_shape *shape)
{
    memset(queue, 0, sizeof(*queue));
    queue->commands = shape->commands;
    queue->completions = shape->completions;
    queue->lists = shape->lists;
    queue->lists_iova = shape->lists_iova;
    queue->entries = (uint32_t)(shape->commands_size / COMMAND_SIZE);
    queue->completion_entries = (uint32_t)(shape->completions_size / COMPLETION_SIZE);
    queue->depth = smaller(shape->lists_size >> shape->page_shift,
                           smaller(queue->entries - 1, queue->completion_entries - 1));
    queue->free_count = queue->depth;
    queue->number = shape->number;
    queue->page_shift = shape->page_shift;
    queue->sgl = shape->sgl;
    queue->transfer_slot = NO_SLOT;
    queue->phase = 1;
    number_slots(queue);
    if (fill_tables(queue))
        return true;
    hot_close(queue);
    return false;
}

void
hot_close(struct hot_queue *queue)
{
    free(queue->slots);
    free(queue->free_slots);
    free(queue->results);
    free(queue->namespaces);
    memset(queue, 0, sizeof(*queue));
}

void
hot_reset(struct hot_queue *queue)
{
    memset(queue->commands, 0, (size_t)queue->entries * COMMAND_SIZE);
    memset((void *)queue->completions, 0, (size_t)queue->completion_entries * COMPLETION_SIZE);
    queue->tail = queue->head = queue->fetched = queue->unfetched = 0;
    queue->phase = 1;
    queue->violation.breach = NO_BREACH;
    queue->tail_bell.shadow = queue->head_bell.shadow = NULL;
}

/* Where it is, or where it would be. */
static size_t
place_of(const struct hot_queue *queue, uint32_t id)
{
    size_t place = 0;
    while (place < queue->namespace_count && queue->namespaces[place].id < id)
        place++;
    return place;
}

static bool
add_namespace(struct hot_queue *queue, size_t place, struct hot_namespace namespace)
{
    size_t size = (queue->namespace_count + 1) * sizeof(namespace);
    struct hot_namespace *grown = realloc(queue->namespaces, size);
    if (!grown)
        return false;
    memmove(grown + place + 1, grown + place,
            (queue->namespace_count - place) * sizeof(namespace));
    grown[place] = namespace;
    queue->namespaces = grown;
    queue->namespace_count++;
    return true;
}

bool
hot_set_namespace(struct hot_queue *queue, struct hot_namespace namespace)
{
    size_t place = place_of(queue, namespace.id);
    struct hot_namespace *found = queue->namespaces + place;
    bool known = place < queue->namespace_count && found->id == namespace.id;
    queue->last_namespace.blocks = 0;
    if (!known)
        return namespace.blocks == 0 || add_namespace(queue, place, namespace);
    *found = namespace;
    if (namespace.blocks == 0) {
        queue->namespace_count--;
        memmove(found, found + 1, (queue->namespace_count - place) * sizeof(namespace));
    }
    return true;
}

size_t
hot_abandon(struct hot_queue *queue, struct hot_result *results, size_t room, uint16_t status)
{
    size_t count = hot_take_waiting(queue, results, room);
    for (uint32_t slot = 0; slot < queue->depth; slot++) {
        bool is_transfer = slot == queue->transfer_slot;
        if (!queue->slots[slot].state || (count == room && !is_transfer))
            continue;
        if (is_transfer) {
            queue->transfer = TRANSFER_DONE;
            queue->transfer_status = status;
            queue->transfer_slot = NO_SLOT;
        } else {
            results[count++] =
                (struct hot_result){.tag = queue->slots[slot].tag, .status = status};
        }
        queue->slots[slot].state = 0;
        queue->free_slots[queue->free_count++] = slot;
        queue->completed++;
    }
    return count;
}
