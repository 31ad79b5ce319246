/*
 * apply.h: what was told, applied to the timelines. timeline.h has the rules; the numbers below are those.
 *
 * Death, as the scheduler tells it: EXIT, then the last OFF, whose state is Z, or X when nobody has to wait for it (its
 * parent ignores SIGCHLD, it was a thread, or the parent was quicker). Z ends when a parent's wait takes it: WAIT tells of
 * every wait that begins, for this child or for any; one that had begun before goes on when the parent is ON again. FREE
 * is the end of X, some milliseconds later (an RCU grace period). `switch` tells EXIT and OFF; the rest are looks.
 */
#ifndef IPCLAB_APPLY_H
#define IPCLAB_APPLY_H

#include "tracker.h"

/* Reads all sources of events and applies what is told of the time up to `until_ns`. */
void apply_events(struct tracker *tracker, int64_t until_ns);
/* A look at a thread led by events: it is named by what was seen, once nothing told before can end its interval. */
void settle_note(struct tracker *tracker, struct thread *thread, int64_t until_ns);
/* Threads that /proc has no more and whose last events have been applied end. */
void end_vanished(struct tracker *tracker, int64_t now_ns);
/* The leading source broke: looks lead from now on. */
void demote_all(struct tracker *tracker, int error);

#endif
