/* A queue's beginning and end in Python: rings, doorbells, namespaces, reset. */
#include "hot_module.h"

static bool
take_ring(Queue *self, PyObject *memory, size_t size, const char *name, Py_buffer *buffer)
{
    if (PyObject_GetBuffer(memory, buffer, PyBUF_WRITABLE) < 0)
        return false;
    size_t entries = (size_t)buffer->len / size;
    if ((size_t)buffer->len % size == 0 && (uintptr_t)buffer->buf % size == 0 && entries >= 2
        && entries <= 65536)
        return true;
    refuse(self, "%s queue of %zd bytes, expected 2 to 65536 entries of %zu bytes at a multiple "
           "of that", name, buffer->len, size);
    return false;
}

static bool
take_lists(Queue *self, PyObject *memory, uint64_t iova, unsigned page_size)
{
    if (PyObject_GetBuffer(memory, &self->lists, PyBUF_WRITABLE) < 0)
        return false;
    bool power = page_size >= 4096 && (page_size & (page_size - 1)) == 0;
    if (power && (uint64_t)self->lists.len >= page_size && iova % page_size == 0
        && (uintptr_t)self->lists.buf % 8 == 0)
        return true;
    refuse(self, "lists of %zd bytes at IOVA 0x%llx for pages of %u bytes, expected one page or "
           "more at a multiple of its size, which is a power of two from 4096 on",
           self->lists.len, (unsigned long long)iova, page_size);
    return false;
}

static int
open_core(Queue *self, uint64_t iova, unsigned page_size, bool sgl)
{
    struct hot_shape shape = {
        .commands = self->submission.buf,
        .completions = self->completion.buf,
        .lists = self->lists.buf,
        .commands_size = (size_t)self->submission.len,
        .completions_size = (size_t)self->completion.len,
        .lists_size = (size_t)self->lists.len,
        .lists_iova = iova,
        .number = self->core.number,
        .page_shift = (uint32_t)__builtin_ctz(page_size),
        .sgl = sgl,
    };
    if (hot_open(&self->core, &shape))
        return 0;
    PyErr_NoMemory();
    return -1;
}

int
queue_init(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"", "", "", "", "", "", "", "page_size", "sgl", NULL};
    Queue *self = (Queue *)object;
    PyObject *name, *submission, *completion, *lists, *iova_number, *memory;
    PyTypeObject *memory_type = state_of(object)->memory_type;
    unsigned number, page_size = 0;
    uint64_t iova;
    int sgl = 0;
    if (self->name) {
        PyErr_SetString(PyExc_TypeError, "Queue: it was made already");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "UIOOOOO!|$Ip:Queue", names, &name,
                                     &number, &submission, &completion, &lists, &iova_number,
                                     memory_type, &memory, &page_size, &sgl)
        || !take_count(object, iova_number, "Queue: lists_iova", UINT64_MAX, &iova))
        return -1;
    self->name = Py_NewRef(name);
    self->memory = (Memory *)Py_NewRef(memory);
    self->core.number = number;
    if (!take_ring(self, submission, COMMAND_SIZE, "submission", &self->submission)
        || !take_ring(self, completion, COMPLETION_SIZE, "completion", &self->completion)
        || !take_lists(self, lists, iova, page_size))
        return -1;
    return open_core(self, iova, page_size, sgl);
}

void
queue_dealloc(PyObject *object)
{
    Queue *self = (Queue *)object;
    PyTypeObject *type = Py_TYPE(object);
    Py_buffer *buffers[] = {&self->submission, &self->completion, &self->lists,
                            &self->page,       &self->doorbells,  &self->events};
    hot_close(&self->core);
    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++)
        PyBuffer_Release(buffers[i]); /* nothing where there is none */
    Py_CLEAR(self->memory);
    Py_CLEAR(self->name);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* Two bells of 32 bits inside of a buffer. */
static bool
check_bells(Queue *self, const Py_buffer *buffer, unsigned long submission,
            unsigned long completion)
{
    unsigned long most = submission > completion ? submission : completion;
    if (submission % 4 == 0 && completion % 4 == 0 && (uintptr_t)buffer->buf % 4 == 0
        && buffer->len >= 4 && most <= (unsigned long)buffer->len - 4)
        return true;
    refuse(self, "doorbells at offsets %lu and %lu of %zd bytes, expected multiples of 4 inside",
           submission, completion, buffer->len);
    return false;
}

static volatile uint32_t *
word_at(const Py_buffer *buffer, unsigned long offset)
{
    return (volatile uint32_t *)((char *)buffer->buf + offset);
}

static bool
take_bells(Queue *self, PyObject *memory, unsigned long submission, unsigned long completion,
           Py_buffer *buffer)
{
    if (PyObject_GetBuffer(memory, buffer, PyBUF_WRITABLE) < 0)
        return false;
    if (check_bells(self, buffer, submission, completion))
        return true;
    PyBuffer_Release(buffer);
    return false;
}

