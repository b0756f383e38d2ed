/* The extension module of the engine: its types and the errors that they raise. */
#include "hot_module.h"

static bool
take_errors(struct module_state *state)
{
    PyObject *package = PyImport_ImportModule("uspace_drv");
    if (!package)
        return false;
    state->register_value_error = PyObject_GetAttrString(package, "RegisterValueError");
    state->busy_error = PyObject_GetAttrString(package, "BusyError");
    state->device_error = PyObject_GetAttrString(package, "DeviceError");
    Py_DECREF(package);
    return state->register_value_error && state->busy_error && state->device_error;
}

static bool
make_types(PyObject *module, struct module_state *state)
{
    state->memory_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &memory_spec, NULL);
    state->queue_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &queue_spec, NULL);
    return state->memory_type && state->queue_type
           && PyModule_AddType(module, state->memory_type) == 0
           && PyModule_AddType(module, state->queue_type) == 0;
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
    Py_VISIT(state->memory_type);
    Py_VISIT(state->queue_type);
    Py_VISIT(state->register_value_error);
    Py_VISIT(state->busy_error);
    Py_VISIT(state->device_error);
    return 0;
}

static int
clear_module(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    Py_CLEAR(state->memory_type);
    Py_CLEAR(state->queue_type);
    Py_CLEAR(state->register_value_error);
    Py_CLEAR(state->busy_error);
    Py_CLEAR(state->device_error);
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, fill_module},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "hot",
    .m_doc = "NVMe queue pairs in C; see hot.pyi.",
    .m_size = sizeof(struct module_state),
    .m_slots = slots,
    .m_traverse = traverse_module,
    .m_clear = clear_module,
};

PyMODINIT_FUNC
PyInit_hot(void)
{
    return PyModuleDef_Init(&definition);
}
