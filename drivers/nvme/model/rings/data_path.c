/* The loop over doorbells: fetch, execute, complete; and how it sleeps when there is nothing. */
#define _GNU_SOURCE
#include "data_path.h"

#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LIKELY(condition) __builtin_expect(!!(condition), 1)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

enum {
    BATCH = 64,          /* commands of one queue before the next one has its turn */
    HOT_PASSES = 4096,   /* without a pause: some 40 us */
    WARM_PASSES = 1024,  /* with one: some 50 us */
    SHORTEST_NAP = 50000, LONGEST_NAP = 1000000, /* ns */
};

/* Doorbells (sections 3.1.24 and 3.1.25). */

static const volatile uint8_t *
doorbell(const struct data_path *self, uint16_t number, bool is_completion)
{
    uint32_t place = 2u * number + is_completion;
    if (self->has_shadow && number)
        return self->shadow_bytes ? self->shadow_bytes + place * self->stride : NULL;
    return self->doorbells + place * self->stride;
}

static void
report_doorbell(struct data_path *self, uint16_t number, bool is_completion, uint32_t value)
{
    if (self->events & (EVENT_DOORBELL | EVENT_FETCH | EVENT_SHADOW))
        return; /* one at a time: the next pass finds it again */
    self->events |= EVENT_DOORBELL;
    self->number = number;
    self->is_completion = is_completion;
    self->value = value;
    if (is_completion)
        self->completions[number].refused = value;
    else
        self->submissions[number].refused = value;
}

/* The driver has taken entries up to the head in the doorbell, if that can be. */
static void
look_at_head(struct data_path *self, uint16_t number, struct completion *queue)
{
    const volatile uint8_t *place = doorbell(self, number, true);
    uint32_t head = place ? uspace_read32(place) : queue->head;
    if (LIKELY(head == queue->head))
        return;
    uint32_t gone = head - queue->head + (head < queue->head ? queue->entries : 0);
    if (LIKELY(head < queue->entries && gone <= path_used(queue)))
        queue->head = head;
    else if (head != queue->refused)
        report_doorbell(self, number, true, head);
}

uint32_t
path_room(struct data_path *self, uint16_t number)
{
    struct completion *queue = &self->completions[number];
    look_at_head(self, number, queue);
    return queue->entries - 1 - path_used(queue); /* a full queue has one that is empty (4.1.2) */
}

static void
look_at_tail(struct data_path *self, uint16_t number, struct submission *queue)
{
    const volatile uint8_t *place = doorbell(self, number, false);
    uint32_t tail = place ? uspace_read32(place) : queue->tail;
    if (LIKELY(tail == queue->tail))
        return;
    if (LIKELY(tail < queue->entries))
        queue->tail = tail;
    else if (tail != queue->refused)
        report_doorbell(self, number, false, tail);
}

/* Queues (sections 4.1 and 4.6). */

void
path_step(struct completion *queue)
{
    if (++queue->tail == queue->entries) {
        queue->tail = 0;
        queue->phase ^= 1;
    }
}

void
path_take(struct submission *queue)
{
    queue->head = queue->head + 1 == queue->entries ? 0 : queue->head + 1;
}

static uint8_t *
next_entry(struct data_path *self, struct completion *queue)
{
    uint64_t iova = queue->address + (uint64_t)COMPLETION_SIZE * queue->tail;
    return path_entry(self, &queue->window, iova, USPACE_FROM_DEVICE);
}

/* The phase goes last: whoever polls sees all of an entry or nothing. */
static void
post(struct data_path *self, uint16_t number, const struct submission *from,
     struct completion *queue, uint8_t *entry, uint16_t id)
{
    uint64_t words = from->head | (uint64_t)number << 16 | (uint64_t)id << 32
                     | (uint64_t)queue->phase << 48;
    _Atomic uint64_t *halves = (_Atomic uint64_t *)(void *)entry;
    atomic_store_explicit(&halves[0], 0, memory_order_relaxed);
    atomic_store_explicit(&halves[1], USPACE_SWAP64(words), memory_order_release);
    path_step(queue);
    queue->raised = true;
    if (queue->vector != NO_VECTOR) {
        self->raised[queue->vector / 64] |= UINT64_C(1) << queue->vector % 64;
        self->events |= EVENT_RAISED;
    }
}

