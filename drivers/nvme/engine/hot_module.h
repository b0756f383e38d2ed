/* What the Python side of the engine shares: the module's state and its two types. */
#ifndef NVME_HOT_MODULE_H
#define NVME_HOT_MODULE_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 /* one build for Python 3.11 and later */
#include <Python.h>

#include "hot.h"

struct module_state {
    PyTypeObject *memory_type, *queue_type;
    PyObject *register_value_error, *busy_error, *device_error;
};

/* `ranges` is replaced, never changed, and counts its users: so a call may use what it found while
 * it has no GIL, and pays for no lock. */
typedef struct {
    PyObject_HEAD
    struct hot_ranges *ranges;
} Memory;

typedef struct {
    PyObject_HEAD
    struct hot_queue core;
    bool taken; /* a call is in it, perhaps without the GIL */
    PyObject *name;
    Memory *memory;
    Py_buffer submission, completion, lists, page, doorbells, events; /* .obj NULL: not used */
} Queue;

extern PyType_Spec memory_spec, queue_spec;

/* hot_module_memory.c. Both need the GIL. */
struct hot_ranges *ranges_hold(Memory *memory);
void ranges_let_go(struct hot_ranges *ranges);

/* hot_module_setup.c */
int queue_init(PyObject *object, PyObject *arguments, PyObject *keywords);
void queue_dealloc(PyObject *object);
PyObject *queue_use_doorbells(PyObject *object, PyObject *arguments);
PyObject *queue_use_shadow(PyObject *object, PyObject *arguments);
PyObject *queue_set_namespace(PyObject *object, PyObject *arguments);
PyObject *queue_reset(PyObject *object, PyObject *ignored);

/* hot_module_calls.c */
PyObject *queue_submit(PyObject *object, PyObject *const *arguments, Py_ssize_t count);
PyObject *queue_submit_command(PyObject *object, PyObject *const *arguments, Py_ssize_t count);
PyObject *queue_poll(PyObject *object, PyObject *const *arguments, Py_ssize_t count,
                     PyObject *names);
PyObject *queue_abandon(PyObject *object, PyObject *const *arguments, Py_ssize_t count);
PyObject *queue_id_of(PyObject *object, PyObject *tag);
PyObject *queue_tag_of(PyObject *object, PyObject *id);

/* hot_module_loops.c */
PyObject *queue_transfer(PyObject *object, PyObject *const *arguments, Py_ssize_t count);
PyObject *queue_finish(PyObject *object, PyObject *spin);
PyObject *queue_run(PyObject *object, PyObject *arguments, PyObject *keywords);

/* hot_module_refusal.c: each sets an exception that opens with the queue's name. */
struct module_state *state_of(PyObject *object);
PyObject *refuse(Queue *self, const char *format, ...) __attribute__((format(printf, 2, 3)));
PyObject *refuse_busy(Queue *self, const char *format, ...) __attribute__((format(printf, 2, 3)));
PyObject *refuse_request(Queue *self, const struct hot_request *request, enum hot_wrong wrong,
                         size_t index);
/* The violation counts as reported then. */
PyObject *report_violation(Queue *self);

/* hot_module_arguments.c: false with an exception set. */
bool queue_enter(Queue *self);
bool take_count(PyObject *object, PyObject *number, const char *name, uint64_t most,
                uint64_t *value);
bool take_time(PyObject *object, PyObject *seconds, const char *name, int64_t *nanoseconds);
/* Contiguous memory of whole structures, aligned to 8 bytes. */
bool take_array(Queue *self, PyObject *argument, size_t size, bool writable, Py_buffer *buffer);
bool check_arguments(const char *name, Py_ssize_t count, Py_ssize_t expected);

/* Requests in a batch that is done before the GIL could change hands. */
enum { BRIEF = 256 };

/* ns between looks at Python's signals. */
enum { ROUND = 10000000 };

static inline int64_t
round_end(int64_t deadline)
{
    int64_t end = hot_now() + ROUND;
    return end < deadline ? end : deadline;
}

static inline void
queue_leave(Queue *self)
{
    self->taken = false;
}

#endif
