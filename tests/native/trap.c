/* Counts the instructions that access one page, by faulting on each and single-stepping it.
 *
 * The page and its neighbours are inaccessible while armed. Each access faults, is written to a
 * log, is let through for one instruction with the trap flag (Intel SDM volume 3, 18.3.1.4), and
 * the page is closed again. The width of a store is the bytes that it changed; the caller fills the
 * page so that every stored byte changes it. A load that is too wide at either end of the page
 * faults on a neighbour too. x86-64 only, one thread, one page at a time. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { PAGE = 4096, LOG = 64, TRAP_FLAG = 0x100, FAULT_WAS_WRITE = 2 };

struct event {
    int32_t store;  /* 1, or 0 for a load */
    int32_t offset; /* of the fault from the start of the page */
    int32_t first, count; /* the bytes that a store changed */
};

static uint8_t *page, before[PAGE];
static struct event events[LOG];
static int recorded;
static struct sigaction old_segv, old_trap;

static void
protect(int protection)
{
    mprotect(page - PAGE, 3 * PAGE, protection);
}

static void
on_access(int number, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    uintptr_t offset = (uintptr_t)info->si_addr - (uintptr_t)page;
    if (offset + PAGE >= 3 * PAGE) { /* somebody else's fault */
        sigaction(number, &old_segv, NULL);
        return;
    }
    /* Only this page: an instruction that reaches into the next one shall fault there as well. */
    mprotect(page + offset / PAGE * PAGE, PAGE, PROT_READ | PROT_WRITE);
    if (recorded < LOG)
        events[recorded] = (struct event){
            .store = !!(registers[REG_ERR] & FAULT_WAS_WRITE), .offset = (int32_t)offset};
    recorded++;
    registers[REG_EFL] |= TRAP_FLAG;
}

static void
note_change(struct event *event)
{
    for (int i = 0; i < PAGE; i++) {
        if (page[i] == before[i])
            continue;
        if (!event->count)
            event->first = i;
        event->count++;
    }
    memcpy(before, page, PAGE);
}

static void
on_step(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    protect(PROT_READ | PROT_WRITE);
    if (recorded <= LOG)
        note_change(&events[recorded - 1]);
    protect(PROT_NONE);
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
}

uint8_t *
trap_open(void)
{
    int flags = MAP_SHARED | MAP_ANONYMOUS;
    uint8_t *memory = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
    page = memory == MAP_FAILED ? NULL : memory + PAGE;
    return page;
}

void
trap_close(void)
{
    munmap(page - PAGE, 3 * PAGE);
}

void
trap_arm(void)
{
    struct sigaction action = {.sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    action.sa_sigaction = on_access;
    sigaction(SIGSEGV, &action, &old_segv);
    action.sa_sigaction = on_step;
    sigaction(SIGTRAP, &action, &old_trap);
    recorded = 0;
    memcpy(before, page, PAGE);
    protect(PROT_NONE);
}

/* How many instructions there were; the first 64 of them are in the log. */
int
trap_disarm(void)
{
    protect(PROT_READ | PROT_WRITE);
    sigaction(SIGSEGV, &old_segv, NULL);
    sigaction(SIGTRAP, &old_trap, NULL);
    return recorded;
}

const struct event *
trap_log(void)
{
    return events;
}
