/*
 * switch.h: the source `switch`: PERF_RECORD_SWITCH of the followed threads and of all they give birth to.
 *
 * A dummy software event per thread and CPU with context_switch, task and comm set. Per CPU, because an inherited event
 * that is on any CPU (cpu = -1) cannot be mapped (EINVAL); inherited, so that children are told of from their first
 * instruction on, forks and exits included. exclude_kernel, so that perf_event_paranoid up to 2 allows it to everyone.
 * All events of a CPU write into one ring, the first one's (PERF_EVENT_IOC_SET_OUTPUT).
 *
 * Memory. Rings are locked: without CAP_IPC_LOCK, perf_event_mlock_kb per CPU and user, then RLIMIT_MEMLOCK. 128 KiB for
 * each *thread* ran out of it after 69; one ring per CPU does not grow with the threads. It is made as large as the
 * budget allows, from 256 KiB down to 8.
 */
#ifndef IPCLAB_SWITCH_H
#define IPCLAB_SWITCH_H

#include <sys/types.h>

#include "told.h"

struct switcher;

/* -EACCES, -EPERM: perf_event_paranoid or seccomp; -ENOMEM, -EPERM from mmap as -ENOBUFS: the locked-memory budget is
 * spent; `inherit`: 1 children too, 0 threads only. */
int switcher_open(struct switcher **switcher, int inherit);
void switcher_close(struct switcher *switcher);
/* Attaches to one thread that lives. 0, -ESRCH, or an errno as above. */
int switcher_add(struct switcher *switcher, pid_t tid);
/* Reads the rings. `lost`: counts records the kernel had no room for. -EINVAL: a ring is garbled. */
int switcher_read(struct switcher *switcher, struct told_queue *queue, uint64_t *lost);
/* Bytes of one ring, and of how many there are. */
size_t switcher_ring_bytes(const struct switcher *switcher, int *rings);

#endif
