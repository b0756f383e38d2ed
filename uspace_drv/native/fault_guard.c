/* The fault guard: what SIGBUS means when a device vanishes under a mapping (sigaction(2)).
 *
 * A device that is unplugged, reset or truncated answers a load or store with SIGBUS. The handler
 * lays a page of all ones, what a PCI bus returns for nobody there, over the faulting one and marks
 * every window that covers it, so the interrupted instruction finishes and its caller finds the
 * mark. A huge page cannot be replaced in part (mmap(2), "Huge page (Huge TLB) mappings"), and a
 * process may have some 65,000 mappings (vm.max_map_count), of which each page of ones is one: then
 * zeros take the place of all of the mapping, which costs nothing until it is written.
 *
 * The list only grows and its entries are used again, so the handler walks it without a lock; it
 * changes only under the GIL. A handler that somebody installs later hides ours until the next
 * window is made, which puts ours on top again. */
#define _GNU_SOURCE
#include "fault_guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static _Atomic(struct guarded *) first;
static struct sigaction original; /* what was there before us */
static struct sigaction below;    /* what we lie on now: the same, or what came later */
static uintptr_t page_size;
static bool installed;

enum { MOST_PAGES_OF_ONES = 1024 }; /* of one mapping */

volatile atomic_uint guard_faults;

/* What a thread is handing on. Not allocated when it is first touched, which may be in a handler. */
static _Thread_local struct {
    bool busy;
    uintptr_t fault; /* the last one */
} handing __attribute__((tls_model("initial-exec")));

int
overlay_zeros(void *start, size_t size)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    void *memory = mmap(start, size, PROT_READ | PROT_WRITE, flags, -1, 0);
    return memory == MAP_FAILED ? -1 : 0;
}

/* Another thread may reuse the entry while the handler reads it; the version tells. */
static bool
covers(struct guarded *range, uintptr_t address)
{
    unsigned before = atomic_load(&range->version);
    uintptr_t start = atomic_load(&range->start);
    uintptr_t end = atomic_load(&range->end);
    bool stable = before % 2 == 0 && before == atomic_load(&range->version);
    return stable && start <= address && address < end;
}

static void
set_range(struct guarded *range, uintptr_t start, uintptr_t end)
{
    atomic_fetch_add(&range->version, 1);
    atomic_store(&range->start, start);
    atomic_store(&range->end, end);
    atomic_fetch_add(&range->version, 1);
}

static bool
mark_gone(uintptr_t fault)
{
    bool found = false;
    for (struct guarded *range = atomic_load(&first); range; range = range->next) {
        if (!covers(range, fault))
            continue;
        found = true;
        if (atomic_load(&range->state) == GUARD_LIVE) {
            atomic_store(&range->fault, fault);
            atomic_store(&range->state, GUARD_GONE);
        }
    }
    return found;
}

/* Filled elsewhere and moved into place, so that no thread ever reads it half filled. */
static bool
overlay_ones(uintptr_t fault)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    void *page = mmap(NULL, page_size, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (page == MAP_FAILED)
        return false;
    memset(page, 0xFF, page_size);
    void *target = (void *)(fault & ~(page_size - 1));
    flags = MREMAP_MAYMOVE | MREMAP_FIXED;
    bool moved = mremap(page, page_size, page_size, flags, target) != MAP_FAILED;
    if (!moved)
        munmap(page, page_size);
    return moved;
}

/* Our own mapping around a fault. Whoever met the fault holds it, so it stays meanwhile. */
static struct guarded *
own_range(uintptr_t fault)
{
    struct guarded *range = atomic_load(&first);
    while (range && !(atomic_load(&range->own) && covers(range, fault)))
        range = range->next;
    return range;
}

static bool
overlay(uintptr_t fault)
{
    struct guarded *range = own_range(fault);
    if (!range)
        return overlay_ones(fault); /* whose mapping it is and where it ends is not known */
    if (atomic_fetch_add(&range->ones, 1) < MOST_PAGES_OF_ONES && overlay_ones(fault))
        return true;
    uintptr_t start = atomic_load(&range->start);
    return overlay_zeros((void *)start, atomic_load(&range->end) - start) == 0;
}

