/* observe.h: a look at everything while it stands still, by a process that cannot write. See observe.c. */
#ifndef IPCLAB_GMP_OBSERVE_H
#define IPCLAB_GMP_OBSERVE_H

#include "runtime2.h"

enum observe_wish { OBSERVE_HOLD, OBSERVE_RELEASE };

/* The template's side: takes the signal; does what is wished for. observeServe: true if anything was done. */
void observeInstall(struct gmp *rt);
void observeForget(void); /* in an M: the signal is not its business */
bool observeServe(struct gmp *rt);

struct observed {
	bool consistent;    /* the scheduler stood still while it was copied, or nothing runs any more */
	bool held;          /* it was made to stand still for this */
	int64_t stopped_ns; /* how long it stood still, until the copy was made */
	uint32_t inside;    /* why it could not be held: this M is inside the runtime and does not come out; 0: another reason */
	int error;          /* why it could not be held: -errno of the signal, -ETIMEDOUT: the template did not answer */
};

/*
 * gmp_copy (gmp.h) of a scheduler that stands still meanwhile. If it cannot be made to before the deadline the copy is
 * made all the same, and `told` says why it is not consistent. -EINTR after a signal: nothing is held, try again.
 */
int gmp_observe(struct gmp *copy, const struct gmp *from, uint32_t most, int64_t deadline_ns, struct observed *told);

#endif
