/* The model's queues and copies in C: what is plainly good is done here, the rest is handed out.
 *
 * NVM Express Base Specification 1.4, sections 3.1.24 and 3.1.25 (doorbells), 4.1 (queues), 4.3
 * (PRP lists), 4.4 (SGLs) and 6 (NVM commands). Nothing in the driver's memory is trusted: a
 * command is copied once, then looked at; addresses are looked up for every use; a doorbell is
 * checked before it is an index. */
#ifndef USPACE_NVME_DATA_PATH_H
#define USPACE_NVME_DATA_PATH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "uspace_drv.h"

enum { COMMAND_SIZE = 64, COMPLETION_SIZE = 16, DOORBELL_PAGE = 4096, QUEUE_PAGE = 4096 };
enum { QUEUES = 128, NAMESPACES = 64, VECTORS = 128, MOST_SEGMENTS = 2048 };
enum { LARGEST_STRIDE = DOORBELL_PAGE / (2 * QUEUES) };
#define NO_VECTOR 0xFFFFu
#define NOTHING UINT64_MAX

/* Why `path_run` returned; several may have come together. */
enum event {
    EVENT_INTERRUPTED = 1,  /* somebody asked */
    EVENT_COMMAND = 2,      /* `command` of queue `from` is for the model's Python */
    EVENT_RAISED = 4,       /* completions were posted to queues with these vectors */
    EVENT_LOWERED = 8,      /* queues with these vectors have nothing left to take */
    EVENT_DOORBELL = 16,    /* `number`, `is_completion`: the driver wrote `value` */
    EVENT_FETCH = 32,       /* the entry of submission queue `number` at `value` is not there */
    EVENT_SHADOW = 64,      /* nor are the shadow doorbells, at IOVA `value` */
    EVENT_ROOM = 128,       /* a completion queue that `waits` has room again */
    EVENT_MEMORY = 256,     /* memory went away under somebody: the table has to say whose */
};

/* What `path_run` leaves to others. */
enum mode {
    MODE_BLOCKED = 1,       /* bus mastering is off: a doorbell is an EVENT_FETCH */
    MODE_HAND_OUT = 2,      /* each command is an EVENT_COMMAND */
    MODE_LEVELS = 4,        /* EVENT_LOWERED is wanted */
    MODE_WRITE_THROUGH = 8, /* the write cache is off */
};

/* A page of the driver's memory that was looked up, good for one `path_run`. */
struct window {
    uint64_t page, run;
    uint8_t *bytes;
};

struct submission {
    uint64_t address;
    uint32_t entries, head;
    uint32_t tail;    /* of the doorbell, once it was found good */
    uint64_t refused; /* the doorbell's value that was reported, or NOTHING */
    uint16_t completion;
    bool open;
    struct window window;
};

struct completion {
    uint64_t address;
    uint32_t entries, tail;
    uint32_t head;    /* of the doorbell, once it was found good */
    uint64_t refused;
    uint16_t vector;
    uint16_t phase;
    bool open;
    bool waits;  /* completions wait in Python for room: nothing may overtake them */
    bool raised; /* its vector was told that there is something to take */
    struct window window;
};

/* Where a namespace's blocks are; `blocks` is 0 where there is none. */
struct space {
    uint64_t blocks;
    uint8_t *bytes; /* NULL without a file: writes are discarded, reads leave memory as it was */
    uint8_t shift;
    bool is_durable; /* they are in a file, and a flush is Python's */
    int file;        /* its descriptor, which is the caller's */
};

struct work {
    uint64_t reads, writes, bytes_read, bytes_written;
};

struct segment {
    uint8_t *bytes;
    uint64_t size;
};

struct data_path {
    /* What others write while it runs, on a line of its own. */
    _Alignas(64) atomic_uint interrupted;
    atomic_uint asleep;

    _Alignas(64) const volatile uint8_t *doorbells;
    uint32_t stride; /* bytes from one doorbell to the next */
    uint16_t order[QUEUES]; /* submission queues that are open */
    uint32_t order_count, waiting_count;
    uint32_t next; /* whose turn it is, of those */
    uint32_t completion_end; /* no completion queue has this number or a larger one */
    uint32_t page_size;
    uint64_t most_bytes; /* of one command: MDTS */
    bool has_sgl;
    struct submission submissions[QUEUES];
    struct completion completions[QUEUES];
    struct space spaces[NAMESPACES];

