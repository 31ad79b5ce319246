/* reckon.h: what two successive looks at a thread, with their counters, prove of the time between them. */
#ifndef IPCLAB_RECKON_H
#define IPCLAB_RECKON_H

#include "followed.h"

/*
 * Applies a look to the thread's timeline and makes it the last one; poll leads. a is the look before, b this one:
 *   n   slices given between them      r   time on a CPU      w   time waited, as far as it ended in a slice
 * A thread on a CPU at a leaves it at exactly a + r if n is 0. One that has a CPU at b and n is 1 got it at b - r. One that
 * waited since q, and n is 1, got its CPU at q + w. Of n slices only the ends that lie in the drawn are counted as seen.
 */
void reckon(struct thread *thread, struct spans *out, const struct look *look);

#endif
