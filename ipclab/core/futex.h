/*
 * futex.h: the two system calls every sleep in the core ends in (futex(2)), and the clock they use.
 *
 * The words are shared between processes, so FUTEX_PRIVATE_FLAG is never set. Deadlines are absolute, on
 * CLOCK_MONOTONIC, in nanoseconds; NO_DEADLINE (negative) is never.
 */
#ifndef IPCLAB_FUTEX_H
#define IPCLAB_FUTEX_H

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "barrier.h"

#define NO_DEADLINE ((int64_t)-1)
#define NS_PER_S INT64_C(1000000000)

static inline int64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NS_PER_S + now.tv_nsec;
}

static inline struct timespec timespec_of_ns(int64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

/* Sleeps while *word == expected. 0: woken (perhaps spuriously); -EAGAIN: it was not; -ETIMEDOUT; -EINTR. */
static inline int futex_wait_until(_Atomic uint32_t *word, uint32_t expected, int64_t deadline_ns)
{
	struct timespec at = timespec_of_ns(deadline_ns < 0 ? 0 : deadline_ns);
	long rc = syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected, deadline_ns < 0 ? NULL : &at, NULL,
			  FUTEX_BITSET_MATCH_ANY);

	return rc < 0 ? -errno : 0;
}

/* Wakes at most `count` sleepers; returns how many there were. */
static inline int futex_wake(_Atomic uint32_t *word, int count)
{
	long rc = syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);

	return rc < 0 ? -errno : (int)rc;
}

#endif
