/* Memory under a window: our own shared mapping of a device file, or somebody else's buffer.
 *
 * A window and its views hold it together, so no view ever dangles (Python buffer protocol, PEP 688
 * and mmap(2)). When a window closes under living views, our own pages are given back at once and
 * zeros take their place. */
#include "native.h"

#include <errno.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>

static Mapping *
new_mapping(struct module_state *state)
{
    return (Mapping *)PyType_GenericAlloc(state->mapping_type, 0);
}

static bool
add_guard(Mapping *self, bool own)
{
    self->range = guard_add(self->bytes, own ? self->whole : self->size, own);
    if (!self->range)
        PyErr_NoMemory();
    return self->range != NULL;
}

/* A peer's file may be of huge pages, which the kernel maps, replaces and unmaps whole only. */
static size_t
page_of_file(int fd)
{
    struct statfs system;
    bool is_huge = fstatfs(fd, &system) == 0 && (uint32_t)system.f_type == HUGETLBFS_MAGIC;
    return is_huge ? (size_t)system.f_bsize : (size_t)sysconf(_SC_PAGESIZE);
}

Mapping *
mapping_of_file(struct module_state *state, int fd, off_t offset, size_t size, bool writable)
{
    int protection = PROT_READ | (writable ? PROT_WRITE : 0);
    size_t page = page_of_file(fd);
    void *bytes = mmap(NULL, size, protection, MAP_SHARED, fd, offset);
    if (bytes == MAP_FAILED)
        return NULL;
    size_t whole = (size + page - 1) / page * page;
    Mapping *self = new_mapping(state);
    if (!self) {
        munmap(bytes, whole);
        return NULL;
    }
    self->bytes = bytes;
    self->size = size;
    self->whole = whole;
    self->writable = writable;
    /* A child that inherited the pages would keep the device busy after the parent closed it, and
     * two processes on one device is a bug. What a child finds there instead: fault_guard.c. */
    madvise(bytes, whole, MADV_DONTFORK);
    if (!add_guard(self, true))
        Py_CLEAR(self);
    return self;
}

Mapping *
mapping_of_buffer(struct module_state *state, PyObject *buffer)
{
    Mapping *self = new_mapping(state);
    if (!self)
        return NULL;
    if (PyObject_GetBuffer(buffer, &self->borrowed, PyBUF_SIMPLE) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->bytes = self->borrowed.buf;
    self->size = (size_t)self->borrowed.len;
    self->writable = !self->borrowed.readonly;
    if (!add_guard(self, false))
        Py_CLEAR(self);
    return self;
}

static bool
is_own(Mapping *self)
{
    return self->bytes && !self->borrowed.obj;
}

int
mapping_revoke(Mapping *self)
{
    if (!is_own(self) || !self->views)
        return 0; /* the last reference gives it back */
    if (overlay_zeros(self->bytes, self->whole) < 0)
        return -1;
    /* Ordinary memory now, which a forked child may have. It is guarded until the last view goes: a
     * thread that reads one without the GIL may have met a bus error just before the zeros. */
    atomic_store(&self->range->own, false);
    return 0;
}

static int
mapping_get_buffer(PyObject *object, Py_buffer *view, int flags)
{
    Mapping *self = (Mapping *)object;
    Py_ssize_t size = (Py_ssize_t)self->size;
    int failed = PyBuffer_FillInfo(view, object, self->bytes, size, !self->writable, flags);
    self->views += !failed;
    return failed;
}

static void
mapping_release_buffer(PyObject *object, Py_buffer *view)
{
    (void)view;
    ((Mapping *)object)->views--;
}

static int
mapping_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((Mapping *)object)->borrowed.obj);
    return 0;
}

static void
mapping_dealloc(PyObject *object)
{
    Mapping *self = (Mapping *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->range)
        guard_remove(self->range);
    if (is_own(self))
        munmap(self->bytes, self->whole);
    PyBuffer_Release(&self->borrowed);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyType_Slot mapping_slots[] = {
    {Py_tp_doc, "Memory of a window that its views keep alive."},
    {Py_tp_traverse, mapping_traverse},
    {Py_tp_dealloc, mapping_dealloc},
    {Py_bf_getbuffer, mapping_get_buffer},
    {Py_bf_releasebuffer, mapping_release_buffer},
    {0, NULL},
};

PyType_Spec mapping_spec = {
    .name = "uspace_drv.native._native.Mapping",
    .basicsize = sizeof(Mapping),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = mapping_slots,
};