PyObject *
queue_use_doorbells(PyObject *object, PyObject *arguments)
{
    Queue *self = (Queue *)object;
    PyObject *memory;
    unsigned long submission, completion;
    Py_buffer buffer;
    if (!PyArg_ParseTuple(arguments, "Okk:use_doorbells", &memory, &submission, &completion)
        || !take_bells(self, memory, submission, completion, &buffer))
        return NULL;
    if (!queue_enter(self)) {
        PyBuffer_Release(&buffer);
        return NULL;
    }
    Py_buffer old = self->page;
    self->page = buffer;
    self->core.tail_bell.value = word_at(&buffer, submission);
    self->core.head_bell.value = word_at(&buffer, completion);
    queue_leave(self);
    PyBuffer_Release(&old);
    Py_RETURN_NONE;
}

static void
set_shadow(Queue *self, Py_buffer doorbells, Py_buffer events, unsigned long submission,
           unsigned long completion)
{
    struct hot_bell *tail = &self->core.tail_bell, *head = &self->core.head_bell;
    Py_buffer old[] = {self->doorbells, self->events};
    self->doorbells = doorbells;
    self->events = events;
    tail->shadow = word_at(&doorbells, submission);
    tail->event = word_at(&events, submission);
    head->shadow = word_at(&doorbells, completion);
    head->event = word_at(&events, completion);
    PyBuffer_Release(&old[0]);
    PyBuffer_Release(&old[1]);
}

PyObject *
queue_use_shadow(PyObject *object, PyObject *arguments)
{
    Queue *self = (Queue *)object;
    PyObject *memory, *event_memory;
    unsigned long submission, completion;
    Py_buffer doorbells, events;
    if (!PyArg_ParseTuple(arguments, "OOkk:use_shadow", &memory, &event_memory, &submission,
                          &completion)
        || !take_bells(self, memory, submission, completion, &doorbells))
        return NULL;
    if (!take_bells(self, event_memory, submission, completion, &events)) {
        PyBuffer_Release(&doorbells);
        return NULL;
    }
    if (!queue_enter(self)) {
        PyBuffer_Release(&doorbells);
        PyBuffer_Release(&events);
        return NULL;
    }
    set_shadow(self, doorbells, events, submission, completion);
    queue_leave(self);
    Py_RETURN_NONE;
}

static bool
set_namespace(Queue *self, struct hot_namespace namespace)
{
    if (namespace.shift < 9 || namespace.shift > 31 || namespace.most_blocks == 0) {
        refuse(self, "namespace %u with blocks of 2**%u bytes, %u at most in one command; expected "
               "2**9 to 2**31, 1 or more", namespace.id, namespace.shift, namespace.most_blocks);
        return false;
    }
    uint64_t fit = hot_most_bytes(&self->core) >> namespace.shift;
    uint64_t most = fit < MOST_BLOCKS ? fit : MOST_BLOCKS;
    if (namespace.most_blocks > most)
        namespace.most_blocks = (uint32_t)most;
    if (hot_set_namespace(&self->core, namespace))
        return true;
    PyErr_NoMemory();
    return false;
}

PyObject *
queue_set_namespace(PyObject *object, PyObject *arguments)
{
    Queue *self = (Queue *)object;
    PyObject *numbers[4];
    uint64_t id, shift, blocks, most;
    if (!PyArg_ParseTuple(arguments, "OOOO:set_namespace", &numbers[0], &numbers[1], &numbers[2],
                          &numbers[3])
        || !take_count(object, numbers[0], "set_namespace: namespace", UINT32_MAX, &id)
        || !take_count(object, numbers[1], "set_namespace: shift", UINT32_MAX, &shift)
        || !take_count(object, numbers[2], "set_namespace: blocks", UINT64_MAX, &blocks)
        || !take_count(object, numbers[3], "set_namespace: most_blocks", UINT32_MAX, &most)
        || !queue_enter(self))
        return NULL;
    struct hot_namespace namespace = {
        .id = (uint32_t)id, .shift = (uint32_t)shift, .blocks = blocks,
        .most_blocks = (uint32_t)most};
    bool good = blocks ? set_namespace(self, namespace) : hot_set_namespace(&self->core, namespace);
    queue_leave(self);
    return good ? Py_NewRef(Py_None) : NULL;
}

PyObject *
queue_reset(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Queue *self = (Queue *)object;
    if (!queue_enter(self))
        return NULL;
    uint32_t flying = hot_in_flight(&self->core), waiting = self->core.waiting;
    if (!flying && !waiting)
        hot_reset(&self->core);
    queue_leave(self);
    if (!flying && !waiting)
        Py_RETURN_NONE;
    return refuse_busy(self, "%u commands are in flight and %u results wait; abandon() them first",
                       flying, waiting);
}