static void
report_fetch(struct data_path *self, uint16_t number, uint64_t iova)
{
    if (self->events & (EVENT_DOORBELL | EVENT_FETCH | EVENT_SHADOW))
        return;
    self->events |= EVENT_FETCH;
    self->number = number;
    self->value = iova;
}

/* One command, from its entry to its completion. False where the queue has to wait for Python. */
static bool
serve_one(struct data_path *self, uint16_t number, struct submission *queue,
          struct completion *completion)
{
    uint64_t iova = queue->address + (uint64_t)COMMAND_SIZE * queue->head;
    const uint8_t *entry = self->mode & MODE_BLOCKED
                               ? NULL
                               : path_entry(self, &queue->window, iova, USPACE_TO_DEVICE);
    if (UNLIKELY(!entry)) {
        report_fetch(self, number, iova);
        return false;
    }
    __builtin_prefetch(entry + 4 * COMMAND_SIZE);
    memcpy(self->command, entry, COMMAND_SIZE);
    if (path_faulted(self)) { /* and from here on only the copy counts */
        report_fetch(self, number, iova);
        return false;
    }
    path_take(queue);
    uint8_t *answer = next_entry(self, completion);
    if (number && answer && !(self->mode & MODE_HAND_OUT) && path_execute(self, self->command)) {
        post(self, number, queue, completion, answer,
             (uint16_t)(self->command[2] | self->command[3] << 8));
        return true;
    }
    self->events |= EVENT_COMMAND;
    self->from = number;
    return false;
}

/* How many it has done. */
static uint32_t
serve(struct data_path *self, uint16_t number)
{
    struct submission *queue = &self->submissions[number];
    struct completion *completion = &self->completions[queue->completion];
    look_at_tail(self, number, queue);
    if (LIKELY(queue->head == queue->tail))
        return 0;
    uint32_t room = completion->waits ? 0 : path_room(self, queue->completion), done = 0;
    atomic_thread_fence(memory_order_acquire); /* entries after the tail that says they are there */
    while (done < BATCH && done < room && queue->head != queue->tail) {
        if (!serve_one(self, number, queue, completion))
            return done + 1;
        done++;
    }
    return done;
}

/* Queues that the driver has emptied: a level is to be lowered. What was raised in this run is told
 * first, and looked at in the next one. */
static void
look_for_lowered(struct data_path *self)
{
    for (uint32_t i = 0; i < self->completion_end; i++) {
        struct completion *queue = &self->completions[i];
        if (!queue->open || !queue->raised || queue->vector == NO_VECTOR)
            continue;
        uint64_t bit = UINT64_C(1) << queue->vector % 64;
        look_at_head(self, (uint16_t)i, queue);
        if (self->raised[queue->vector / 64] & bit || path_has_entries(self, queue->vector))
            continue;
        queue->raised = false;
        self->lowered[queue->vector / 64] |= bit;
        self->events |= EVENT_LOWERED;
    }
}

static void
look_for_room(struct data_path *self)
{
    for (uint32_t i = 0; i < self->completion_end; i++) {
        if (self->completions[i].waits && path_room(self, (uint16_t)i))
            self->events |= EVENT_ROOM;
    }
}

/* Python has one command of one queue in a run: the next run begins with the queue after it. */
static uint32_t
pass(struct data_path *self)
{
    uint32_t done = 0, place = self->next;
    for (uint32_t i = 0; i < self->order_count && !(self->events & EVENT_COMMAND); i++) {
        unsigned before = self->events;
        if (place >= self->order_count)
            place = 0;
        done += serve(self, self->order[place++]);
        if (UNLIKELY(self->events & ~before & (EVENT_COMMAND | EVENT_FETCH)))
            self->next = place;
    }
    if (UNLIKELY(self->waiting_count))
        look_for_room(self);
    if (UNLIKELY(self->mode & MODE_LEVELS) && !(self->events & EVENT_COMMAND))
        look_for_lowered(self);
    return done;
}

