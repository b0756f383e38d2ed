/* Calls of the data path that fit between two runs: queues and namespaces come, change and go. */
#include "data_path_module.h"

static bool
check_queue(DataPath *self, unsigned number, unsigned entries)
{
    if (number < QUEUES && entries >= 2 && entries <= 65536)
        return true;
    path_refuse(self, false, "data path: a queue below 128, of 2 to 65536 entries, was expected");
    return false;
}

static PyObject *
open_completion(PyObject *object, PyObject *arguments)
{
    struct data_path *path = path_resting((DataPath *)object);
    unsigned number, entries;
    unsigned long long address;
    int vector;
    if (!path || !PyArg_ParseTuple(arguments, "IKIi", &number, &address, &entries, &vector)
        || !check_queue((DataPath *)object, number, entries))
        return NULL;
    if (vector >= VECTORS || path->completions[number].open || address % COMPLETION_SIZE)
        return path_refuse((DataPath *)object, false,
                      "data path: a queue that is not open, a vector below 128 and an address that "
                      "is a multiple of 16 were expected");
    path_open_completion(path, (uint16_t)number, address, entries,
                         vector < 0 ? NO_VECTOR : (uint16_t)vector);
    Py_RETURN_NONE;
}

static PyObject *
open_submission(PyObject *object, PyObject *arguments)
{
    struct data_path *path = path_resting((DataPath *)object);
    unsigned number, entries, completion;
    unsigned long long address;
    if (!path || !PyArg_ParseTuple(arguments, "IKII", &number, &address, &entries, &completion)
        || !check_queue((DataPath *)object, number, entries))
        return NULL;
    if (completion >= QUEUES || !path->completions[completion].open
        || path->submissions[number].open || address % COMMAND_SIZE)
        return path_refuse((DataPath *)object, false,
                      "data path: a queue that is not open, an open completion queue and an "
                      "address that is a multiple of 64 were expected");
    path_open_submission(path, (uint16_t)number, address, entries, (uint16_t)completion);
    Py_RETURN_NONE;
}

/* The number of a queue that is open, or QUEUES and an exception. */
static unsigned
take_queue(PyObject *object, PyObject *argument, bool is_completion)
{
    struct data_path *path = path_resting((DataPath *)object);
    unsigned long number = path ? PyLong_AsUnsignedLong(argument) : QUEUES;
    if (!path || PyErr_Occurred())
        return QUEUES;
    if (number < QUEUES
        && (is_completion ? path->completions[number].open : path->submissions[number].open))
        return (unsigned)number;
    path_refuse((DataPath *)object, false, "data path: that queue is not open");
    return QUEUES;
}

static PyObject *
has_queue(PyObject *object, PyObject *argument, bool is_completion)
{
    unsigned number = take_queue(object, argument, is_completion);
    struct module_state *state = PyType_GetModuleState(Py_TYPE(object));
    if (number != QUEUES)
        Py_RETURN_TRUE;
    if (!PyErr_ExceptionMatches(state->register_value_error))
        return NULL;
    PyErr_Clear();
    Py_RETURN_FALSE;
}

static PyObject *
has_completion(PyObject *object, PyObject *argument)
{
    return has_queue(object, argument, true);
}

static PyObject *
has_submission(PyObject *object, PyObject *argument)
{
    return has_queue(object, argument, false);
}

static PyObject *
close_completion(PyObject *object, PyObject *argument)
{
    unsigned number = take_queue(object, argument, true);
    if (number == QUEUES)
        return NULL;
    uint16_t vector = path_close_completion(((DataPath *)object)->path, (uint16_t)number);
    return PyLong_FromLong(vector == NO_VECTOR ? -1 : vector);
}

static PyObject *
close_submission(PyObject *object, PyObject *argument)
{
    unsigned number = take_queue(object, argument, false);
    if (number == QUEUES)
        return NULL;
    path_close_submission(((DataPath *)object)->path, (uint16_t)number);
    Py_RETURN_NONE;
}

static PyObject *
take(PyObject *object, PyObject *argument)
{
    unsigned number = take_queue(object, argument, false);
    if (number == QUEUES)
        return NULL;
    path_take(&((DataPath *)object)->path->submissions[number]);
    Py_RETURN_NONE;
}

static PyObject *
head_of(PyObject *object, PyObject *argument)
{
    unsigned number = take_queue(object, argument, false);
    if (number == QUEUES)
        return NULL;
    return PyLong_FromUnsignedLong(((DataPath *)object)->path->submissions[number].head);
}

