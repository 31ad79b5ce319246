/*
 * poll.h: looks at threads through /proc, as few as the truth allows. What two looks prove stands in reckon.h.
 *
 * Reading the CPU clock of a process (clock_gettime(2) with an id made of its pid, allowed for every process) costs a
 * third of reading schedstat and a sixth of reading stat, and makes the kernel book the time of what runs this moment.
 * So a round asks that clock first:
 *   - it stands still, and all threads slept at the last look: they still sleep (a thread cannot leave a sleep, stop or
 *     die without running), or one was woken and waits for a CPU. That is found out in arrears by wait_ns, and, lest it
 *     be late by more than a moment, by reading the stat of a few of them in turn;
 *   - one thread, that ran, and the clock went on as the wall's: it ran on. Nothing is read;
 *   - else schedstat, and stat unless schedstat says that this thread did not run.
 * A zombie does not run and can vanish, so its stat is read each time. One that others can fork is seen by the last pid
 * in /proc/loadavg: while it does not move nobody has forked, and nobody's children need be listed.
 */
#ifndef IPCLAB_POLL_H
#define IPCLAB_POLL_H

#include "tracker.h"

/* A look at every process that needs one, and for new threads and children. */
void poll_round(struct tracker *tracker);
/* A look at this process at once. */
void poll_process(struct tracker *tracker, struct process *process);
#endif
