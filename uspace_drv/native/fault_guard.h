/* Turns a bus error on guarded memory into a mark instead of a dead process (sigaction(2)). */
#ifndef USPACE_FAULT_GUARD_H
#define USPACE_FAULT_GUARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GUARD_LIVE, GUARD_GONE, GUARD_FORKED };

struct guarded {
    struct guarded *next;
    atomic_uint version; /* odd while start and end change */
    atomic_uintptr_t start, end;
    atomic_uintptr_t fault; /* where the first bus error hit */
    volatile atomic_int state;
    atomic_uint ones;       /* pages of ones that were laid over it */
    atomic_bool own;        /* our own mapping, which a forked child must not have */
};

/* Pages that went away since the process began. The thread that met one finds it counted. */
extern volatile atomic_uint guard_faults;

/* Guard `size` bytes, above any handler of SIGBUS that came meanwhile; NULL and errno if there is
 * no memory. Our own mapping is guarded whole, to the end of its last page, huge or not. Needs the
 * GIL. */
struct guarded *guard_add(void *start, size_t size, bool own);

/* Stop guarding; the entry is used again. Needs the GIL. */
void guard_remove(struct guarded *range);

/* Lay zeroed private memory over a range, in one step for other threads. -1 and errno, or 0. A
 * range of huge pages ends with one. */
int overlay_zeros(void *start, size_t size);

#endif