static PyObject *
completion_of(PyObject *object, PyObject *argument)
{
    unsigned number = take_queue(object, argument, false);
    if (number == QUEUES)
        return NULL;
    return PyLong_FromUnsignedLong(((DataPath *)object)->path->submissions[number].completion);
}

static PyObject *
next_entry(PyObject *object, PyObject *argument)
{
    unsigned number = take_queue(object, argument, true);
    if (number == QUEUES)
        return NULL;
    struct data_path *path = ((DataPath *)object)->path;
    struct completion *queue = &path->completions[number];
    if (path_room(path, (uint16_t)number) == 0)
        Py_RETURN_NONE;
    unsigned long long address = queue->address + (uint64_t)COMPLETION_SIZE * queue->tail;
    return Py_BuildValue("Ki", address, (int)queue->phase);
}

static PyObject *
step(PyObject *object, PyObject *argument)
{
    unsigned number = take_queue(object, argument, true);
    if (number == QUEUES)
        return NULL;
    struct completion *queue = &((DataPath *)object)->path->completions[number];
    path_step(queue);
    queue->raised = true;
    return PyLong_FromLong(queue->vector == NO_VECTOR ? -1 : queue->vector);
}

static PyObject *
let_wait(PyObject *object, PyObject *arguments)
{
    PyObject *number_object;
    int waits;
    if (!PyArg_ParseTuple(arguments, "Op", &number_object, &waits))
        return NULL;
    unsigned number = take_queue(object, number_object, true);
    if (number == QUEUES)
        return NULL;
    path_let_wait(((DataPath *)object)->path, (uint16_t)number, waits);
    Py_RETURN_NONE;
}

static PyObject *
set_namespace(PyObject *object, PyObject *arguments)
{
    struct data_path *path = path_resting((DataPath *)object);
    unsigned number, shift;
    unsigned long long blocks, address;
    int file;
    if (!path || !PyArg_ParseTuple(arguments, "IIKKi", &number, &shift, &blocks, &address, &file))
        return NULL;
    if (number >= NAMESPACES || shift > 20 || blocks > UINT64_MAX >> shift)
        return path_refuse((DataPath *)object, false,
                      "data path: a namespace below 64 and blocks of 1 << 20 bytes at most were "
                      "expected");
    path->spaces[number] = (struct space){
        .blocks = blocks, .bytes = (uint8_t *)(uintptr_t)address, .shift = (uint8_t)shift,
        .is_durable = file >= 0, .file = file,
    };
    Py_RETURN_NONE;
}

static PyObject *
use_shadow(PyObject *object, PyObject *argument)
{
    struct data_path *path = path_resting((DataPath *)object);
    unsigned long long address = path ? PyLong_AsUnsignedLongLong(argument) : 0;
    if (!path || PyErr_Occurred())
        return NULL;
    path->shadow = address;
    path->has_shadow = true;
    path->shadow_refused = false;
    path->shadow_bytes = NULL;
    Py_RETURN_NONE;
}

static PyObject *
take_work(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    struct data_path *path = path_resting((DataPath *)object);
    if (!path)
        return NULL;
    struct work work = path->work;
    path->work = (struct work){0};
    return Py_BuildValue("KKKK", (unsigned long long)work.reads, (unsigned long long)work.writes,
                         (unsigned long long)work.bytes_read,
                         (unsigned long long)work.bytes_written);
}

PyMethodDef path_calls[] = {
    {"open_completion", open_completion, METH_VARARGS, NULL},
    {"open_submission", open_submission, METH_VARARGS, NULL},
    {"close_completion", close_completion, METH_O, NULL},
    {"close_submission", close_submission, METH_O, NULL},
    {"has_completion", has_completion, METH_O, NULL},
    {"has_submission", has_submission, METH_O, NULL},
    {"take", take, METH_O, NULL},
    {"head", head_of, METH_O, NULL},
    {"completion_of", completion_of, METH_O, NULL},
    {"next_entry", next_entry, METH_O, NULL},
    {"step", step, METH_O, NULL},
    {"let_wait", let_wait, METH_VARARGS, NULL},
    {"set_namespace", set_namespace, METH_VARARGS, NULL},
    {"use_shadow", use_shadow, METH_O, NULL},
    {"interrupt", path_call_interrupt, METH_NOARGS, NULL},
    {"resume", path_call_resume, METH_NOARGS, NULL},
    {"run", path_call_run, METH_VARARGS, NULL},
    {"take_work", take_work, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};
