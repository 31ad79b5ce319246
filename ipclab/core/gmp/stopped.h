/* stopped.h: Ms that do not answer. See stopped.c. */
#ifndef IPCLAB_GMP_STOPPED_H
#define IPCLAB_GMP_STOPPED_H

#include <sys/syscall.h>
#include <unistd.h>

#include "runtime2.h"

#define STALLED_NS INT64_C(1000000000) /* who is waited for as long as this is named */

/* To the M's first thread, which runs the G: others that a G's code has started know nothing of it. */
static inline void signalM(int32_t pid)
{
	(void)syscall(SYS_tgkill, pid, pid, SIGURG);
}

/*
 * If the M that has this P stands still in its G's own code, the P is put into _Psyscall in its name; true then. It is
 * sent SIGURG first, so that it does not execute one more instruction of that code without a P. sched.lock not held.
 */
bool takeFromStopped(struct gmp *rt, struct p *pp);

/* Into its record, if it holds others up: it stands still inside the runtime, or runs its G's code with a P although it
 * was asked for it a second ago. Again with every call, so that the state is that of now. */
void nameLate(struct gmp *rt, uint32_t m);
void nameAll(struct gmp *rt); /* nameLate, of all Ms */
void nameInside(struct gmp *rt, uint32_t m); /* known to be inside */
uint32_t nameHolder(struct gmp *rt, uint32_t tid); /* of a lock: the M if it stands still, else 0 */
void unname(struct gmp *rt, uint32_t m);
void unnameAll(struct gmp *rt);

#endif
