/* All that a device has mapped: what Python derives its Dma from.
 *
 * A mapping costs one system call and little else, so what is ordinary stays here; whatever is odd
 * goes to a method of the Python side, which says what is wrong with it. Where the kernel refuses a
 * call, the space's Python method repeats it and finds the words.
 */
#include "dma.h"

/* False, because the method raises. */
static bool
refuse(DmaTable *self, const char *method)
{
    turn_lock(&self->turn);
    Py_XDECREF(PyObject_CallMethod((PyObject *)self, method, NULL));
    return false;
}

static void
join(DmaTable *self, DmaMapping *mapping)
{
    mapping->before = self->newest;
    mapping->after = NULL;
    if (self->newest)
        self->newest->after = mapping;
    else
        self->oldest = mapping;
    self->newest = mapping;
    mapping->owner = (DmaTable *)Py_NewRef((PyObject *)self);
    mapping->mapped = true;
    Py_INCREF((PyObject *)mapping);
    self->count++;
}

/* The caller holds a reference of its own. */
static void
leave(DmaTable *self, DmaMapping *mapping)
{
    if (mapping->before)
        mapping->before->after = mapping->after;
    else
        self->oldest = mapping->after;
    if (mapping->after)
        mapping->after->before = mapping->before;
    else
        self->newest = mapping->before;
    mapping->mapped = false;
    self->count--;
    Py_DECREF(mapping);
}

static bool
take_iova(DmaTable *self, struct dma_piece *piece)
{
    uint64_t address = piece->address - piece->address % self->page; /* as IOVAs are */
    if (!self->iovas || iova_take((IovaTable *)self->iovas, piece->size, address, &piece->iova))
        return true;
    turn_lock(&self->turn);
    if (!PyErr_Occurred())
        Py_XDECREF(PyObject_CallMethod(self->iovas, "refuse", "K", piece->size));
    return false;
}

/* By a method of the space, or by `through` in its place. */
static bool
show_by_python(DmaTable *self, DmaMapping *mapping, PyObject *through)
{
    struct dma_piece *piece = &mapping->piece;
    turn_lock(&self->turn);
    PyObject *map = through ? Py_NewRef(through) : PyObject_GetAttrString(self->space, "map");
    PyObject *iova =
        self->iovas ? PyLong_FromUnsignedLongLong(piece->iova) : Py_NewRef(Py_None);
    PyObject *found = map && iova
                          ? PyObject_CallFunction(map, "KKOO", piece->address, piece->size, iova,
                                                  mapping->direction)
                          : NULL;
    Py_XDECREF(map);
    Py_XDECREF(iova);
    if (!found)
        return false;
    piece->iova = PyLong_AsUnsignedLongLong(found);
    Py_DECREF(found);
    return !PyErr_Occurred();
}

static bool
begin(DmaTable *self, DmaMapping *mapping, PyObject *through)
{
    if (self->closed)
        return refuse(self, "_refuse_closed");
    if (self->limit >= 0 && self->count >= self->limit)
        return refuse(self, "_refuse_more");
    if (!take_iova(self, &mapping->piece))
        return false;
    uint64_t place = mapping->piece.iova;
    if (mapping->piece.size >= LONG_CALL)
        turn_lock(&self->turn);
    bool by_kernel = self->calls.kernel != NO_KERNEL && !through
                     && dma_kernel_map(&self->calls, &mapping->piece);
    if (!by_kernel && !show_by_python(self, mapping, through)) {
        if (self->iovas)
            iova_give_back((IovaTable *)self->iovas, place, mapping->piece.size);
        return false;
    }
    join(self, mapping);
    return true;
}

static bool
end(DmaTable *self, DmaMapping *mapping)
{
    struct dma_piece *piece = &mapping->piece;
    leave(self, mapping);
    if (piece->size >= LONG_CALL)
        turn_lock(&self->turn);
    if (self->calls.kernel == NO_KERNEL || !dma_kernel_unmap(&self->calls, piece)) {
        turn_lock(&self->turn);
        PyObject *done =
            PyObject_CallMethod(self->space, "unmap", "KK", piece->iova, piece->size);
        if (!done)
            return false; /* its IOVA is given to nobody: the device may still reach it */
        Py_DECREF(done);
    }
    if (self->iovas)
        iova_give_back((IovaTable *)self->iovas, piece->iova, piece->size);
    return true;
}

