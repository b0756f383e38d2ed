/* Views of a window as memory: of all of it, or of a mapped part (Python buffer protocol). */
#include "native.h"

/* Checked so that nothing can wrap; a size of None is all that follows. It comes before anything
 * else is looked at, because `__index__` of a strange argument may close the window. */
static bool
take_range(Window *self, PyObject *arguments, PyObject *keywords, uint64_t *offset, uint64_t *size)
{
    static char *names[] = {"offset", "size", NULL};
    Py_ssize_t start = 0, length = -1;
    PyObject *wanted = Py_None;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "|nO:memory", names, &start, &wanted))
        return false;
    if (wanted != Py_None && (length = PyLong_AsSsize_t(wanted)) == -1 && PyErr_Occurred())
        return false;
    bool inside = start >= 0 && (uint64_t)start <= self->size;
    *offset = (uint64_t)start;
    *size = wanted == Py_None && inside ? self->size - *offset : (uint64_t)length;
    if (inside && *size <= self->size - *offset)
        return true;
    PyErr_Format(state_of(self)->register_value_error,
                 "%U: a view of size %S from offset %zd is not inside of its %llu bytes",
                 self->name, wanted, start, (unsigned long long)self->size);
    return false;
}

/* The mapped window that holds all of a range, and where the range begins in it; or NULL. */
static Window *
mapped_at(Window *self, uint64_t *offset, uint64_t size)
{
    const struct part *part = part_at(self, *offset);
    if (self->kind == MEMORY_WINDOW)
        return self;
    if (!part || size > part->end - *offset)
        return NULL;
    *offset -= part->start;
    return (Window *)part->window;
}

static void
refuse_view(Window *self, uint64_t offset, uint64_t size)
{
    const char *reached = self->kind == FILE_WINDOW ? "pread and pwrite" : "calls of a model";
    PyObject *error = state_of(self)->unsupported_error;
    unsigned long long from = offset, to = offset + size;
    if (self->part_count)
        PyErr_Format(error,
                     "%U cannot be seen as memory from offset %llu to %llu: not all of that lies "
                     "in one mapped part, what does not is reached by calls; a mapped part can",
                     self->name, from, to);
    else
        PyErr_Format(error, "%U cannot be seen as memory: it is reached by %s; a mapped window can",
                     self->name, reached);
}

PyObject *
window_memory(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    Window *self = (Window *)object;
    uint64_t offset, size;
    if (!take_range(self, arguments, keywords, &offset, &size))
        return NULL;
    if (self->closed || !is_live(self)) {
        refuse_state(self);
        return NULL;
    }
    uint64_t start = offset;
    Window *mapped = mapped_at(self, &start, size);
    if (!mapped) {
        refuse_view(self, offset, size);
        return NULL;
    }
    if (!is_live(mapped)) {
        refuse_state(mapped);
        return NULL;
    }
    PyObject *whole = PyMemoryView_FromObject((PyObject *)mapped->mapping);
    if (!whole || size == mapped->size)
        return whole;
    PyObject *view = PySequence_GetSlice(whole, (Py_ssize_t)start, (Py_ssize_t)(start + size));
    Py_DECREF(whole);
    return view;
}
