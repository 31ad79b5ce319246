/*
 * poll.h: looks at threads through /proc, as few as the truth allows. What two looks prove stands in reckon.h.
 *
 * A look reads schedstat, which costs a quarter of stat. Only if something was booked or a CPU was given is stat read:
 * nobody can fall asleep, leave a sleep, stop or die without running, and whoever ran is booked when he stops.
 * What schedstat cannot tell: one was woken and waits for a CPU. That is found out in arrears by wait_ns, to the
 * nanosecond, and, lest it be late by more than a moment, by reading the stat of a few sleepers in turn. A zombie
 * does not run and can vanish, so its stat is read each time.
 *
 * Rejected: the CPU clock of a process (clock_gettime(2) with an id made of its pid) as the first question. It costs half
 * of schedstat, and does not count what runs this moment (thread_group_cputime syncs the calling process alone): one that
 * was woken and runs is not seen before the next tick, 4 ms later.
 *
 * That others fork is seen by the last pid in /proc/loadavg: while it does not move nobody has forked, and nobody's
 * children need be listed.
 */
#ifndef IPCLAB_POLL_H
#define IPCLAB_POLL_H

#include "tracker.h"

/* A look at every process that needs one, and for new threads and children. */
void poll_round(struct tracker *tracker);

#endif
