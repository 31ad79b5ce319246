/*
 * schedtrace.h: the scheduler's state as text in Go 1.25's format (GODEBUG=schedtrace, scheddetail), from any process that
 * has the segment mapped, also read-only.
 *
 * No lock is taken: an observer that dies or is stopped must not hold one. Each word is read once; words that change
 * together may be from different moments, as in Go, where the Ps' words change while sched.lock is held.
 */
#ifndef IPCLAB_GMP_SCHEDTRACE_H
#define IPCLAB_GMP_SCHEDTRACE_H

#include "runtime2.h"

/* Writes at most size bytes, the last one a NUL; returns how long the whole text is (as snprintf), or -EINVAL. */
int64_t schedtrace(struct gmp *rt, bool detailed, char *into, size_t size);

#endif
