/* template.h: who makes Ms, reaps them, and repairs what they leave. See template.c and repair.c. */
#ifndef IPCLAB_GMP_TEMPLATE_H
#define IPCLAB_GMP_TEMPLATE_H

#include "runtime2.h"

int templateStart(struct gmp *rt);
/* Ends the template and with it all Ms. */
void templateStop(struct gmp *rt);
/* 0, or -ECHILD when it is not there any more. */
int templateLook(struct gmp *rt);
/* Marks the dead as M_DIED, or M_REPAIRED if they went in good order. True: somebody was reaped. */
bool templateReap(struct gmp *rt, bool *died);
/* Ms have died in the middle of something: stops the others at the gate, mends, goes on. By the template alone. */
void repair(struct gmp *rt);
/* The template waits for a lock: perhaps of somebody who has died since. */
void templateLockLook(struct gmp *rt);
/* rebuild.c: with everybody outside: makes queues, lists and counts true again, from allgs and allm. */
void rebuild(struct gmp *rt);
bool mLives(struct gmp *rt, uint32_t m);
/* wake.c: Gs that a dead waker has left asleep. */
void rebuildWaits(struct gmp *rt);
/* lend.c: a priority to a process, or to an M; what it had before, or -1: nothing was lent. */
int lend(pid_t pid);
void takeBack(int policy, pid_t pid);
void lendTo(struct gmp *rt, uint32_t m);
void takeBackFrom(struct gmp *rt, uint32_t m);
/* invariant.c: what is wrong while everybody is outside, or NULL. In the tests' build only. */
const char *brokenInvariant(struct gmp *rt);

#endif