bool
dma_table_unmap(DmaTable *self, DmaMapping *mapping)
{
    turn_take(&self->turn);
    bool good = !mapping->mapped || end(self, mapping); /* or another thread was first */
    turn_give_back(&self->turn);
    return good;
}

/* `mapping` is new and holds what is wanted; it goes where that fails. */
static PyObject *
map_it(DmaTable *self, DmaMapping *mapping, PyObject *through)
{
    struct dma_piece *piece = &mapping->piece;
    piece->size = (piece->size + self->page - 1) / self->page * self->page;
    turn_take(&self->turn);
    bool good = begin(self, mapping, through);
    turn_give_back(&self->turn);
    if (good && piece->iova + (piece->size - 1) > self->reach) {
        Py_XDECREF(PyObject_CallMethod((PyObject *)self, "_let_go", "O", mapping));
        good = false;
    }
    if (good)
        return (PyObject *)mapping;
    mapping->closed = true;
    Py_DECREF(mapping);
    return NULL;
}

static unsigned
rights_of(const DmaTable *self, PyObject *direction)
{
    for (unsigned rights = DEVICE_READS; rights <= (DEVICE_READS | DEVICE_WRITES); rights++) {
        if (self->directions[rights - 1] == direction)
            return rights;
    }
    return 0;
}

static DmaMapping *
new_mapping(DmaTable *self, PyObject *array, PyObject *direction)
{
    DmaMapping *mapping = (DmaMapping *)self->alloc(self->mapping_type, 0);
    if (mapping) {
        mapping->release = self->release;
        mapping->array = array == Py_None ? NULL : Py_NewRef(array);
        mapping->direction = Py_NewRef(direction);
        mapping->page_size = self->page;
        mapping->piece.rights = rights_of(self, direction);
    }
    return mapping;
}

static bool
take_direction(DmaTable *self, PyObject *const *arguments, Py_ssize_t count, PyObject *names,
               PyObject **direction)
{
    Py_ssize_t named = names ? PyTuple_Size(names) : 0;
    *direction = count + named == 2 ? arguments[1] : self->directions[2];
    if (count < 1 || count + named > 2) {
        PyErr_SetString(PyExc_TypeError, "map() takes an array and a direction");
        return false;
    }
    if (named && PyUnicode_CompareWithASCIIString(PyTuple_GetItem(names, 0), "direction") != 0) {
        PyErr_Format(PyExc_TypeError, "map() has no argument %R", PyTuple_GetItem(names, 0));
        return false;
    }
    return true;
}

static PyObject *
table_map(PyObject *object, PyObject *const *arguments, Py_ssize_t count, PyObject *names)
{
    DmaTable *self = (DmaTable *)object;
    PyObject *direction;
    if (!take_direction(self, arguments, count, names, &direction))
        return NULL;
    DmaMapping *mapping = new_mapping(self, arguments[0], direction);
    if (!mapping)
        return NULL;
    if (!dma_is_ordinary(self, arguments[0], &mapping->piece)
        && !dma_check(self, arguments[0], direction, &mapping->piece)) {
        mapping->closed = true;
        Py_DECREF(mapping);
        return NULL;
    }
    mapping->size = mapping->piece.size;
    return map_it(self, mapping, NULL);
}

static PyObject *
table_map_checked(PyObject *object, PyObject *arguments)
{
    DmaTable *self = (DmaTable *)object;
    PyObject *array, *direction, *through;
    unsigned long long address, size, shown, page_size;
    if (!PyArg_ParseTuple(arguments, "OOKKKKO:_map_checked", &array, &direction, &address, &size,
                          &shown, &page_size, &through))
        return NULL;
    DmaMapping *mapping = new_mapping(self, array, direction);
    if (!mapping)
        return NULL;
    mapping->piece.address = address;
    mapping->piece.size = shown;
    mapping->size = size;
    mapping->page_size = page_size;
    return map_it(self, mapping, through == Py_None ? NULL : through);
}

/* Nobody reaches them any more; an exception that is set stays. */
static void
forget_all(DmaTable *self)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    while (self->oldest) {
        DmaMapping *mapping = self->oldest;
        DmaTable *owner = mapping->owner;
        mapping->closed = true;
        mapping->owner = NULL;
        leave(self, mapping);
        Py_XDECREF((PyObject *)owner); /* the caller's own keeps us alive */
    }
    PyErr_Restore(type, value, traceback);
}

