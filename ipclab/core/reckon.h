/* reckon.h: what two successive looks at a thread, with their counters, prove of the time between them. */
#ifndef IPCLAB_RECKON_H
#define IPCLAB_RECKON_H

#include "followed.h"

/*
 * Applies a look to the thread's timeline and makes it the last one; poll leads. a is the look before, b this one:
 *   n   slices given between them      r   time on a CPU, as booked      w   time waited, as far as it ended in a slice
 *
 * When the kernel books: w when a CPU is given; the time on a CPU at every tick, and *always when it is lost*. So
 *   - n = 0 and r = 0 means that nothing happened: who slept sleeps, who ran runs, who waited waits;
 *   - who does not run is booked to the nanosecond;
 *   - who runs is booked up to the last tick at least: `booked_to` is that moment, counted from where its slice began. A
 *     slice's end is then booked_to + r, whenever it is found out;
 *   - who is runnable and has not been booked for longer than a tick waits, since booked_to.
 * An edge that is known to lie between two moments is put into the middle, with half of the room as its slack; of a
 * slice that began and ended between looks the length is exact, the place is not.
 */
void reckon(struct thread *thread, struct spans *out, const struct look *look, int64_t tick_ns);
/* How often the kernel books, on this machine. */
int64_t tick_of_the_kernel(void);

#endif
