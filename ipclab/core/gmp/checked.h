/*
 * checked.h: the cardinalities of G, M and P, asserted while the scheduler runs. In the shipped library they are nothing.
 *
 *   M to kernel entity  1:1 for life: the thread id and start time that an M had at its first step are those it has now,
 *                       and no other M has them
 *   M to P              1:1 while bound, said by both: m.p, p.m; nobody else has this P, or is about to be given it
 *   P to G              1:n: a G is on one run queue at most: g.queued names it
 *   M to G              g.m and m.curg name each other; a G that runs is on no queue; an M between two Gs has none
 *   idle lists          as long as their counts say; a P on it has an empty run queue and no M; an M on it has nothing
 *   spinning            an M that spins is counted; when all are idle nobody is
 *
 * IPCLAB_CHECKED turns them on: the tests' builds have it (cmake -DIPCLAB_CHECKED=ON: the library too). What fails is a
 * throw whose text begins with file and line. Checks that read other Ms' records read what is ordered before by the lock
 * or queue through which this M got the P or G; those of counts hold sched.lock, and are left out while the gate is
 * closed, because counts are wrong from a death to its repair.
 */
#ifndef IPCLAB_GMP_CHECKED_H
#define IPCLAB_GMP_CHECKED_H

#include "runtime2.h"

#define QUEUED_NOWHERE 0u
#define QUEUED_GLOBAL UINT32_MAX /* else the P + 1 */

#ifdef IPCLAB_CHECKED
#define IS_CHECKED 1
_Noreturn void checkFailed(struct gmp *rt, const char *file, int line, const char *what);
void checkQueued(struct gmp *rt, uint32_t g, uint32_t from, uint32_t to, const char *file, int line);
void checkBirth(struct gmp *rt);   /* by an M, first of all */
void checkSelf(struct gmp *rt);    /* by an M between two Gs */
void checkBound(struct gmp *rt);   /* by an M with a P in _Prunning */
void checkRuns(struct gmp *rt, uint32_t g); /* by an M that has begun to run it */
void checkIdle(struct gmp *rt);    /* sched.lock */
void checkAllIdle(struct gmp *rt); /* sched.lock, and no M runs */

#define ALWAYS(rt, holds, what)                                          \
	do {                                                             \
		if (!(holds))                                            \
			checkFailed((rt), __FILE__, __LINE__, (what));   \
	} while (0)
#define QUEUED(rt, g, from, to) checkQueued((rt), (g), (from), (to), __FILE__, __LINE__)
#define REQUEUED(rt, g, where) store_relaxed(&G((rt), (g))->queued, (where)) /* repair: whatever was said before */
#else
#define IS_CHECKED 0
#define ALWAYS(rt, holds, what) ((void)0)
#define QUEUED(rt, g, from, to) ((void)0)
#define REQUEUED(rt, g, where) ((void)0)
#define checkBirth(rt) ((void)0)
#define checkSelf(rt) ((void)0)
#define checkBound(rt) ((void)0)
#define checkRuns(rt, g) ((void)0)
#define checkIdle(rt) ((void)0)
#define checkAllIdle(rt) ((void)0)
#endif

#endif
