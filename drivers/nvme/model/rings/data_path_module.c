/* The Python face of the data path: its type, and the call that runs it without the GIL. */
#include "data_path_module.h"

#include <stdlib.h>
#include <string.h>

PyObject *
path_refuse(DataPath *self, bool is_busy, const char *why)
{
    struct module_state *state = PyType_GetModuleState(Py_TYPE((PyObject *)self));
    PyErr_SetString(is_busy ? state->busy_error : state->register_value_error, why);
    return NULL;
}

/* What is open may be changed only between two runs. */
struct data_path *
path_resting(DataPath *self)
{
    if (self->running)
        path_refuse(self, true, "data path: it is running; interrupt it and hold its turn first");
    else if (!self->path)
        path_refuse(self, false, "data path: it was not made");
    else
        return self->path;
    return NULL;
}

static bool
check_setup(DataPath *self, unsigned stride, unsigned page_size, Py_ssize_t size)
{
    if (stride < 4 || stride > LARGEST_STRIDE || stride & (stride - 1))
        path_refuse(self, false, "data path: a doorbell stride of 4 to 16 bytes was expected");
    else if (page_size < QUEUE_PAGE || page_size & (page_size - 1))
        path_refuse(self, false, "data path: a page size of 4096 bytes or more was expected");
    else if (self->faults.len < 4 || (uintptr_t)self->faults.buf % 4)
        path_refuse(self, false, "data path: a count of faults of 32 bits was expected");
    else if (size < DOORBELL_PAGE || (uintptr_t)self->doorbells.buf % DOORBELL_PAGE)
        path_refuse(self, false, "data path: a whole page of doorbells was expected");
    else
        return true;
    return false;
}

static void
release(DataPath *self)
{
    PyBuffer_Release(&self->doorbells);
    PyBuffer_Release(&self->faults);
}

static int
path_init(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"doorbells", "stride", "page_size", "most_bytes", "has_sgl", "faults",
                            NULL};
    DataPath *self = (DataPath *)object;
    PyObject *doorbells, *faults;
    unsigned stride, page_size;
    unsigned long long most_bytes;
    int has_sgl;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OIIKpO", names, &doorbells, &stride,
                                     &page_size, &most_bytes, &has_sgl, &faults))
        return -1;
    if (self->path) {
        path_refuse(self, true, "data path: it was made already");
        return -1;
    }
    release(self); /* of an attempt that failed */
    if (PyObject_GetBuffer(doorbells, &self->doorbells, PyBUF_WRITABLE) < 0
        || PyObject_GetBuffer(faults, &self->faults, PyBUF_SIMPLE) < 0)
        return -1;
    if (!check_setup(self, stride, page_size, self->doorbells.len))
        return -1;
    self->path = aligned_alloc(64, (sizeof(struct data_path) + 63) / 64 * 64);
    if (!self->path) {
        PyErr_NoMemory();
        return -1;
    }
    memset(self->path, 0, sizeof(struct data_path));
    self->path->doorbells = self->doorbells.buf;
    self->path->stride = stride;
    self->path->page_size = page_size;
    self->path->most_bytes = most_bytes;
    self->path->has_sgl = has_sgl;
    self->path->faults = self->faults.buf;
    self->path->faults_known = uspace_read32(self->path->faults) - 1; /* the table may be older */
    return 0;
}

static void
path_dealloc(PyObject *object)
{
    DataPath *self = (DataPath *)object;
    PyTypeObject *type = Py_TYPE(object);
    free(self->path);
    release(self);
    PyObject_Free(object);
    Py_DECREF(type);
}

PyObject *
path_call_interrupt(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    if (((DataPath *)object)->path)
        path_interrupt(((DataPath *)object)->path);
    Py_RETURN_NONE;
}

PyObject *
path_call_resume(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    if (((DataPath *)object)->path)
        atomic_store(&((DataPath *)object)->path->interrupted, 0);
    Py_RETURN_NONE;
}

