/* Whose turn it is with the mappings of a device, and which module the types are of. */
#include "dma.h"

#include <sched.h>

static void
take_lock(struct turn *turn)
{
    if (PyThread_acquire_lock(turn->lock, NOWAIT_LOCK))
        return;
    Py_BEGIN_ALLOW_THREADS
    PyThread_acquire_lock(turn->lock, WAIT_LOCK);
    Py_END_ALLOW_THREADS
}

void
turn_take(struct turn *turn)
{
    /* Whoever has it now is without the GIL, as we have it, and so has the lock; or it is us. */
    while (turn->depth && turn->owner != PyThread_get_thread_ident()) {
        Py_BEGIN_ALLOW_THREADS
        PyThread_acquire_lock(turn->lock, WAIT_LOCK);
        PyThread_release_lock(turn->lock);
        sched_yield(); /* it may be about to take the lock */
        Py_END_ALLOW_THREADS
    }
    turn->depth++;
}

void
turn_lock(struct turn *turn)
{
    if (!turn->locked) {
        turn->owner = PyThread_get_thread_ident(); /* nobody asks before the GIL is given up */
        take_lock(turn);
        turn->locked = true;
    }
}

void
turn_give_back(struct turn *turn)
{
    if (--turn->depth == 0 && turn->locked) {
        turn->locked = false;
        PyThread_release_lock(turn->lock);
    }
}

struct module_state *
dma_state(PyTypeObject *type)
{
    struct module_state *state = NULL;
    while (type && !(state = PyType_GetModuleState(type))) {
        PyErr_Clear(); /* a class in Python belongs to no module: ask what it is derived from */
        type = PyType_GetSlot(type, Py_tp_base);
    }
    return state;
}
