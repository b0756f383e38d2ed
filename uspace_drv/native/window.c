/* The Window type: three ways to make one, what it says of itself, views, and the end of it. */
#include "native.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

static Window *
new_window(PyObject *type, PyObject *name, enum window_kind kind, uint64_t size)
{
    Window *self = (Window *)PyType_GenericAlloc((PyTypeObject *)type, 0);
    if (self) {
        self->kind = kind;
        self->name = Py_NewRef(name);
        self->size = self->limit = size;
        self->writable = true;
    }
    return self;
}

static bool
check_span(struct module_state *state, PyObject *name, long long offset, Py_ssize_t size)
{
    if (size <= 0)
        PyErr_Format(state->register_value_error, "%U: a size of %zd bytes, expected 1 or more",
                     name, size);
    else if (offset < 0 || offset > INT64_MAX - size)
        PyErr_Format(state->register_value_error,
                     "%U: a file offset of %lld, expected 0 or more and an end below 2**63", name,
                     offset);
    else
        return true;
    return false;
}

static bool
check_page(struct module_state *state, PyObject *name, long long offset)
{
    long page_size = sysconf(_SC_PAGESIZE);
    if (offset % page_size == 0)
        return true;
    PyErr_Format(state->register_value_error,
                 "%U: a file offset of %lld is not a multiple of the page size (%ld bytes)", name,
                 offset, page_size);
    return false;
}

/* Takes over the mapping. */
static PyObject *
window_over(PyObject *type, PyObject *name, Mapping *mapping)
{
    Window *self = new_window(type, name, MEMORY_WINDOW, mapping->size);
    if (!self) {
        Py_DECREF(mapping);
        return NULL;
    }
    self->mapping = mapping;
    self->bytes = mapping->bytes;
    self->writable = mapping->writable;
    return (PyObject *)self;
}

static PyObject *
window_map(PyObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"", "", "", "", "writable", NULL};
    struct module_state *state = PyType_GetModuleState((PyTypeObject *)type);
    PyObject *name;
    int fd, writable = 1;
    long long offset;
    Py_ssize_t size;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "UiLn|$p:map", names, &name, &fd, &offset,
                                     &size, &writable))
        return NULL;
    if (!check_span(state, name, offset, size) || !check_page(state, name, offset))
        return NULL;
    Mapping *mapping = mapping_of_file(state, fd, (off_t)offset, (size_t)size, writable);
    if (mapping)
        return window_over(type, name, mapping);
    if (!PyErr_Occurred())
        refuse_map(state, name, "map", errno);
    return NULL;
}

/* A 64-bit access must not be split by where the buffer happens to start. */
static bool
check_buffer(struct module_state *state, PyObject *name, const Mapping *mapping)
{
    if ((uintptr_t)mapping->bytes % 8 == 0)
        return check_span(state, name, 0, (Py_ssize_t)mapping->size);
    PyErr_Format(state->register_value_error, "%U: the buffer is not aligned to 8 bytes", name);
    return false;
}

static PyObject *
window_over_buffer(PyObject *type, PyObject *arguments)
{
    struct module_state *state = PyType_GetModuleState((PyTypeObject *)type);
    PyObject *name, *buffer;
    if (!PyArg_ParseTuple(arguments, "UO:over_buffer", &name, &buffer))
        return NULL;
    Mapping *mapping = mapping_of_buffer(state, buffer);
    if (!mapping)
        return NULL;
    if (check_buffer(state, name, mapping))
        return window_over(type, name, mapping);
    Py_DECREF(mapping);
    return NULL;
}

static PyObject *
window_over_file(PyObject *type, PyObject *arguments)
{
    struct module_state *state = PyType_GetModuleState((PyTypeObject *)type);
    PyObject *name;
    int fd;
    long long offset;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(arguments, "UiLn:over_file", &name, &fd, &offset, &size))
        return NULL;
    if (!check_span(state, name, offset, size))
        return NULL;
    Window *self = new_window(type, name, FILE_WINDOW, (uint64_t)size);
    if (self) {
        self->fd = fd;
        self->file_offset = (off_t)offset;
        self->opener = getpid();
    }
    return (PyObject *)self;
}

static PyObject *
window_over_calls(PyObject *type, PyObject *arguments)
{
    struct module_state *state = PyType_GetModuleState((PyTypeObject *)type);
    PyObject *name, *read, *write, *parts = NULL;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(arguments, "UnOO|O!:over_calls", &name, &size, &read, &write,
                          &PyTuple_Type, &parts))
        return NULL;
    if (!check_span(state, name, 0, size))
        return NULL;
    if (!PyCallable_Check(read) || !PyCallable_Check(write)) {
        PyErr_Format(PyExc_TypeError, "%U: read and write must be callable", name);
        return NULL;
    }
    Window *self = new_window(type, name, CALLS_WINDOW, (uint64_t)size);
    if (self) {
        self->read = Py_NewRef(read);
        self->write = Py_NewRef(write);
        if (parts && !parts_take(self, parts))
            Py_CLEAR(self);
    }
    return (PyObject *)self;
}

/* Views keep what they see: only close() takes the device from them. */
static void
let_go(Window *self)
{
    self->closed = true;
    self->limit = 0;
    Py_CLEAR(self->mapping);
    Py_CLEAR(self->read);
    Py_CLEAR(self->write);
    parts_clear(self);
}