static void
call_handler(const struct sigaction *action, int number, siginfo_t *info, void *context)
{
    if (action->sa_flags & SA_SIGINFO) {
        action->sa_sigaction(number, info, context);
    } else if (action->sa_handler == SIG_IGN && info->si_code <= 0) {
        return; /* somebody sent it, and it is ignored; a real fault cannot be */
    } else if (action->sa_handler == SIG_DFL || action->sa_handler == SIG_IGN) {
        signal(number, SIG_DFL);
        raise(number); /* ends the process */
    } else {
        action->sa_handler(number);
    }
}

/* Not ours: do what would have happened without us. A handler that came after us believes that we
 * lie below it: it calls us, or puts us back and raises the signal (faulthandler). And one that was
 * disabled meanwhile returns, to the same fault. All of that goes to what was there before us. */
static void
hand_on(int number, siginfo_t *info, void *context)
{
    bool is_fault = info->si_code > 0;
    uintptr_t fault = is_fault ? (uintptr_t)info->si_addr : 0;
    bool again = handing.busy || (is_fault && fault == handing.fault);
    bool was_busy = handing.busy;
    handing.busy = true;
    handing.fault = fault;
    call_handler(again ? &original : &below, number, info, context);
    handing.busy = was_busy;
}

static void
on_bus_error(int number, siginfo_t *info, void *context)
{
    int saved = errno;
    uintptr_t fault = (uintptr_t)info->si_addr;
    /* Broken RAM (BUS_MCEERR_*) and signals sent by kill() are not a device that vanished. */
    bool device = info->si_code == BUS_ADRERR || info->si_code == BUS_OBJERR;
    bool cured = device && mark_gone(fault) && overlay(fault);
    if (cured)
        atomic_fetch_add(&guard_faults, 1);
    errno = saved;
    if (!cured)
        hand_on(number, info, context);
}

/* The child has no part in the device: its windows say so, its views see zeros. */
static void
after_fork_in_child(void)
{
    for (struct guarded *range = atomic_load(&first); range; range = range->next) {
        uintptr_t start = atomic_load(&range->start);
        uintptr_t end = atomic_load(&range->end);
        if (!atomic_load(&range->own) || !end)
            continue;
        atomic_store(&range->state, GUARD_FORKED);
        overlay_zeros((void *)start, end - start);
    }
}

static bool
install_once(void)
{
    if (installed)
        return true;
    page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    errno = pthread_atfork(NULL, NULL, after_fork_in_child);
    installed = !errno && sigaction(SIGBUS, NULL, &original) == 0;
    return installed;
}

/* SA_NODEFER: what a handler below raises again has to arrive while `handing.busy` is set. */
static bool
put_on_top(void)
{
    struct sigaction ours = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER}, now;
    ours.sa_sigaction = on_bus_error;
    sigemptyset(&ours.sa_mask);
    if (sigaction(SIGBUS, NULL, &now) < 0)
        return false;
    if (now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_bus_error)
        return true;
    below = now;
    return sigaction(SIGBUS, &ours, NULL) == 0;
}

static struct guarded *
take_entry(void)
{
    struct guarded *range = atomic_load(&first);
    while (range && atomic_load(&range->end))
        range = range->next;
    if (range)
        return range;
    range = calloc(1, sizeof(*range));
    if (range) {
        range->next = atomic_load(&first);
        atomic_store(&first, range);
    }
    return range;
}

struct guarded *
guard_add(void *start, size_t size, bool own)
{
    struct guarded *range = install_once() && put_on_top() ? take_entry() : NULL;
    if (range) {
        atomic_store(&range->own, own);
        atomic_store(&range->ones, 0);
        atomic_store(&range->state, GUARD_LIVE);
        set_range(range, (uintptr_t)start, (uintptr_t)start + size);
    }
    return range;
}

void
guard_remove(struct guarded *range)
{
    set_range(range, 0, 0);
}
