/*
 * barrier.h: what acquire and release mean here, said once.
 *
 * Two processes share memory. The compiler and the CPU may both let one process's stores be seen by the other in
 * another order than they were written in. All of the core's promises rest on three kinds of atomic access:
 *
 *   store_release(x, v)   everything this side wrote BEFORE it is visible to whoever reads v from x with an acquire.
 *                         "The message is in the ring" before "tail says so".
 *   load_acquire(x)       everything this side reads AFTER it is at least as new as what the writer of that value had
 *                         written before its release. "tail says so" before "I read the message".
 *   seq_cst               both of them, and one total order over all seq_cst accesses of all processes. Needed where
 *                         each side writes its own word and then reads the other's (store, then load): with release
 *                         and acquire alone both may read the old value, both go to sleep, and nobody wakes anybody.
 *                         On x86 the store costs a locked instruction (about 20 cycles); loads cost nothing.
 *
 * There are no bare fences in the core: ThreadSanitizer cannot see them, and an access that carries its own ordering
 * tells the reader which word it is about. A relaxed access is used only for a word that this process alone writes.
 *
 * The words live in memory shared by processes, so the atomics must be lock-free and address-free: checked below.
 */
#ifndef IPCLAB_BARRIER_H
#define IPCLAB_BARRIER_H

#include <stdatomic.h>
#include <stdint.h>

_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "32-bit atomics must be lock-free to work between processes");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics must be lock-free to work between processes");
_Static_assert(sizeof(_Atomic uint32_t) == 4 && sizeof(_Atomic uint64_t) == 8, "atomics must have their plain size");

#define load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define load_seq_cst(p) atomic_load_explicit((p), memory_order_seq_cst)
#define store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define store_seq_cst(p, v) atomic_store_explicit((p), (v), memory_order_seq_cst)
#define swap_seq_cst(p, v) atomic_exchange_explicit((p), (v), memory_order_seq_cst)
#define add_seq_cst(p, v) atomic_fetch_add_explicit((p), (v), memory_order_seq_cst)
#define cas_seq_cst(p, expected, desired) \
	atomic_compare_exchange_strong_explicit((p), (expected), (desired), memory_order_seq_cst, memory_order_seq_cst)

/* Two cache lines: the hardware fetches lines in pairs, so words of different writers are kept this far apart. */
#define FALSE_SHARING_BYTES 128

/* One round of a spin loop: tells the CPU so (saves power, frees the sibling thread). */
static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

#endif
