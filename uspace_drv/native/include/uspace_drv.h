/* Exact bus access for C code of driver plugins: one call is one load or one store of that width.
 *
 * Order and width follow Linux Documentation/driver-api/device-io.rst; values are little-endian on
 * the bus, as PCI has them. The caller sees to alignment and bounds. */
#ifndef USPACE_DRV_H
#define USPACE_DRV_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* On a narrower machine the compiler would split a 64-bit access in two without a word. */
_Static_assert(sizeof(void *) == 8, "uspace_drv needs a 64-bit machine");

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define USPACE_SWAP16(value) __builtin_bswap16(value)
#define USPACE_SWAP32(value) __builtin_bswap32(value)
#define USPACE_SWAP64(value) __builtin_bswap64(value)
#else
#define USPACE_SWAP16(value) (value)
#define USPACE_SWAP32(value) (value)
#define USPACE_SWAP64(value) (value)
#endif

static inline uint8_t
uspace_read8(const volatile void *address)
{
    return *(const volatile uint8_t *)address;
}

static inline uint16_t
uspace_read16(const volatile void *address)
{
    return USPACE_SWAP16(*(const volatile uint16_t *)address);
}

static inline uint32_t
uspace_read32(const volatile void *address)
{
    return USPACE_SWAP32(*(const volatile uint32_t *)address);
}

static inline uint64_t
uspace_read64(const volatile void *address)
{
    return USPACE_SWAP64(*(const volatile uint64_t *)address);
}

static inline void
uspace_write8(volatile void *address, uint8_t value)
{
    *(volatile uint8_t *)address = value;
}

static inline void
uspace_write16(volatile void *address, uint16_t value)
{
    *(volatile uint16_t *)address = USPACE_SWAP16(value);
}

static inline void
uspace_write32(volatile void *address, uint32_t value)
{
    *(volatile uint32_t *)address = USPACE_SWAP32(value);
}

static inline void
uspace_write64(volatile void *address, uint64_t value)
{
    *(volatile uint64_t *)address = USPACE_SWAP64(value);
}

/* Order every store before it ahead of every store after it, to memory and to the device.
 * A C11 release fence is too weak: it does not order write-combined stores. */
static inline void
uspace_write_barrier(void)
{
#if defined(__x86_64__)
    __asm__ volatile("sfence" ::: "memory");
#elif defined(__aarch64__)
    __asm__ volatile("dsb st" ::: "memory");
#elif defined(__riscv)
    __asm__ volatile("fence ow, ow" ::: "memory");
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* Order every load before it ahead of every load after it. */
static inline void
uspace_read_barrier(void)
{
#if defined(__x86_64__)
    __asm__ volatile("lfence" ::: "memory");
#elif defined(__aarch64__)
    __asm__ volatile("dsb ld" ::: "memory");
#elif defined(__riscv)
    __asm__ volatile("fence ir, ir" ::: "memory");
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* Order every load and store before it ahead of every load and store after it. Of all orders, only
 * that of a store ahead of a later load needs this one. */
static inline void
uspace_full_barrier(void)
{
#if defined(__x86_64__)
    __asm__ volatile("mfence" ::: "memory");
#elif defined(__aarch64__)
    __asm__ volatile("dsb sy" ::: "memory");
#elif defined(__riscv)
    __asm__ volatile("fence iorw, iorw" ::: "memory");
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* Tell the core that this is a busy wait: it saves power and lets its sibling thread run. */
static inline void
uspace_pause(void)
{
#if defined(__x86_64__)
    __asm__ volatile("pause" ::: "memory");
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* What a device may do with a piece of memory: the bits of uspace_drv.Direction. */
enum uspace_direction { USPACE_TO_DEVICE = 1, USPACE_FROM_DEVICE = 2 };

/* Memory that a device model reaches from an IOVA on. The table of a model's IOMMU is an array of
 * these, ascending and apart: `Iommu.table`, which stays as it is while C holds its buffer. */
struct uspace_mapping {
    uint64_t iova, size;
    uint8_t *bytes;     /* in this process; NULL where only the model's Python can reach it */
    uint64_t direction; /* uspace_direction */
};

/* The last mapping that begins at an address or before it; the caller sees how far it reaches. */
static inline const struct uspace_mapping *
uspace_find_mapping(const struct uspace_mapping *table, size_t count, uint64_t iova)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (table[middle].iova <= iova)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &table[low - 1] : NULL;
}

/* Where `size` bytes lie that the device sees at an address, or NULL: not mapped in one piece, not
 * for all that `direction` says, or not in this process. */
static inline uint8_t *
uspace_reach(const struct uspace_mapping *mapping, uint64_t iova, uint64_t size, uint64_t direction)
{
    if (!mapping || iova - mapping->iova >= mapping->size || !mapping->bytes)
        return NULL;
    uint64_t offset = iova - mapping->iova;
    if (size > mapping->size - offset || (mapping->direction & direction) != direction)
        return NULL;
    return mapping->bytes + offset;
}

#endif
