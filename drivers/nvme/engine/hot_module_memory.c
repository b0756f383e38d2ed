/* The Memory type: which arrays the queues of a controller may name to it. */
#include "hot_module.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hot_ranges *
ranges_hold(Memory *memory)
{
    memory->ranges->users++;
    return memory->ranges;
}

void
ranges_let_go(struct hot_ranges *ranges)
{
    if (--ranges->users == 0)
        free(ranges);
}

/* With room for one more. */
static struct hot_ranges *
copy_of(const struct hot_ranges *old)
{
    size_t count = old ? old->count : 0;
    struct hot_ranges *new = calloc(1, sizeof(*new) + (count + 1) * sizeof(new->items[0]));
    if (!new) {
        PyErr_NoMemory();
        return NULL;
    }
    new->users = 1;
    new->count = count;
    if (count)
        memcpy(new->items, old->items, count * sizeof(new->items[0]));
    return new;
}

static bool
overlap(uint64_t first, uint64_t second, uint64_t first_size, uint64_t second_size)
{
    return first < second ? second - first < first_size : first - second < second_size;
}

static bool
check_range(Memory *self, const struct hot_range *range)
{
    struct module_state *state = state_of((PyObject *)self);
    char text[120];
    if (range->size == 0 || range->iova > UINT64_MAX - range->size) {
        snprintf(text, sizeof(text), "%llu bytes, expected 1 or more that end below 2**64",
                 (unsigned long long)range->size);
        PyErr_Format(state->register_value_error, "Memory.add: %s", text);
        return false;
    }
    for (size_t i = 0; i < self->ranges->count; i++) {
        const struct hot_range *other = &self->ranges->items[i];
        if (!overlap(range->iova, other->iova, range->size, other->size)
            && !overlap(range->address, other->address, range->size, other->size))
            continue;
        snprintf(text, sizeof(text), "%llu bytes at IOVA 0x%llx", (unsigned long long)other->size,
                 (unsigned long long)other->iova);
        PyErr_Format(state->register_value_error, "Memory.add: the array overlaps that of %s",
                     text);
        return false;
    }
    return true;
}

/* Takes over the buffer where that goes well. */
static bool
add_range(Memory *self, struct hot_range range)
{
    struct hot_ranges *new = check_range(self, &range) ? copy_of(self->ranges) : NULL;
    if (!new)
        return false;
    size_t place = new->count++;
    for (; place > 0 && new->items[place - 1].iova > range.iova; place--)
        new->items[place] = new->items[place - 1];
    new->items[place] = range;
    ranges_let_go(self->ranges);
    self->ranges = new;
    return true;
}

static PyObject *
memory_add(PyObject *object, PyObject *arguments)
{
    PyObject *array, *number;
    uint64_t iova;
    if (!PyArg_ParseTuple(arguments, "OO:add", &array, &number)
        || !take_count(object, number, "Memory.add: iova", UINT64_MAX, &iova))
        return NULL;
    Py_buffer *buffer = PyMem_Malloc(sizeof(*buffer));
    if (!buffer)
        return PyErr_NoMemory();
    if (PyObject_GetBuffer(array, buffer, PyBUF_SIMPLE) < 0) {
        PyMem_Free(buffer);
        return NULL;
    }
    struct hot_range range = {.iova = iova, .size = (uint64_t)buffer->len,
                              .address = (uintptr_t)buffer->buf, .owner = buffer};
    if (add_range((Memory *)object, range))
        Py_RETURN_NONE;
    PyBuffer_Release(buffer);
    PyMem_Free(buffer);
    return NULL;
}

static void
release_owner(const struct hot_range *range)
{
    PyBuffer_Release(range->owner);
    PyMem_Free(range->owner);
}

static PyObject *
memory_remove(PyObject *object, PyObject *number)
{
    Memory *self = (Memory *)object;
    uint64_t iova;
    if (!take_count(object, number, "Memory.remove: iova", UINT64_MAX, &iova))
        return NULL;
    size_t place = 0, count = self->ranges->count;
    while (place < count && self->ranges->items[place].iova != iova)
        place++;
    if (place == count) {
        PyErr_Format(state_of(object)->register_value_error,
                     "Memory.remove: no array was added at IOVA %R", number);
        return NULL;
    }
    struct hot_ranges *new = copy_of(self->ranges);
    if (!new)
        return NULL;
    struct hot_range range = new->items[place];
    memmove(&new->items[place], &new->items[place + 1],
            (--new->count - place) * sizeof(new->items[0]));
    ranges_let_go(self->ranges);
    self->ranges = new;
    release_owner(&range); /* last: it may run Python */
    Py_RETURN_NONE;
}

static PyObject *
memory_find(PyObject *object, PyObject *array)
{
    Py_buffer buffer;
    uint64_t iova;
    if (PyObject_GetBuffer(array, &buffer, PyBUF_SIMPLE) < 0)
        return NULL;
    bool found = hot_find(((Memory *)object)->ranges, (uintptr_t)buffer.buf, (uint64_t)buffer.len,
                          &iova);
    PyBuffer_Release(&buffer);
    return found ? PyLong_FromUnsignedLongLong(iova) : PyLong_FromLong(-1);
}

static PyObject *
memory_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    if (PyTuple_Size(arguments) > 0 || (keywords && PyDict_Size(keywords) > 0)) {
        PyErr_SetString(PyExc_TypeError, "Memory() takes no arguments");
        return NULL;
    }
    Memory *self = (Memory *)PyType_GenericAlloc(type, 0);
    if (self && !(self->ranges = copy_of(NULL)))
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void
memory_dealloc(PyObject *object)
{
    Memory *self = (Memory *)object;
    PyTypeObject *type = Py_TYPE(object);
    for (size_t i = 0; self->ranges && i < self->ranges->count; i++)
        release_owner(&self->ranges->items[i]);
    if (self->ranges)
        ranges_let_go(self->ranges); /* a queue in a call holds the memory itself */
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"add", memory_add, METH_VARARGS,
     "add($self, array, iova, /)\n--\n\nAllow the whole of a contiguous array."},
    {"remove", memory_remove, METH_O,
     "remove($self, iova, /)\n--\n\nTake back the array that was added at this IOVA."},
    {"find", memory_find, METH_O,
     "find($self, array, /)\n--\n\nIts IOVA, or -1 where it lies in none of them."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Memory()\n--\n\nDMA memory that the queues of one controller may name to it."},
    {Py_tp_methods, methods},
    {Py_tp_new, memory_new},
    {Py_tp_dealloc, memory_dealloc},
    {0, NULL},
};

PyType_Spec memory_spec = {
    .name = "uspace_drivers.nvme.engine.hot.Memory",
    .basicsize = sizeof(Memory),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};
