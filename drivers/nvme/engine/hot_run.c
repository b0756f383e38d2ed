/* Whole batches and blocking requests without going back to Python in between. */
#include "hot.h"

static void
feed(struct hot_queue *queue, const struct hot_ranges *ranges, struct hot_run *run)
{
    size_t flying = run->submitted - run->done, left = run->count - run->submitted;
    size_t room = run->depth > flying ? run->depth - flying : 0;
    if (run->wrong || !left || !room)
        return;
    run->submitted += hot_submit(queue, ranges, run->requests + run->submitted,
                                 left < room ? left : room, &run->wrong);
}

static bool
is_over(const struct hot_run *run)
{
    bool all = run->submitted == run->count || run->wrong;
    return all && run->done == run->submitted;
}

/* How often a loop that never has to wait looks at the clock. */
enum { ROUNDS = 256 };

/* A quarter of what is in flight is collected before more is submitted: a doorbell for each one
 * would cost the device more than it gains. */
enum { SHARE = 4 };

bool
hot_run_until(struct hot_queue *queue, const struct hot_ranges *ranges, struct hot_run *run,
              int64_t deadline)
{
    for (unsigned rounds = 1;; rounds++) {
        feed(queue, ranges, run);
        if (is_over(run))
            return true;
        size_t flying = run->submitted - run->done;
        size_t got = hot_collect_until(queue, run->results + run->done, flying,
                                       (flying + SHARE - 1) / SHARE, deadline);
        run->done += got;
        if (queue->violation.breach)
            return true;
        if (!got || (rounds % ROUNDS == 0 && hot_now() >= deadline))
            return false;
    }
}

enum hot_wrong
hot_transfer(struct hot_queue *queue, const struct hot_ranges *ranges,
             const struct hot_request *request)
{
    enum hot_wrong wrong;
    if (hot_submit(queue, ranges, request, 1, &wrong)) {
        queue->transfer_slot = queue->free_slots[queue->free_count];
        queue->transfer = TRANSFER_FLYING;
    }
    return wrong;
}
