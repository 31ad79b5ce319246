/*
 * semaphore.h: libc's process-shared semaphore for the carriers, with its system calls counted as far as they show.
 *
 * sem_wait(3) and sem_post(3) make a system call only when somebody sleeps, and do not tell. A wait here first tries
 * without one; if it must sleep, that is counted as one call (a spurious wake-up inside libc would be a second). For a
 * post, glibc's sem_t says in the upper half of its first word (64-bit machines) how many sleep: that is read just
 * before. Somebody may begin to sleep in between, which counts one too few. Other libcs and 32 bits: posts count none.
 */
#ifndef IPCLAB_SEMAPHORE_H
#define IPCLAB_SEMAPHORE_H

#include <errno.h>
#include <semaphore.h>
#include <stdint.h>

#include "barrier.h"
#include "carrier.h"

static inline int semaphore_has_sleepers(sem_t *semaphore)
{
#if defined(__GLIBC__) && UINTPTR_MAX > UINT32_MAX
	return load_relaxed((_Atomic uint64_t *)(void *)semaphore) >> 32 != 0;
#else
	(void)semaphore;
	return 0;
#endif
}

/* 0, -EINTR, or -EAGAIN when nothing is waited for any more. */
static inline int semaphore_take(struct carrier *carrier, sem_t *semaphore)
{
	if (sem_trywait(semaphore) == 0)
		return 0;
	if (carrier->hurry)
		return -EAGAIN;
	carrier->system_calls++;
	carrier->sleeps++;
	return sem_wait(semaphore) == 0 ? 0 : -errno;
}

static inline int semaphore_give(struct carrier *carrier, sem_t *semaphore)
{
	if (semaphore_has_sleepers(semaphore)) {
		carrier->system_calls++;
		carrier->wakes++;
	}
	return sem_post(semaphore) == 0 ? 0 : -errno;
}

#endif
