/* What iova.c, dma.c and dma_calls.c share: the IOVAs of a device, and what is mapped there. */
#ifndef USPACE_DMA_H
#define USPACE_DMA_H

#include "native.h"

/* Both ends included, so that the last page of 64 bits can be one. */
struct span {
    uint64_t first, last;
};

typedef struct {
    PyObject_HEAD
    struct span *usable; /* ascending */
    Py_ssize_t usable_count;
    struct span *taken;  /* ascending, none overlaps another */
    Py_ssize_t taken_count, room;
    uint64_t next;       /* where the search goes on */
} IovaTable;

extern PyType_Spec iova_table_spec, dma_table_spec, dma_mapping_spec;

/* iova.c. A place for the memory at `address`, if there is room one that lies as far into a huge page
 * as that. False where no gap is large enough, or with MemoryError set. */
bool iova_take(IovaTable *self, uint64_t size, uint64_t address, uint64_t *iova);
bool iova_give_back(IovaTable *self, uint64_t iova, uint64_t size);

/* Whose memory the kernel maps for us without a way through Python. */
enum dma_kernel { NO_KERNEL, TYPE1_CONTAINER, IOMMUFD_IOAS };

struct dma_calls {
    enum dma_kernel kernel;
    int fd;
    uint32_t ioas;
};

enum dma_rights { DEVICE_READS = 1, DEVICE_WRITES = 2 };

struct dma_piece {
    uint64_t address, size, iova;
    unsigned rights;
};

/* What takes longer than giving up the GIL and taking it again. */
enum { LONG_CALL = 16 * 4096 };

/* dma_calls.c: one ioctl each, without the GIL where it is long. False where the kernel refused, or did less than it should. */
bool dma_kernel_map(const struct dma_calls *calls, const struct dma_piece *piece);
bool dma_kernel_unmap(const struct dma_calls *calls, const struct dma_piece *piece);

/* Whose turn it is; one thread may take it several times, as a call through Python may come back
 * here. Between giving up the GIL and having it again the lock is held too, for others to wait on;
 * a call too short to give up the GIL does without. */
struct turn {
    PyThread_type_lock lock;
    unsigned long owner;
    unsigned depth;
    bool locked;
};

/* The beginning of a numpy.ndarray, which numpy's C API holds still for all that is built against
 * it (numpy/ndarraytypes.h, PyArrayObject_fields): asking the array takes longer than the kernel's
 * part of a mapping allows. What is read here is held against what Python says, once for each
 * dtype, before it is believed. */
struct numpy_array {
    PyObject_HEAD
    char *data;
    int dimension_count;
    intptr_t *dimensions, *strides;
    PyObject *owner, *dtype;
    int flags;
};

enum { NUMPY_C_CONTIGUOUS = 0x1, NUMPY_WRITEABLE = 0x400 };

typedef struct dma_table DmaTable;

/* What Python knows as a DmaBuffer. */
typedef struct dma_mapping {
    PyObject_HEAD
    DmaTable *owner;                     /* while it is mapped */
    struct dma_mapping *before, *after;  /* among those of the owner, which keeps them alive */
    PyObject *array;                     /* NULL for memory that is only a file's */
    PyObject *direction;
    uint64_t size, page_size;
    struct dma_piece piece;              /* in whole pages */
    PyObject *weak_references;
    freefunc release;
    bool mapped, closed;
} DmaMapping;

struct dma_table {
    PyObject_HEAD
    PyObject *space;         /* the port's DmaSpace */
    PyObject *iovas;         /* an IovaTable, or NULL where memory has one fixed IOVA */
    PyObject *directions[3]; /* by the rights they give, less 1 */
    PyObject *checked;       /* the dtype that was found good last, or NULL */
    uint64_t item_size;      /* of that dtype */
    PyTypeObject *array_type; /* numpy.ndarray, once one was checked */
    PyTypeObject *mapping_type;
    allocfunc alloc;
    freefunc release;
    struct dma_calls calls;
    uint64_t page, reach;
    Py_ssize_t limit, count; /* a limit of -1 for none */
    DmaMapping *oldest, *newest;
    bool closed;
    struct turn turn;
};

/* dma_turn.c */
void turn_take(struct turn *turn);
void turn_lock(struct turn *turn); /* before the GIL may be given up */
void turn_give_back(struct turn *turn);
struct module_state *dma_state(PyTypeObject *type);

/* dma_array.c: address and size of an array; false with an exception set only from the second. */
bool dma_is_ordinary(const DmaTable *self, PyObject *array, struct dma_piece *piece);
bool dma_check(DmaTable *self, PyObject *array, PyObject *direction, struct dma_piece *piece);

/* dma_table.c: take it away from the device. False with an exception set. */
bool dma_table_unmap(DmaTable *self, DmaMapping *mapping);

#endif
