/* One piece of memory that a device reaches: what Python derives its DmaBuffer from. */
#include "dma.h"

#include <stddef.h>
#include <structmember.h>

static PyObject *
mapping_close(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    DmaMapping *self = (DmaMapping *)object;
    DmaTable *owner = self->owner;
    bool good = true;
    self->closed = true;
    self->owner = NULL;
    if (owner) {
        good = dma_table_unmap(owner, self);
        Py_DECREF(owner);
    }
    return good ? Py_NewRef(Py_None) : NULL;
}

static PyObject *
mapping_get_iova(PyObject *object, void *Py_UNUSED(closure))
{
    DmaMapping *self = (DmaMapping *)object;
    if (self->closed)
        return PyObject_CallMethod(object, "_refuse_closed", NULL); /* it raises */
    return PyLong_FromUnsignedLongLong(self->piece.iova);
}

static PyObject *
mapping_get_last_iova(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(((DmaMapping *)self)->piece.iova);
}

static PyObject *
mapping_get_array(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *array = ((DmaMapping *)self)->array;
    return array ? Py_NewRef(array) : PyObject_CallMethod(self, "_refuse_array", NULL);
}

static PyObject *
mapping_get_direction(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(((DmaMapping *)self)->direction);
}

static PyObject *
mapping_get_size(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(((DmaMapping *)self)->size);
}

static PyObject *
mapping_get_page_size(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(((DmaMapping *)self)->page_size);
}

static PyObject *
mapping_get_closed(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((DmaMapping *)self)->closed);
}

static void
mapping_dealloc(PyObject *object)
{
    DmaMapping *self = (DmaMapping *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->weak_references)
        PyObject_ClearWeakRefs(object);
    Py_CLEAR(self->owner);
    Py_CLEAR(self->array);
    Py_CLEAR(self->direction);
    self->release(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"close", mapping_close, METH_NOARGS,
     "close($self, /)\n--\n\nTake the memory away from the device, at once. Twice is fine."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"array", mapping_get_array, NULL, "The memory.", NULL},
    {"iova", mapping_get_iova, NULL, "The address of the first byte for the device.", NULL},
    {"last_iova", mapping_get_last_iova, NULL, "The same, closed or not.", NULL},
    {"size", mapping_get_size, NULL, "Bytes.", NULL},
    {"page_size", mapping_get_page_size, NULL, "Bytes of one page of the memory.", NULL},
    {"direction", mapping_get_direction, NULL, "What the device may do.", NULL},
    {"closed", mapping_get_closed, NULL, "Whether the device has lost its access.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(DmaMapping, weak_references), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "One piece of memory that a device reaches."},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_getset, properties},
    {Py_tp_dealloc, mapping_dealloc},
    {0, NULL},
};

PyType_Spec dma_mapping_spec = {
    .name = "uspace_drv.native._native.DmaMapping",
    .basicsize = sizeof(DmaMapping),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};
