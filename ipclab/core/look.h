/*
 * look.h: one look at one thread through /proc, and what it sleeps in. Guard: the tracker's lock.
 */
#ifndef IPCLAB_LOOK_H
#define IPCLAB_LOOK_H

#include "tracker.h"

int read_counters(struct tracker *tracker, struct thread *thread, struct schedstat *counters);
int read_stat(struct tracker *tracker, struct thread *thread, struct procstat *stat);
/* Reads what the kernel counted for this thread, at the end of its record or at its begin. */
void read_switches(struct tracker *tracker, struct thread *thread, int at_end);
/* Looks: schedstat, and stat if it ran or `must_stat`; `stat` is filled only then. 0, or -ESRCH: it is gone. */
int look_at(struct tracker *tracker, struct thread *thread, int must_stat, struct procstat *stat);
/* Its record ends; it is dropped by drop_gone. */
void thread_gone(struct tracker *tracker, struct thread *thread, int64_t at_ns);
/* Whether it sleeps, long enough to be asked what in, and has not been asked. */
int wants_names(const struct thread *thread, int64_t now_ns);
void ask_names(struct tracker *tracker, struct thread *thread);

#endif
