/* Which IOVAs are taken: a sorted array, because a device has few mappings and often the next one
 * follows the last. */
#include "dma.h"

#include <string.h>

/* What an IOMMU maps in one entry: a huge page, where its IOVA is a multiple of its size too. The
 * sizes are those of x86-64, and of Arm with 4 KiB pages. The larger first. */
static const uint64_t huge_pages[] = {1ull << 30, 2ull << 20};

enum { HUGE_PAGE_SIZES = sizeof(huge_pages) / sizeof(huge_pages[0]) };

/* The first of the taken spans that ends at `address` or later. */
static Py_ssize_t
first_from(const IovaTable *self, uint64_t address)
{
    Py_ssize_t low = 0, high = self->taken_count;
    while (low < high) {
        Py_ssize_t middle = low + (high - low) / 2;
        if (self->taken[middle].last < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* A place that is wanted: `size` bytes, as far into a multiple of `unit` as `address` is. */
struct wish {
    uint64_t size, address, unit;
};

/* Move `start` up to the first gap that ends at `last` or before; return the place in the array
 * where it belongs, or -1. */
static Py_ssize_t
first_gap(const IovaTable *self, uint64_t *start, uint64_t last, const struct wish *wish)
{
    uint64_t at = *start;
    Py_ssize_t index = first_from(self, at);
    for (;;) {
        uint64_t step = (wish->address - at) & (wish->unit - 1);
        if (at > last || last - at < step || last - at - step < wish->size - 1)
            return -1;
        at += step;
        while (index < self->taken_count && self->taken[index].last < at)
            index++;
        if (index == self->taken_count || self->taken[index].first > at + (wish->size - 1)) {
            *start = at;
            return index;
        }
        if (self->taken[index].last == UINT64_MAX)
            return -1;
        at = self->taken[index].last + 1;
    }
}

static bool
insert(IovaTable *self, Py_ssize_t index, struct span span)
{
    if (self->taken_count == self->room) {
        Py_ssize_t room = self->room ? 2 * self->room : 16;
        struct span *larger = PyMem_Realloc(self->taken, (size_t)room * sizeof(*larger));
        if (!larger) {
            PyErr_NoMemory();
            return false;
        }
        self->taken = larger;
        self->room = room;
    }
    struct span *place = &self->taken[index];
    memmove(place + 1, place, (size_t)(self->taken_count - index) * sizeof(*place));
    *place = span;
    self->taken_count++;
    return true;
}

static bool
take(IovaTable *self, const struct wish *wish, uint64_t *iova)
{
    for (int round = 0; round < 2; round++) {
        uint64_t low = round == 0 ? self->next : 0;
        for (Py_ssize_t i = 0; i < self->usable_count; i++) {
            const struct span *usable = &self->usable[i];
            uint64_t start = usable->first > low ? usable->first : low;
            Py_ssize_t index = first_gap(self, &start, usable->last, wish);
            if (index < 0)
                continue;
            self->next = start + wish->size; /* 0 after the last page: begin again */
            *iova = start;
            return insert(self, index, (struct span){start, start + (wish->size - 1)});
        }
    }
    return false;
}

/* Whether a whole huge page may lie in the memory: only then is there something to gain. */
static bool
holds_one(uint64_t address, uint64_t size, uint64_t huge)
{
    uint64_t before = -address & (huge - 1);
    return size >= huge && size - huge >= before;
}

bool
iova_take(IovaTable *self, uint64_t size, uint64_t address, uint64_t *iova)
{
    struct wish wish = {size, address, 1};
    for (int i = 0; i < HUGE_PAGE_SIZES; i++) {
        wish.unit = huge_pages[i];
        if (holds_one(address, size, wish.unit) && take(self, &wish, iova))
            return true;
        if (PyErr_Occurred())
            return false;
    }
    wish.unit = 1;
    return take(self, &wish, iova);
}

bool
iova_give_back(IovaTable *self, uint64_t iova, uint64_t size)
{
    Py_ssize_t index = first_from(self, iova);
    struct span *place = &self->taken[index];
    if (index == self->taken_count || place->first != iova || place->last != iova + (size - 1))
        return false;
    self->taken_count--;
    memmove(place, place + 1, (size_t)(self->taken_count - index) * sizeof(*place));
    return true;
}

static PyObject *
table_take(PyObject *self, PyObject *arguments)
{
    unsigned long long size, address = 0;
    uint64_t iova;
    if (!PyArg_ParseTuple(arguments, "K|K:take", &size, &address))
        return NULL;
    if (size == 0) {
        PyErr_SetString(PyExc_ValueError, "take: a size of 0");
        return NULL;
    }
    if (iova_take((IovaTable *)self, size, address, &iova))
        return PyLong_FromUnsignedLongLong(iova);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
table_give_back(PyObject *self, PyObject *arguments)
{
    unsigned long long iova, size;
    if (!PyArg_ParseTuple(arguments, "KK:give_back", &iova, &size))
        return NULL;
    if (size == 0 || !iova_give_back((IovaTable *)self, iova, size)) {
        PyErr_SetString(PyExc_ValueError, "give_back: that was not taken");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
table_count(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(((IovaTable *)self)->taken_count);
}

static bool
take_usable(IovaTable *self, PyObject *spans)
{
    Py_ssize_t count = PySequence_Size(spans);
    if (count < 0)
        return false;
    self->usable = PyMem_Calloc((size_t)count + 1, sizeof(*self->usable));
    if (!self->usable)
        return PyErr_NoMemory() != NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        unsigned long long first, last;
        PyObject *pair = PySequence_GetItem(spans, i);
        bool good = pair && PyArg_ParseTuple(pair, "KK", &first, &last);
        Py_XDECREF(pair);
        if (!good)
            return false;
        self->usable[i] = (struct span){first, last};
        self->usable_count = i + 1;
    }
    return true;
}

static int
table_init(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"", NULL};
    PyObject *spans;
    IovaTable *self = (IovaTable *)object;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O", names, &spans))
        return -1;
    if (self->usable) {
        PyErr_SetString(PyExc_TypeError, "IovaTable: it has its ranges already");
        return -1;
    }
    return take_usable(self, spans) ? 0 : -1;
}

static void
table_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyMem_Free(((IovaTable *)object)->usable);
    PyMem_Free(((IovaTable *)object)->taken);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"take", table_take, METH_VARARGS,
     "take($self, size, address=0, /)\n--\n\n"
     "The start of a free place for the memory at an address, or None."},
    {"give_back", table_give_back, METH_VARARGS,
     "give_back($self, iova, size, /)\n--\n\nFree what take() returned."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"count", table_count, NULL, "How many places are taken.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Which IOVAs are taken."},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_tp_init, table_init},
    {Py_tp_dealloc, table_dealloc},
    {0, NULL},
};

PyType_Spec iova_table_spec = {
    .name = "uspace_drv.native._native.IovaTable",
    .basicsize = sizeof(IovaTable),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = slots,
};
