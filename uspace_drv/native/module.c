/* The extension module: its functions, its types and the errors that they raise. */
#include "dma.h"
#include "native.h"

#include "uspace_drv.h"

static PyObject *
write_barrier(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    uspace_write_barrier();
    Py_RETURN_NONE;
}

static PyObject *
read_barrier(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    uspace_read_barrier();
    Py_RETURN_NONE;
}

static PyObject *
full_barrier(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    uspace_full_barrier();
    Py_RETURN_NONE;
}

static PyObject *
faults(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    return PyMemoryView_FromMemory((char *)(uintptr_t)&guard_faults, sizeof(guard_faults),
                                   PyBUF_READ);
}

static bool
take_error(PyObject *errors, const char *name, PyObject **slot)
{
    *slot = PyObject_GetAttrString(errors, name);
    return *slot != NULL;
}

static bool
take_errors(struct module_state *state)
{
    PyObject *errors = PyImport_ImportModule("uspace_drv.errors");
    bool good = errors && take_error(errors, "HostError", &state->host_error)
                && take_error(errors, "UnsupportedError", &state->unsupported_error)
                && take_error(errors, "RegisterValueError", &state->register_value_error)
                && take_error(errors, "ClosedError", &state->closed_error)
                && take_error(errors, "BusyError", &state->busy_error)
                && take_error(errors, "PeerError", &state->peer_error)
                && take_error(errors, "DeviceGone", &state->device_gone);
    Py_XDECREF(errors);
    return good;
}

static bool
make_types(PyObject *module, struct module_state *state)
{
    state->window_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &window_spec, NULL);
    state->mapping_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &mapping_spec, NULL);
    state->channel_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &channel_spec, NULL);
    state->message_type = PyStructSequence_NewType(&message_description);
    state->iova_table_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &iova_table_spec, NULL);
    state->dma_table_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &dma_table_spec, NULL);
    state->dma_mapping_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &dma_mapping_spec, NULL);
    state->turn_lock_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &turn_lock_spec, NULL);
    return state->window_type && state->mapping_type && state->channel_type && state->message_type
           && state->iova_table_type && state->dma_table_type && state->dma_mapping_type
           && state->turn_lock_type
           && PyModule_AddType(module, state->window_type) == 0
           && PyModule_AddType(module, state->channel_type) == 0
           && PyModule_AddType(module, state->message_type) == 0
           && PyModule_AddType(module, state->iova_table_type) == 0
           && PyModule_AddType(module, state->dma_table_type) == 0
           && PyModule_AddType(module, state->dma_mapping_type) == 0
           && PyModule_AddType(module, state->turn_lock_type) == 0;
}

static int
fill_module(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    return take_errors(state) && make_types(module, state) ? 0 : -1;
}

static int
traverse_module(PyObject *module, visitproc visit, void *arg)
{
    struct module_state *state = PyModule_GetState(module);
    Py_VISIT(state->window_type);
    Py_VISIT(state->mapping_type);
    Py_VISIT(state->channel_type);
    Py_VISIT(state->message_type);
    Py_VISIT(state->iova_table_type);
    Py_VISIT(state->dma_table_type);
    Py_VISIT(state->dma_mapping_type);
    Py_VISIT(state->turn_lock_type);
    Py_VISIT(state->host_error);
    Py_VISIT(state->unsupported_error);
    Py_VISIT(state->register_value_error);
    Py_VISIT(state->closed_error);
    Py_VISIT(state->busy_error);
    Py_VISIT(state->peer_error);
    Py_VISIT(state->device_gone);
    return 0;
}

static int
clear_module(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    Py_CLEAR(state->window_type);
    Py_CLEAR(state->mapping_type);
    Py_CLEAR(state->channel_type);
    Py_CLEAR(state->message_type);
    Py_CLEAR(state->iova_table_type);
    Py_CLEAR(state->dma_table_type);
    Py_CLEAR(state->dma_mapping_type);
    Py_CLEAR(state->turn_lock_type);
    Py_CLEAR(state->host_error);
    Py_CLEAR(state->unsupported_error);
    Py_CLEAR(state->register_value_error);
    Py_CLEAR(state->closed_error);
    Py_CLEAR(state->busy_error);
    Py_CLEAR(state->peer_error);
    Py_CLEAR(state->device_gone);
    return 0;
}

static PyMethodDef functions[] = {
    {"wait_readable", (PyCFunction)(void (*)(void))wait_readable, METH_FASTCALL,
     "wait_readable($module, fd, wake_fd, timeout, spin, /)\n--\n\n"
     "Wait until fd or wake_fd is readable: poll for spin seconds, then sleep.\n\n"
     "False when timeout seconds passed first. The GIL is released; signals are handled."},
    {"write_barrier", write_barrier, METH_NOARGS,
     "write_barrier($module, /)\n--\n\n"
     "Order every store before this call ahead of every store after it, write-combined too."},
    {"read_barrier", read_barrier, METH_NOARGS,
     "read_barrier($module, /)\n--\n\n"
     "Order every load before this call ahead of every load after it."},
    {"full_barrier", full_barrier, METH_NOARGS,
     "full_barrier($module, /)\n--\n\n"
     "Order every load and store before this call ahead of every load and store after it."},
    {"faults", faults, METH_NOARGS,
     "faults($module, /)\n--\n\n"
     "32 bits that count the pages of guarded memory that went away in this process."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, fill_module},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_doc = "Exact bus access, waiting and barriers; see uspace_drv.native.",
    .m_size = sizeof(struct module_state),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = traverse_module,
    .m_clear = clear_module,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