PyObject *
path_call_run(PyObject *object, PyObject *arguments)
{
    DataPath *self = (DataPath *)object;
    struct data_path *path = path_resting(self);
    PyObject *table;
    unsigned mode, events;
    Py_buffer buffer;
    if (!path || !PyArg_ParseTuple(arguments, "OI", &table, &mode)
        || PyObject_GetBuffer(table, &buffer, PyBUF_SIMPLE) < 0)
        return NULL;
    self->running = true;
    Py_BEGIN_ALLOW_THREADS
    size_t count = (size_t)buffer.len / sizeof(struct uspace_mapping);
    events = path_run(path, buffer.buf, count, mode);
    Py_END_ALLOW_THREADS
    self->running = false;
    PyBuffer_Release(&buffer);
    return PyLong_FromUnsignedLong(events);
}

static PyObject *
vectors_in(PyObject *object, bool is_raised)
{
    struct data_path *path = path_resting((DataPath *)object);
    PyObject *list = path ? PyList_New(0) : NULL;
    for (unsigned i = 0; list && i < VECTORS; i++) {
        const uint64_t *words = is_raised ? path->raised : path->lowered;
        PyObject *number = words[i / 64] >> i % 64 & 1 ? PyLong_FromUnsignedLong(i) : NULL;
        if (number && PyList_Append(list, number) < 0)
            Py_CLEAR(list);
        Py_XDECREF(number);
    }
    return list;
}

static PyObject *
get_raised(PyObject *object, void *Py_UNUSED(closure))
{
    return vectors_in(object, true);
}

static PyObject *
get_lowered(PyObject *object, void *Py_UNUSED(closure))
{
    return vectors_in(object, false);
}

static PyObject *
get_command(PyObject *object, void *Py_UNUSED(closure))
{
    struct data_path *path = path_resting((DataPath *)object);
    if (!path)
        return NULL;
    return Py_BuildValue("iy#", (int)path->from, (const char *)path->command,
                         (Py_ssize_t)COMMAND_SIZE);
}

static PyObject *
get_trouble(PyObject *object, void *Py_UNUSED(closure))
{
    struct data_path *path = path_resting((DataPath *)object);
    if (!path)
        return NULL;
    return Py_BuildValue("iNK", (int)path->number, PyBool_FromLong(path->is_completion),
                         (unsigned long long)path->value);
}

static PyGetSetDef properties[] = {
    {"raised", get_raised, NULL, NULL, NULL},
    {"lowered", get_lowered, NULL, NULL, NULL},
    {"command", get_command, NULL, NULL, NULL},
    {"trouble", get_trouble, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot type_slots[] = {
    {Py_tp_doc, "Queues of a controller, served in C; see data_path.pyi."},
    {Py_tp_init, path_init},
    {Py_tp_dealloc, path_dealloc},
    {Py_tp_methods, path_calls},
    {Py_tp_getset, properties},
    {0, NULL},
};

static PyType_Spec type_spec = {
    .name = "uspace_drivers.nvme.model.rings.data_path.DataPath",
    .basicsize = sizeof(DataPath),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = type_slots,
};

static int
fill_module(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    PyObject *errors = PyImport_ImportModule("uspace_drv");
    if (errors) {
        state->busy_error = PyObject_GetAttrString(errors, "BusyError");
        state->register_value_error = PyObject_GetAttrString(errors, "RegisterValueError");
        Py_DECREF(errors);
    }
    state->type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &type_spec, NULL);
    bool good = state->busy_error && state->register_value_error && state->type
                && PyModule_AddType(module, state->type) == 0;
    return good ? 0 : -1;
}

static int
traverse_module(PyObject *module, visitproc visit, void *arg)
{
    struct module_state *state = PyModule_GetState(module);
    Py_VISIT(state->type);
    Py_VISIT(state->busy_error);
    Py_VISIT(state->register_value_error);
    return 0;
}

static int
clear_module(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    Py_CLEAR(state->type);
    Py_CLEAR(state->busy_error);
    Py_CLEAR(state->register_value_error);
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, fill_module},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "data_path",
    .m_doc = "The model's data path in C; see data_path.pyi.",
    .m_size = sizeof(struct module_state),
    .m_slots = slots,
    .m_traverse = traverse_module,
    .m_clear = clear_module,
};

PyMODINIT_FUNC
PyInit_data_path(void)
{
    return PyModuleDef_Init(&definition);
}
