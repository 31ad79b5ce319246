/*
 * sync.h: process-shared synchronisation objects that live in a segment: the robust lock, and a barrier with a
 * deadline. (The unnamed semaphore is libc's sem_t, used as it is. There is no condition variable: glibc's keeps its
 * waiters in groups, and a signaller waits for a group that a killed waiter never leaves; a word and a futex do.)
 *
 * Each returns >= 0 or -errno. Deadlines are absolute CLOCK_MONOTONIC nanoseconds, negative for none.
 */
#ifndef IPCLAB_SYNC_H
#define IPCLAB_SYNC_H

#include <pthread.h>
#include <stdint.h>

#include "barrier.h"

/*
 * The robust lock. When its holder dies the kernel walks the robust list that glibc keeps per thread, marks the word
 * and wakes one waiter, who gets the lock together with the news. (Our own set_robust_list would replace glibc's list
 * and break this for everybody: it is never called.)
 *
 *   free --acquire--> held --release--> free
 *                      | holder dies
 *                      v
 *             held by the next one, who is told --consistent, release--> free
 *                      | release without consistent
 *                      v
 *              not recoverable, for ever (-ENOTRECOVERABLE)
 */
struct lock {
	pthread_mutex_t mutex;
	/* guard: mutex. writer: the holder, after acquiring and before releasing. unit: thread id; 0 is nobody.
	 * A dead holder's id stays until the next one has acquired. Anybody may read it as a hint. */
	_Atomic uint32_t owner_tid;
};

enum lock_result { LOCK_OK = 0, LOCK_OWNER_DIED = 1 };

int lock_init(struct lock *lock);
/* LOCK_OK, LOCK_OWNER_DIED (ours too; *dead_tid, if given, is who died), -ETIMEDOUT, -EDEADLK, -ENOTRECOVERABLE. */
int lock_acquire(struct lock *lock, int64_t deadline_ns, uint32_t *dead_tid);
int lock_consistent(struct lock *lock);
int lock_release(struct lock *lock); /* -EPERM: not the owner */

/*
 * The barrier: `parties` processes meet, again and again. pthread_barrier_t knows neither a deadline nor a broken
 * barrier, so a party that dies hangs the others for ever; this one can be given both.
 *
 * One word holds the whole state, so that a kill between two instructions cannot tear it:
 *   bit 31 broken | bits 16..30 round | bits 0..15 arrived
 * The last to arrive adds a round and clears `arrived` in one compare-and-swap, then wakes everybody. A waiter sleeps
 * while the word is what it saw and looks whether the round has changed.
 */
struct pbarrier {
	_Atomic uint32_t word;
	uint32_t parties; /* constant after init; 1..65535 */
};

int pbarrier_init(struct pbarrier *barrier, uint32_t parties);
/* The order of arrival, 0 first; -ETIMEDOUT (withdrawn from the round), -EPIPE (broken), -EINTR (withdrawn too). */
int pbarrier_wait(struct pbarrier *barrier, int64_t deadline_ns);
void pbarrier_break(struct pbarrier *barrier);

#endif
