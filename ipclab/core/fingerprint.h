/*
 * fingerprint.h: where two CPUs are to each other at this moment, told by how long a cache line takes there and back.
 *
 * The problem. The CPUs of a virtual machine are threads that the host moves about: now both on one core, now on two
 * that share a cache, now on two chips. The same ring then gives 46, 15 or 4 million messages a second, and no file in
 * /sys says why. What can be measured is the journey of a cache line: two threads, pinned, spin on one word; each waits
 * for the other's number and writes the next. The median over many short stretches is the fingerprint. On one machine it
 * falls into clusters with wide gaps (20-60, 80-120 and 380-480 ns were seen); samples of different clusters must not be
 * compared.
 *
 * Threads, not processes: a cache line does not know the difference, and forking a large process would take longer than
 * all the rest.
 */
#ifndef IPCLAB_FINGERPRINT_H
#define IPCLAB_FINGERPRINT_H

#include <stdint.h>

#define FINGERPRINT_MOST_NS INT64_C(500000000)

/*
 * The median round trip in ns; 0 when both are the same CPU. The calling thread is pinned meanwhile and has its
 * affinity back afterwards. -EINVAL: no such CPU, not allowed to us, or rounds below 1; -ETIMEDOUT: other work on these
 * CPUs kept the two from meeting for FINGERPRINT_MOST_NS; -EAGAIN, -ENOMEM: no thread.
 */
int64_t fingerprint(int cpu_a, int cpu_b, int rounds);

#endif
