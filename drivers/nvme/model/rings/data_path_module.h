/* What the files of the extension share: its state, its type, and how it refuses. */
#ifndef USPACE_NVME_DATA_PATH_MODULE_H
#define USPACE_NVME_DATA_PATH_MODULE_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 /* one build for Python 3.11 and later */
#include <Python.h>

#include "data_path.h"

struct module_state {
    PyTypeObject *type;
    PyObject *busy_error, *register_value_error;
};

typedef struct {
    PyObject_HEAD
    struct data_path *path;
    Py_buffer doorbells, faults;
    bool running;
} DataPath;

/* data_path_calls.c: what is done between two runs. */
extern PyMethodDef path_calls[];

/* data_path_module.c */
PyObject *path_call_interrupt(PyObject *object, PyObject *ignored);
PyObject *path_call_resume(PyObject *object, PyObject *ignored);
PyObject *path_call_run(PyObject *object, PyObject *arguments);
/* Set an exception and return NULL. */
PyObject *path_refuse(DataPath *self, bool is_busy, const char *why);
/* The queues, which may be changed only between two runs; NULL with an exception set. */
struct data_path *path_resting(DataPath *self);

#endif
