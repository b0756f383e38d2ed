/* Which arrays can be mapped as they are; Python is asked about all others, and the first of a kind.
 */
#include "dma.h"

static uint64_t
array_bytes(const struct numpy_array *array, uint64_t item_size)
{
    uint64_t bytes = item_size;
    for (int i = 0; i < array->dimension_count; i++)
        bytes *= (uint64_t)array->dimensions[i];
    return bytes;
}

/* Whether no question is open: plain items, whole pages, and ours to write where the device does. */
bool
dma_is_ordinary(const DmaTable *self, PyObject *array, struct dma_piece *piece)
{
    if (Py_TYPE(array) != self->array_type)
        return false;
    const struct numpy_array *inside = (const struct numpy_array *)array;
    int wanted = NUMPY_C_CONTIGUOUS | (piece->rights & DEVICE_WRITES ? NUMPY_WRITEABLE : 0);
    if (inside->dtype != self->checked || (inside->flags & wanted) != wanted || !piece->rights)
        return false;
    piece->address = (uintptr_t)inside->data;
    piece->size = array_bytes(inside, self->item_size);
    return piece->size && (piece->address | piece->size) % self->page == 0;
}

/* From now on arrays like this one are looked at here, if their inside is as we think. */
static bool
remember(DmaTable *self, PyObject *array, PyObject *dtype, const struct dma_piece *piece)
{
    const struct numpy_array *inside = (const struct numpy_array *)array;
    PyObject *item_size = PyObject_GetAttrString(dtype, "itemsize");
    long long size = item_size ? PyLong_AsLongLong(item_size) : -1;
    Py_XDECREF(item_size);
    if (size <= 0 || inside->dtype != dtype || (uintptr_t)inside->data != piece->address
        || array_bytes(inside, (uint64_t)size) != piece->size)
        return !PyErr_Occurred();
    PyObject *before = self->checked;
    self->checked = Py_NewRef(dtype);
    self->item_size = (uint64_t)size;
    Py_XDECREF(before);
    return true;
}

/* Have Python look at it, and remember the dtype that it let pass. */
bool
dma_check(DmaTable *self, PyObject *array, PyObject *direction, struct dma_piece *piece)
{
    unsigned long long address, size;
    PyObject *type, *answer =
        PyObject_CallMethod((PyObject *)self, "_check", "OO", array, direction);
    bool good = answer && PyArg_ParseTuple(answer, "KKO", &address, &size, &type);
    if (good && !self->array_type && PyType_Check(type))
        self->array_type = (PyTypeObject *)Py_NewRef(type);
    Py_XDECREF(answer);
    if (!good)
        return false;
    piece->address = address;
    piece->size = size;
    if (Py_TYPE(array) != self->array_type)
        return true;
    PyObject *dtype = PyObject_GetAttrString(array, "dtype");
    good = dtype && remember(self, array, dtype, piece);
    Py_XDECREF(dtype);
    return good;
}