    bool has_shadow;
    uint64_t shadow; /* IOVA */
    const volatile uint8_t *shadow_bytes; /* NULL between two runs */
    bool shadow_refused;

    /* Counts what bus errors have taken away in this process (fault_guard.c), up to now and as
     * the table knows it. */
    const volatile uint8_t *faults;
    uint32_t faults_known;

    /* During `path_run` only: NULL between two runs. */
    const struct uspace_mapping *table, *last;
    size_t count;
    unsigned mode;
    uint64_t run; /* counts them */

    /* What there is to say when it returns. */
    unsigned events;
    uint16_t from, number;
    bool is_completion;
    uint64_t value;
    uint8_t command[COMMAND_SIZE];
    uint64_t raised[VECTORS / 64], lowered[VECTORS / 64];
    struct work work;

    uint32_t segment_count;
    struct segment segments[MOST_SEGMENTS];
};

/* data_path.c: serve the queues until there is an event, then return its bits. The table belongs to
 * the caller, who keeps it as it is until then. */
unsigned path_run(struct data_path *self, const struct uspace_mapping *table, size_t count,
                  unsigned mode);
void path_interrupt(struct data_path *self);
/* The entry at a completion queue's tail was written, by C or by Python. */
void path_step(struct completion *queue);
/* The entry at a submission queue's head was fetched. */
void path_take(struct submission *queue);
/* Entries that are free in a completion queue, with its head as the driver has it now. */
uint32_t path_room(struct data_path *self, uint16_t number);

/* data_path_queues.c: between two runs; the caller has seen to it that numbers are in range. */
void path_open_completion(struct data_path *self, uint16_t number, uint64_t address,
                          uint32_t entries, uint16_t vector);
void path_open_submission(struct data_path *self, uint16_t number, uint64_t address,
                          uint32_t entries, uint16_t completion);
void path_close_submission(struct data_path *self, uint16_t number);
/* Its vector, which is to be lowered; or NO_VECTOR. */
uint16_t path_close_completion(struct data_path *self, uint16_t number);
/* Completions wait in Python for room in that queue, or no longer. */
void path_let_wait(struct data_path *self, uint16_t number, bool waits);
/* Whether the driver has left anything in a queue of this vector. */
bool path_has_entries(struct data_path *self, uint16_t vector);

/* data_path_memory.c */
uint8_t *path_reach(struct data_path *self, uint64_t iova, uint64_t size, uint64_t direction);
/* The same within one page, remembered. */
uint8_t *path_entry(struct data_path *self, struct window *window, uint64_t iova,
                    uint64_t direction);
/* Find all of a command's data, or say that it is not plainly good. */
bool path_find_data(struct data_path *self, const uint8_t *command, uint64_t size,
                    uint64_t direction);

/* data_path_command.c: true when it was done and was good; false when it is for Python. Nothing was
 * done then, but where memory went away under it, and Python can only find that. */
bool path_execute(struct data_path *self, const uint8_t *command);

/* Whether what this thread has just copied may have been ones that nobody wrote: a client that cuts
 * its memory off is told so by the model's Python. The mark is set in this very thread. */
static inline bool
path_faulted(const struct data_path *self)
{
    atomic_signal_fence(memory_order_seq_cst);
    return __builtin_expect(uspace_read32(self->faults) != self->faults_known, 0);
}

/* Entries of a completion queue that the driver has not taken. */
static inline uint32_t
path_used(const struct completion *queue)
{
    uint32_t count = queue->tail - queue->head;
    return queue->tail < queue->head ? count + queue->entries : count;
}

static inline uint32_t
load32(const uint8_t *bytes)
{
    uint32_t value;
    __builtin_memcpy(&value, bytes, sizeof(value));
    return USPACE_SWAP32(value);
}

static inline uint64_t
load64(const uint8_t *bytes)
{
    uint64_t value;
    __builtin_memcpy(&value, bytes, sizeof(value));
    return USPACE_SWAP64(value);
}

#endif
