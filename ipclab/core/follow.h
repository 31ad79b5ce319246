/*
 * follow.h: how processes and threads come to be followed, and how they are dropped. Guard: the tracker's lock.
 */
#ifndef IPCLAB_FOLLOW_H
#define IPCLAB_FOLLOW_H

#include "tracker.h"

/* When one was born: an event told it, or (SOURCE_POLL) it was not there yet at `at_ns`. */
struct birth {
	int64_t at_ns;
	uint8_t source;
};

/* Begins to follow; `birth` NULL: it lived before. 0, 1: already followed, -ESRCH: it is gone, or another -errno. */
int follow(struct tracker *tracker, pid_t pid, const struct birth *birth);
/* One thread of it, that is not followed yet. */
int add_one_thread(struct tracker *tracker, struct process *process, pid_t tid, const struct birth *birth);
/* Threads of the process that are not followed yet; how many were added. */
int add_threads(struct tracker *tracker, struct process *process, const struct birth *birth);
/* Children of one thread that are not followed yet; born since the last round. */
void follow_children(struct tracker *tracker, struct thread *thread);
/* Drops the threads that are gone; 1: the process went with the last of them. */
int drop_gone(struct tracker *tracker, struct process *process);

#endif
