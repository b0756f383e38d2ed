/* A window in parts: calls, and mapped windows that show through (as VFIO's sparse mmap areas do,
 * Linux include/uapi/linux/vfio.h, VFIO_REGION_INFO_CAP_SPARSE_MMAP). */
#include "native.h"

static bool
refuse_part(Window *self, PyObject *part)
{
    PyErr_Format(state_of(self)->register_value_error,
                 "%U: part %R does not fit: expected (offset, mapped window), offset and size "
                 "multiples of 8, inside, ascending and apart", self->name, part);
    return false;
}

static bool
take_span(Window *self, PyObject *item, struct part *part)
{
    PyObject *window;
    unsigned long long start;
    if (!PyTuple_Check(item) || PyTuple_Size(item) != 2)
        return refuse_part(self, item);
    window = PyTuple_GetItem(item, 1);
    start = PyLong_AsUnsignedLongLong(PyTuple_GetItem(item, 0));
    if (start == (unsigned long long)-1 && PyErr_Occurred()) {
        PyErr_Clear();
        return refuse_part(self, item);
    }
    if (!PyObject_TypeCheck(window, Py_TYPE((PyObject *)self))
        || ((Window *)window)->kind != MEMORY_WINDOW)
        return refuse_part(self, item);
    uint64_t size = ((Window *)window)->size;
    if (start % 8 || size % 8 || size > self->size || start > self->size - size)
        return refuse_part(self, item);
    *part = (struct part){.start = start, .end = start + size, .window = window};
    return true;
}

bool
parts_take(Window *self, PyObject *parts)
{
    Py_ssize_t count = PyTuple_Size(parts);
    if (count == 0)
        return true;
    self->parts = PyMem_Calloc((size_t)count, sizeof(struct part));
    if (!self->parts) {
        PyErr_NoMemory();
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PyTuple_GetItem(parts, i);
        struct part *part = &self->parts[i];
        if (!take_span(self, item, part))
            return false;
        if (i > 0 && part->start < self->parts[i - 1].end)
            return refuse_part(self, item);
        Py_INCREF(part->window);
        self->part_count = i + 1;
    }
    return true;
}

/* All of them, even if one fails; the first failure is the exception. */
bool
parts_close(Window *self)
{
    bool good = true;
    for (Py_ssize_t i = 0; i < self->part_count; i++) {
        PyObject *type = NULL, *value = NULL, *trace = NULL;
        PyErr_Fetch(&type, &value, &trace);
        PyObject *closed = PyObject_CallMethod(self->parts[i].window, "close", NULL);
        good &= closed != NULL;
        Py_XDECREF(closed);
        if (type)
            PyErr_Restore(type, value, trace);
    }
    return good;
}

int
parts_visit(Window *self, visitproc visit, void *arg)
{
    for (Py_ssize_t i = 0; i < self->part_count; i++)
        Py_VISIT(self->parts[i].window);
    return 0;
}

void
parts_clear(Window *self)
{
    struct part *parts = self->parts;
    Py_ssize_t count = self->part_count;
    self->parts = NULL;
    self->part_count = 0;
    for (Py_ssize_t i = 0; i < count; i++)
        Py_DECREF(parts[i].window);
    PyMem_Free(parts);
}
