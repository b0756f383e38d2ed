/* The Queue type: its methods, and the numbers that it shows. */
#include "hot_module.h"

#include <structmember.h>

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef methods[] = {
    {"use_doorbells", queue_use_doorbells, METH_VARARGS,
     "use_doorbells($self, page, submission, completion, /)\n--\n\nRing in mapped memory."},
    {"use_shadow", queue_use_shadow, METH_VARARGS,
     "use_shadow($self, doorbells, events, submission, completion, /)\n--\n\n"
     "Ring in memory, and at the device where it asks."},
    {"set_namespace", queue_set_namespace, METH_VARARGS,
     "set_namespace($self, namespace, shift, blocks, most_blocks, /)\n--\n\n"
     "Allow requests to a namespace."},
    {"submit", FAST(queue_submit), METH_FASTCALL,
     "submit($self, requests, start=0, /)\n--\n\n"
     "Submit an array of Request from start on: how many went in."},
    {"submit_command", FAST(queue_submit_command), METH_FASTCALL,
     "submit_command($self, command, data, size, tag, /)\n--\n\n"
     "Submit 64 bytes as they are: the command's id, or -1 where the queue is full."},
    {"poll", FAST(queue_poll), METH_FASTCALL | METH_KEYWORDS,
     "poll($self, results, /, least=0, timeout=0.0)\n--\n\n"
     "Fill an array of Result with what has completed: how many."},
    {"transfer", FAST(queue_transfer), METH_FASTCALL,
     "transfer($self, opcode, flags, namespace, lba, blocks, data, spin, /)\n--\n\n"
     "Do one request: its status, -1 in flight, -2 data in no Memory, -3 queue full."},
    {"finish", queue_finish, METH_O,
     "finish($self, spin, /)\n--\n\nGo on with the transfer that returned -1."},
    {"run", FAST(queue_run), METH_VARARGS | METH_KEYWORDS,
     "run($self, requests, results, /, depth, timeout)\n--\n\n"
     "Do all of the requests, at most depth at once: how many are done."},
    {"abandon", FAST(queue_abandon), METH_FASTCALL,
     "abandon($self, results, status, /)\n--\n\n"
     "Take back what is in flight as if completed with status: how many came."},
    {"reset", queue_reset, METH_NOARGS, "reset($self, /)\n--\n\nBegin anew."},
    {"id_of", queue_id_of, METH_O,
     "id_of($self, tag, /)\n--\n\nCommand id of the request in flight with this tag, or -1."},
    {"tag_of", queue_tag_of, METH_O,
     "tag_of($self, id, /)\n--\n\nTag of the command in flight with this id, or -1."},
    {NULL, NULL, 0, NULL},
};

static PyObject *
get_in_flight(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(hot_in_flight(&((Queue *)object)->core));
}

static PyObject *
get_free(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(hot_free(&((Queue *)object)->core));
}

static PyObject *
get_most_bytes(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(hot_most_bytes(&((Queue *)object)->core));
}

static PyGetSetDef properties[] = {
    {"in_flight", get_in_flight, NULL, "Commands that the device has not completed.", NULL},
    {"free", get_free, NULL, "Requests that submit() would take now.", NULL},
    {"most_bytes", get_most_bytes, NULL, "What one command can move.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"name", T_OBJECT, offsetof(Queue, name), READONLY, "What opens every message."},
    {"number", T_UINT, offsetof(Queue, core.number), READONLY, "The queue's id."},
    {"depth", T_UINT, offsetof(Queue, core.depth), READONLY, "Commands that fit in at once."},
    {"waiting", T_UINT, offsetof(Queue, core.waiting), READONLY, "Results that poll() has."},
    {"submitted", T_ULONGLONG, offsetof(Queue, core.submitted), READONLY, "Commands so far."},
    {"completed", T_ULONGLONG, offsetof(Queue, core.completed), READONLY, "Commands so far."},
    {"tail", T_UINT, offsetof(Queue, core.tail), READONLY, "Of the submission queue."},
    {"timed", T_BOOL, offsetof(Queue, core.timed), 0, "Whether results say how long they took."},
    {"head", T_UINT, offsetof(Queue, core.head), READONLY, "Of the completion queue."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "A submission and a completion queue; one thread at a time."},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_getset, properties},
    {Py_tp_init, queue_init},
    {Py_tp_dealloc, queue_dealloc},
    {0, NULL},
};

PyType_Spec queue_spec = {
    .name = "uspace_drivers.nvme.engine.hot.Queue",
    .basicsize = sizeof(Queue),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};