static PyObject *
table_close(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    DmaTable *self = (DmaTable *)object;
    turn_take(&self->turn);
    turn_lock(&self->turn);
    self->closed = true;
    PyObject *done = self->oldest ? PyObject_CallMethod(self->space, "unmap_all", NULL)
                                  : Py_NewRef(Py_None);
    forget_all(self);
    turn_give_back(&self->turn);
    return done;
}

static PyObject *
table_get_closed(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((DmaTable *)self)->closed);
}

static PyObject *
table_get_buffers(PyObject *object, void *Py_UNUSED(closure))
{
    DmaTable *self = (DmaTable *)object;
    PyObject *list = PyList_New(0);
    for (DmaMapping *mapping = self->oldest; list && mapping; mapping = mapping->after) {
        if (PyList_Append(list, (PyObject *)mapping) < 0)
            Py_CLEAR(list);
    }
    PyObject *buffers = list ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return buffers;
}

static bool
take_parts(DmaTable *self, PyObject *space, PyObject *iovas, PyObject *type)
{
    struct module_state *state = dma_state(Py_TYPE((PyObject *)self));
    bool right = state && PyType_Check(type)
                 && PyType_IsSubtype((PyTypeObject *)type, state->dma_mapping_type)
                 && (iovas == Py_None
                     || PyType_IsSubtype(Py_TYPE(iovas), state->iova_table_type));
    if (!right) {
        PyErr_SetString(PyExc_TypeError, "DmaTable: made of the wrong parts");
        return false;
    }
    self->space = Py_NewRef(space);
    self->iovas = iovas == Py_None ? NULL : Py_NewRef(iovas);
    self->mapping_type = (PyTypeObject *)Py_NewRef(type);
    self->alloc = (allocfunc)PyType_GetSlot(self->mapping_type, Py_tp_alloc);
    self->release = (freefunc)PyType_GetSlot(self->mapping_type, Py_tp_free);
    for (int i = 0; i < 3; i++)
        Py_INCREF(self->directions[i]);
    self->turn.lock = PyThread_allocate_lock();
    if (!self->turn.lock)
        PyErr_NoMemory();
    return self->turn.lock != NULL;
}

static int
table_init(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"", "", "", "", "", "", "", "", NULL};
    DmaTable *self = (DmaTable *)object;
    PyObject *space, *iovas, *type, *to, *from, *both;
    unsigned long long page, reach;
    int kernel;
    if (self->space) {
        PyErr_SetString(PyExc_TypeError, "DmaTable: it has its parts already");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OOO(OOO)KKn(iiI)", names, &space, &iovas,
                                     &type, &to, &from, &both, &page, &reach, &self->limit,
                                     &kernel, &self->calls.fd, &self->calls.ioas))
        return -1;
    self->calls.kernel = (enum dma_kernel)kernel;
    self->page = page;
    self->reach = reach;
    self->directions[0] = to;
    self->directions[1] = from;
    self->directions[2] = both;
    return take_parts(self, space, iovas, type) ? 0 : -1;
}

static void
table_dealloc(PyObject *object)
{
    DmaTable *self = (DmaTable *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->turn.lock)
        PyThread_free_lock(self->turn.lock);
    for (int i = 0; i < 3 && self->space; i++)
        Py_CLEAR(self->directions[i]);
    Py_CLEAR(self->space);
    Py_CLEAR(self->iovas);
    Py_CLEAR(self->checked);
    Py_CLEAR(self->array_type);
    Py_CLEAR(self->mapping_type);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"map", (PyCFunction)(void (*)(void))table_map, METH_FASTCALL | METH_KEYWORDS,
     "map($self, array, direction=Direction.BOTH)\n--\n\n"
     "Map an existing array, without a copy, until the buffer is closed."},
    {"_map_checked", table_map_checked, METH_VARARGS,
     "_map_checked($self, array, direction, address, size, shown, page_size, through, /)\n--\n\n"
     "Map memory that was found good, by a call of the space's or by through."},
    {"close", table_close, METH_NOARGS, "close($self, /)\n--\n\nUnmap everything. Twice is fine."},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "For type annotations."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"_closed", table_get_closed, NULL, "Whether close() was called.", NULL},
    {"buffers", table_get_buffers, NULL, "What the device reaches now, oldest first.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "All that a device has mapped."},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_tp_init, table_init},
    {Py_tp_dealloc, table_dealloc},
    {0, NULL},
};

PyType_Spec dma_table_spec = {
    .name = "uspace_drv.native._native.DmaTable",
    .basicsize = sizeof(DmaTable),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = slots,
};
