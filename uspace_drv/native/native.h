/* What the files of the extension share: the module's state, a window, and how it refuses. */
#ifndef USPACE_NATIVE_H
#define USPACE_NATIVE_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 /* one build for Python 3.11 and later */
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>

#include "fault_guard.h"

#define LIKELY(condition) __builtin_expect(!!(condition), 1)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

struct module_state {
    PyTypeObject *window_type, *mapping_type, *channel_type, *message_type;
    PyTypeObject *iova_table_type, *dma_table_type, *dma_mapping_type, *turn_lock_type;
    PyObject *host_error, *unsupported_error, *register_value_error, *closed_error, *busy_error;
    PyObject *peer_error, *device_gone;
};

/* Memory that a window and its views share; it goes with the last of them. */
typedef struct {
    PyObject_HEAD
    uint8_t *bytes;
    size_t size;
    size_t whole;          /* the same in whole pages, where the pages are our own */
    bool writable;
    Py_ssize_t views;      /* alive now */
    Py_buffer borrowed;    /* .obj is NULL when the pages are our own */
    struct guarded *range; /* NULL until it is guarded */
} Mapping;

enum window_kind { MEMORY_WINDOW, FILE_WINDOW, CALLS_WINDOW };

/* Where another window shows through. */
struct part {
    uint64_t start, end;
    PyObject *window; /* a MEMORY_WINDOW */
};

typedef struct {
    PyObject_HEAD
    enum window_kind kind;
    bool closed, writable;
    uint64_t size;
    uint64_t limit;    /* = size, and 0 once closed: the bounds check finds closed windows too */
    PyObject *name;
    PyObject *link;    /* whom to ask whether the device is there, or NULL */
    uint8_t *bytes;    /* memory */
    Mapping *mapping;
    int fd;            /* file */
    off_t file_offset;
    pid_t opener;      /* a forked child inherits the file, but has no part in the device */
    PyObject *read, *write; /* calls */
    struct part *parts;     /* calls: ascending, none overlaps another */
    Py_ssize_t part_count;
} Window;

extern PyType_Spec window_spec, mapping_spec, channel_spec, turn_lock_spec;
extern PyStructSequence_Desc message_description;

/* access.c */
PyObject *window_read8(PyObject *self, PyObject *offset);
PyObject *window_read16(PyObject *self, PyObject *offset);
PyObject *window_read32(PyObject *self, PyObject *offset);
PyObject *window_read64(PyObject *self, PyObject *offset);
PyObject *window_write8(PyObject *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *window_write16(PyObject *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *window_write32(PyObject *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *window_write64(PyObject *self, PyObject *const *arguments, Py_ssize_t count);

/* slow_access.c: files and models. False with an exception set. */
bool file_read(Window *self, uint64_t offset, unsigned width, uint64_t *value);
bool file_write(Window *self, uint64_t offset, unsigned width, uint64_t value);
bool calls_read(Window *self, uint64_t offset, unsigned width, uint64_t *value);
bool calls_write(Window *self, uint64_t offset, unsigned width, uint64_t value);

/* parts.c */
bool parts_take(Window *self, PyObject *parts);
bool parts_close(Window *self);
int parts_visit(Window *self, visitproc visit, void *arg);
void parts_clear(Window *self);

/* view.c */
PyObject *window_memory(PyObject *object, PyObject *arguments, PyObject *keywords);

/* mapping.c. NULL and errno, or NULL with an exception set. */
Mapping *mapping_of_file(struct module_state *state, int fd, off_t offset, size_t size,
                         bool writable);
Mapping *mapping_of_buffer(struct module_state *state, PyObject *buffer);
/* Give our own pages back at once, views or not. -1 and errno when that is impossible. */
int mapping_revoke(Mapping *self);

/* refusal.c: each sets an exception that opens with the window's name, and returns false. */
bool refuse_offset(Window *self, PyObject *offset, unsigned width);
bool refuse_value(Window *self, PyObject *value, unsigned width);
bool refuse_answer(Window *self, PyObject *answer, uint64_t offset, unsigned width);
bool refuse_state(Window *self);
bool refuse_read_only(Window *self);
bool refuse_transfer(Window *self, const char *verb, uint64_t offset, unsigned width, ssize_t done);
bool refuse_map(struct module_state *state, PyObject *name, const char *verb, int error);
bool raise_host_error(struct module_state *state, PyObject *message, int error);

/* wait.c */
PyObject *wait_readable(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
int64_t monotonic_now(void); /* ns */
/* Seconds, finite and not negative, as ns. False with an exception set. */
bool take_seconds(PyObject *argument, const char *where, const char *name, int64_t *nanoseconds);

/* A Python integer, without losing what does not fit. */
struct number {
    uint64_t value;
    bool fits; /* in 64 bits, unsigned */
};

/* False with an exception set where it is not an integer. */
bool take_odd_number(PyObject *argument, int overflow, struct number *number);

static inline bool
take_number(PyObject *argument, struct number *number)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(argument, &overflow);
    number->value = (uint64_t)value;
    number->fits = true;
    return LIKELY(value >= 0) || take_odd_number(argument, overflow, number);
}

static inline uint64_t
largest(unsigned width)
{
    return UINT64_MAX >> (64 - 8 * width);
}

static inline bool
is_live(const Window *self)
{
    if (self->kind != MEMORY_WINDOW)
        return self->kind == CALLS_WINDOW || self->opener == getpid();
    volatile atomic_int *state = &self->mapping->range->state;
    return atomic_load_explicit(state, memory_order_relaxed) == GUARD_LIVE;
}

/* The mapped window that shows through at an offset, or NULL. An access that is inside and aligned
 * never straddles the end of one: both its ends are multiples of 8. */
static inline const struct part *
part_at(const Window *self, uint64_t offset)
{
    for (Py_ssize_t i = 0; i < self->part_count && self->parts[i].start <= offset; i++) {
        if (offset < self->parts[i].end)
            return &self->parts[i];
    }
    return NULL;
}

static inline struct module_state *
state_of(Window *self)
{
    return PyType_GetModuleState(Py_TYPE((PyObject *)self));
}

#endif
