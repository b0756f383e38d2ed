/* The lock of `uspace_drv.models.turn`: taken and given back in C, so that no handler of a signal
 * can raise in between and leave it taken for good. */
#include "native.h"

#include <structmember.h>

typedef struct {
    PyObject_HEAD
    PyObject *lock; /* a threading.RLock, which is C too */
    PyObject *path; /* whom to interrupt for those who ask; NULL or None: nobody */
    Py_ssize_t asking;
} TurnLock;

static PyObject *
turn_lock_new(PyTypeObject *type, PyObject *Py_UNUSED(arguments), PyObject *Py_UNUSED(keywords))
{
    PyObject *threads = PyImport_ImportModule("_thread");
    PyObject *lock = threads ? PyObject_CallMethod(threads, "RLock", NULL) : NULL;
    TurnLock *self = lock ? (TurnLock *)PyType_GenericAlloc(type, 0) : NULL;
    Py_XDECREF(threads);
    if (self)
        self->lock = lock;
    else
        Py_XDECREF(lock);
    return (PyObject *)self;
}

static int
turn_lock_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((TurnLock *)object)->path);
    return 0;
}

static int
turn_lock_clear(PyObject *object)
{
    Py_CLEAR(((TurnLock *)object)->path);
    return 0;
}

static void
turn_lock_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    turn_lock_clear(object);
    Py_CLEAR(((TurnLock *)object)->lock);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

/* Who has the lock may be a data path, which gives it back when it is interrupted. What either call
 * raises comes from a signal that arrived meanwhile; the lock is not taken then. */
static PyObject *
interrupt_and_wait(TurnLock *self)
{
    PyObject *path = Py_NewRef(self->path ? self->path : Py_None);
    PyObject *told = path == Py_None ? Py_NewRef(path)
                                     : PyObject_CallMethod(path, "interrupt", NULL);
    PyObject *taken = told ? PyObject_CallMethod(self->lock, "acquire", NULL) : NULL;
    Py_XDECREF(told);
    Py_DECREF(path);
    return taken;
}

static PyObject *
turn_lock_enter(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    TurnLock *self = (TurnLock *)object;
    self->asking++; /* first of all: what begins from here on stands back */
    PyObject *taken = PyObject_CallMethod(self->lock, "acquire", "O", Py_False);
    if (taken && taken != Py_True) {
        Py_DECREF(taken);
        taken = interrupt_and_wait(self);
    }
    self->asking--;
    if (!taken)
        return NULL;
    Py_DECREF(taken);
    Py_RETURN_NONE;
}

static PyObject *
turn_lock_exit(PyObject *object, PyObject *Py_UNUSED(arguments))
{
    return PyObject_CallMethod(((TurnLock *)object)->lock, "release", NULL);
}

static PyMethodDef methods[] = {
    {"__enter__", turn_lock_enter, METH_NOARGS, "Interrupt the path if it has the lock; take it."},
    {"__exit__", turn_lock_exit, METH_VARARGS, "Give it back."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"lock", T_OBJECT_EX, offsetof(TurnLock, lock), READONLY, "The lock itself, for the path."},
    {"path", T_OBJECT, offsetof(TurnLock, path), 0, "Whom to interrupt; None: nobody."},
    {"asking", T_PYSSIZET, offsetof(TurnLock, asking), READONLY, "How many want it now."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "A reentrant lock that interrupts the path that has it; see _native.pyi."},
    {Py_tp_new, turn_lock_new},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_traverse, turn_lock_traverse},
    {Py_tp_clear, turn_lock_clear},
    {Py_tp_dealloc, turn_lock_dealloc},
    {0, NULL},
};

PyType_Spec turn_lock_spec = {
    .name = "uspace_drv.native._native.TurnLock",
    .basicsize = sizeof(TurnLock),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