static int
window_clear(PyObject *object)
{
    let_go((Window *)object);
    Py_CLEAR(((Window *)object)->link);
    return 0;
}

static PyObject *
window_close(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Window *self = (Window *)object;
    int failed = self->mapping ? mapping_revoke(self->mapping) : 0;
    int error = errno;
    bool parts_closed = parts_close(self);
    let_go(self); /* and keep the link: it may know why it was closed */
    if (failed && parts_closed)
        refuse_map(state_of(self), self->name, "take the device from views of", error);
    if (failed || !parts_closed)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
window_repr(PyObject *object)
{
    Window *self = (Window *)object;
    const char *end = self->closed ? ", closed" : is_live(self) ? "" : ", gone";
    char size[20];
    snprintf(size, sizeof(size), "0x%" PRIx64, self->size);
    return PyUnicode_FromFormat("<Window %R %s bytes%s>", self->name, size, end);
}

static PyObject *
window_get_name(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(((Window *)self)->name);
}

static PyObject *
window_get_size(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(((Window *)self)->size);
}

static PyObject *
window_get_address(PyObject *self, void *Py_UNUSED(closure))
{
    Window *window = (Window *)self;
    bool is_there = !window->closed && window->bytes && is_live(window);
    return PyLong_FromVoidPtr(is_there ? window->bytes : NULL);
}

static PyObject *
window_get_closed(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((Window *)self)->closed);
}

static PyObject *
window_get_link(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *link = ((Window *)self)->link;
    return Py_NewRef(link ? link : Py_None);
}

static int
window_set_link(PyObject *object, PyObject *link, void *Py_UNUSED(closure))
{
    Window *self = (Window *)object;
    PyObject *before = self->link;
    self->link = link && link != Py_None ? Py_NewRef(link) : NULL;
    Py_XDECREF(before);
    return 0;
}

static int
window_traverse(PyObject *object, visitproc visit, void *arg)
{
    Window *self = (Window *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->link);
    Py_VISIT(self->mapping);
    Py_VISIT(self->read);
    Py_VISIT(self->write);
    return parts_visit(self, visit, arg);
}

static void
window_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    window_clear(object);
    Py_CLEAR(((Window *)object)->name);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

#define READ(bits)                                                                                 \
    {"read" #bits, window_read##bits, METH_O,                                                      \
     "read" #bits "($self, offset, /)\n--\n\nLoad " #bits " bits."}
#define WRITE(bits)                                                                                \
    {"write" #bits, (PyCFunction)(void (*)(void))window_write##bits, METH_FASTCALL,                \
     "write" #bits "($self, offset, value, /)\n--\n\nStore " #bits " bits."}

static PyMethodDef methods[] = {
    {"map", (PyCFunction)(void (*)(void))window_map, METH_VARARGS | METH_KEYWORDS | METH_CLASS,
     "map($type, name, fd, offset, size, /, *, writable=True)\n--\n\n"
     "Map size bytes of the file from offset (a multiple of the page size), shared."},
    {"over_buffer", window_over_buffer, METH_VARARGS | METH_CLASS,
     "over_buffer($type, name, buffer, /)\n--\n\n"
     "Access memory that somebody else mapped; it is kept alive until the window closes."},
    {"over_file", window_over_file, METH_VARARGS | METH_CLASS,
     "over_file($type, name, fd, offset, size, /)\n--\n\n"
     "Access a region that cannot be mapped: one pread or pwrite each. The fd is borrowed."},
    {"over_calls", window_over_calls, METH_VARARGS | METH_CLASS,
     "over_calls($type, name, size, read, write, parts=(), /)\n--\n\n"
     "Access a model: read(offset, width) and write(offset, width, value), width in bytes; or,\n"
     "in parts of (offset, window), memory that was mapped."},
    READ(8), READ(16), READ(32), READ(64), WRITE(8), WRITE(16), WRITE(32), WRITE(64),
    {"memory", (PyCFunction)(void (*)(void))window_memory, METH_VARARGS | METH_KEYWORDS,
     "memory($self, offset=0, size=None)\n--\n\n"
     "View the window, or size bytes from offset on: only where it is memory, not registers."},
    {"close", window_close, METH_NOARGS,
     "close($self, /)\n--\n\n"
     "Give the device's pages back at once. Views that live on see zeros. Twice is fine."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"name", window_get_name, NULL, "Where this is, as errors say it.", NULL},
    {"size", window_get_size, NULL, "Bytes.", NULL},
    {"address", window_get_address, NULL,
     "Where it is mapped in this process, for C; 0 where nothing is mapped, or it is gone.", NULL},
    {"closed", window_get_closed, NULL, "Whether close() was called.", NULL},
    {"link", window_get_link, window_set_link,
     "What says whether the device is still there, where an access would not notice.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot window_slots[] = {
    {Py_tp_doc, "A bounded range of device registers; each access is exactly one load or store."},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_tp_repr, window_repr},
    {Py_tp_traverse, window_traverse},
    {Py_tp_clear, window_clear},
    {Py_tp_dealloc, window_dealloc},
    {0, NULL},
};

PyType_Spec window_spec = {
    .name = "uspace_drv.native._native.Window",
    .basicsize = sizeof(Window),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = window_slots,
};
