/* sync.c: see sync.h. */
#define _GNU_SOURCE
#include "sync.h"

#include <errno.h>
#include <limits.h>
#include <unistd.h>

#include "futex.h"

/* gcc 12's ThreadSanitizer does not know this call; it must be told that it takes the mutex. */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
static int clocklock(pthread_mutex_t *mutex, const struct timespec *at)
{
	int rc;

	__tsan_mutex_pre_lock(mutex, 0);
	rc = pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, at);
	__tsan_mutex_post_lock(mutex, rc && rc != EOWNERDEAD ? __tsan_mutex_try_lock_failed : 0, 0);
	return rc;
}
#else
static int clocklock(pthread_mutex_t *mutex, const struct timespec *at)
{
	return pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, at);
}
#endif

int lock_init(struct lock *lock)
{
	pthread_mutexattr_t attr;
	int rc = pthread_mutexattr_init(&attr);

	if (rc)
		return -rc;
	rc = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	if (!rc)
		rc = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	if (!rc)
		rc = pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
	if (!rc)
		rc = pthread_mutex_init(&lock->mutex, &attr);
	pthread_mutexattr_destroy(&attr);
	store_relaxed(&lock->owner_tid, 0);
	return -rc;
}

/* What a pthread call that took the mutex returned, as the core says it; records the new owner. */
static int taken(struct lock *lock, int rc, uint32_t *dead_tid)
{
	if (rc && rc != EOWNERDEAD)
		return -rc;
	if (rc == EOWNERDEAD && dead_tid)
		*dead_tid = load_relaxed(&lock->owner_tid);
	store_relaxed(&lock->owner_tid, (uint32_t)gettid());
	return rc ? LOCK_OWNER_DIED : LOCK_OK;
}

/* No pthread_mutex_trylock first: glibc's (2.36) leaves a mutex that it calls not recoverable taken, by the caller. */
int lock_acquire(struct lock *lock, int64_t deadline_ns, uint32_t *dead_tid)
{
	struct timespec at = timespec_of_ns(deadline_ns < 0 ? 0 : deadline_ns);

	return taken(lock, deadline_ns < 0 ? pthread_mutex_lock(&lock->mutex) : clocklock(&lock->mutex, &at), dead_tid);
}

int lock_consistent(struct lock *lock)
{
	return -pthread_mutex_consistent(&lock->mutex);
}

int lock_release(struct lock *lock)
{
	if (load_relaxed(&lock->owner_tid) != (uint32_t)gettid())
		return -EPERM;
	store_relaxed(&lock->owner_tid, 0);
	return -pthread_mutex_unlock(&lock->mutex);
}

#define BROKEN UINT32_C(0x80000000)
#define ROUND_ONE UINT32_C(0x00010000)
#define ROUNDS UINT32_C(0x7fff0000)
#define ARRIVED UINT32_C(0x0000ffff)

int pbarrier_init(struct pbarrier *barrier, uint32_t parties)
{
	if (parties < 1 || parties > ARRIVED)
		return -EINVAL;
	store_relaxed(&barrier->word, 0);
	barrier->parties = parties;
	return 0;
}

/* Takes back an arrival in `round`; 0, or 1 when the round was over in the meantime. */
static int withdraw(struct pbarrier *barrier, uint32_t round)
{
	uint32_t word = load_seq_cst(&barrier->word);

	do {
		if ((word & BROKEN) || (word & ROUNDS) != round)
			return 1;
	} while (!cas_seq_cst(&barrier->word, &word, word - 1));
	return 0;
}

int pbarrier_wait(struct pbarrier *barrier, int64_t deadline_ns)
{
	uint32_t word = load_seq_cst(&barrier->word), next, round;
	int order, rc;

	do {
		if (word & BROKEN)
			return -EPIPE;
		round = word & ROUNDS;
		order = (int)(word & ARRIVED);
		next = (uint32_t)order + 1 == barrier->parties ? (round + ROUND_ONE) & ROUNDS : word + 1;
	} while (!cas_seq_cst(&barrier->word, &word, next));
	if ((uint32_t)order + 1 == barrier->parties) {
		futex_wake(&barrier->word, INT_MAX);
		return order;
	}
	for (word = next; (word & ROUNDS) == round; word = load_seq_cst(&barrier->word)) {
		if (word & BROKEN)
			return -EPIPE;
		rc = futex_wait_until(&barrier->word, word, deadline_ns);
		if ((rc == -ETIMEDOUT || rc == -EINTR) && withdraw(barrier, round) == 0)
			return rc;
	}
	return order;
}

void pbarrier_break(struct pbarrier *barrier)
{
	atomic_fetch_or_explicit(&barrier->word, BROKEN, memory_order_seq_cst);
	futex_wake(&barrier->word, INT_MAX);
}
