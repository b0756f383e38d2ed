/* Queues come and go, while nothing runs (NVMe 1.4, sections 5.3 to 5.6). */
#include "data_path.h"

/* A doorbell begins at 0. */
static void
clear_doorbell(struct data_path *self, uint16_t number, bool is_completion)
{
    uint32_t place = (2u * number + is_completion) * self->stride;
    uspace_write32((volatile uint8_t *)self->doorbells + place, 0);
}

void
path_open_completion(struct data_path *self, uint16_t number, uint64_t address, uint32_t entries,
                     uint16_t vector)
{
    clear_doorbell(self, number, true);
    if (number >= self->completion_end)
        self->completion_end = number + 1u;
    self->completions[number] = (struct completion){
        .address = address, .entries = entries, .vector = vector, .phase = 1, .open = true,
        .refused = NOTHING,
    };
}

void
path_open_submission(struct data_path *self, uint16_t number, uint64_t address, uint32_t entries,
                     uint16_t completion)
{
    clear_doorbell(self, number, false);
    self->submissions[number] = (struct submission){
        .address = address, .entries = entries, .completion = completion, .open = true,
        .refused = NOTHING,
    };
    self->order[self->order_count++] = number;
}

void
path_close_submission(struct data_path *self, uint16_t number)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < self->order_count; i++) {
        if (self->order[i] != number)
            self->order[kept++] = self->order[i];
    }
    self->order_count = kept;
    self->next = 0;
    self->submissions[number].open = false;
    clear_doorbell(self, number, false);
}

uint16_t
path_close_completion(struct data_path *self, uint16_t number)
{
    uint16_t vector = self->completions[number].vector;
    path_let_wait(self, number, false);
    self->completions[number].open = false;
    clear_doorbell(self, number, true);
    return path_has_entries(self, vector) ? NO_VECTOR : vector;
}

void
path_let_wait(struct data_path *self, uint16_t number, bool waits)
{
    struct completion *queue = &self->completions[number];
    self->waiting_count += (uint32_t)waits - (uint32_t)queue->waits;
    queue->waits = waits;
}

bool
path_has_entries(struct data_path *self, uint16_t vector)
{
    for (uint32_t i = 0; i < self->completion_end; i++) {
        struct completion *queue = &self->completions[i];
        if (queue->open && queue->vector == vector && path_used(queue))
            return true;
    }
    return false;
}