/* Heads of queues that nothing is submitted to, and doorbells of queues that do not exist: looked
 * at only when there is time. */
static void
look_at_the_rest(struct data_path *self)
{
    for (uint32_t i = 0; i < self->completion_end; i++) {
        if (self->completions[i].open)
            look_at_head(self, (uint16_t)i, &self->completions[i]);
    }
    for (uint32_t place = 0; place * self->stride < DOORBELL_PAGE; place++) {
        uint32_t number = place / 2;
        bool is_completion = place % 2;
        bool open = number < QUEUES
                    && (is_completion ? self->completions[number].open
                                      : self->submissions[number].open);
        volatile uint8_t *where = (volatile uint8_t *)self->doorbells + place * self->stride;
        uint32_t value = open ? 0 : uspace_read32(where);
        if (value == 0 || self->events)
            continue;
        uspace_write32(where, 0);
        self->events |= EVENT_DOORBELL;
        self->number = (uint16_t)number;
        self->is_completion = is_completion;
        self->value = value;
        return;
    }
}

/* Sleep (futex(2)) until somebody interrupts, or for so many nanoseconds. */
static void
nap(struct data_path *self, long nanoseconds)
{
    struct timespec timeout = {.tv_nsec = nanoseconds};
    atomic_store(&self->asleep, 1);
    if (!atomic_load(&self->interrupted))
        syscall(SYS_futex, &self->interrupted, FUTEX_WAIT_PRIVATE, 0, &timeout, NULL, 0);
    atomic_store(&self->asleep, 0);
}

void
path_interrupt(struct data_path *self)
{
    atomic_store(&self->interrupted, 1);
    if (atomic_load(&self->asleep))
        syscall(SYS_futex, &self->interrupted, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void
begin(struct data_path *self, const struct uspace_mapping *table, size_t count, unsigned mode)
{
    self->table = table;
    self->count = count;
    self->last = NULL;
    self->mode = mode;
    self->events = 0;
    memset(self->raised, 0, sizeof(self->raised));
    memset(self->lowered, 0, sizeof(self->lowered));
    self->run++; /* what was looked up before may be gone */
    if (!self->has_shadow)
        return;
    self->shadow_bytes = mode & MODE_BLOCKED ? NULL
                         : path_reach(self, self->shadow, self->page_size, USPACE_TO_DEVICE);
    if (!self->shadow_bytes && !self->shadow_refused) {
        self->shadow_refused = true;
        self->events = EVENT_SHADOW;
        self->value = self->shadow;
    }
}

/* What was looked up is forgotten: before the next run it may be unmapped. */
static void
end(struct data_path *self)
{
    self->table = self->last = NULL;
    self->count = 0;
    self->shadow_bytes = NULL;
}

static unsigned
serve_until_event(struct data_path *self)
{
    uint32_t idle = 0;
    long rest = SHORTEST_NAP;
    for (;;) {
        if (UNLIKELY(atomic_load_explicit(&self->interrupted, memory_order_relaxed)))
            return self->events | EVENT_INTERRUPTED;
        if (path_faulted(self)) {
            self->faults_known = uspace_read32(self->faults);
            return self->events | EVENT_MEMORY;
        }
        if (pass(self)) {
            idle = 0;
            rest = SHORTEST_NAP;
        } else if (++idle > HOT_PASSES + WARM_PASSES) {
            look_at_the_rest(self);
            if (!self->events)
                nap(self, rest);
            rest = 2 * rest < LONGEST_NAP ? 2 * rest : LONGEST_NAP;
        } else if (idle > HOT_PASSES) {
            uspace_pause();
        }
        if (self->events)
            return self->events;
    }
}

unsigned
path_run(struct data_path *self, const struct uspace_mapping *table, size_t count, unsigned mode)
{
    begin(self, table, count, mode);
    unsigned events = serve_until_event(self);
    end(self);
    return events;
}
