/*
 * sema.c: a counting semaphore with a queue, and mutex and wait group over it. See chan.h.
 *
 * The count is taken by CAS without a lock while there is enough. A sleeper counts itself in nwait and then tries once
 * more; who releases adds to the count and then looks at nwait: one of them sees the other (both are seq_cst).
 *
 * The mutex is Go's: in normal mode a waiter that is woken competes with whoever comes by, which is fast; one that has
 * waited for 1 ms switches the mutex to starvation mode, where it is handed over in order of arrival.
 */
#define _GNU_SOURCE
#include "chan.h"
#include "lock_futex.h"
#include "point.h"
#include "proc.h"
#include "runq.h"

#define STARVES_AFTER_NS INT64_C(1000000)

/* g->mutexflags */
#define AWOKE 1u
#define STARVING 2u
#define QUEUED 4u /* has slept: it goes to the front of the queue */

static bool cansemacquire(struct gmp *rt, struct sema *s)
{
	uint32_t value = load_seq_cst(&s->value);

	while (value > 0)
		if (cas_seq_cst(&s->value, &value, value - 1)) {
			POINT(rt, "cansemacquire.taken");
			return true;
		}
	return false;
}

static enum waited semacquireAs(struct gmp *rt, uint32_t g, struct sema *s, bool first, enum wait_reason why)
{
	if (cansemacquire(rt, s))
		return WAIT_DONE;
	lock(rt, &s->lock);
	store_seq_cst(&s->nwait, load_relaxed(&s->nwait) + 1);
	POINT(rt, "semacquire.counted");
	if (cansemacquire(rt, s)) {
		store_seq_cst(&s->nwait, load_relaxed(&s->nwait) - 1);
		POINT(rt, "semacquire.uncounted");
		unlock(rt, &s->lock);
		return WAIT_DONE;
	}
	waitqPut(rt, &s->q, ownSudog(rt, g, 0, false, 0), first);
	POINT(rt, "semacquire.queued");
	gopark(rt, g, why);
	unlock(rt, &s->lock);
	return WAIT_PARKED;
}

enum waited semacquire(struct gmp *rt, uint32_t g, struct sema *s)
{
	return semacquireAs(rt, g, s, false, waitReasonSemacquire);
}

static bool acquired(struct gmp *rt, uint32_t g, struct sema *s)
{
	return load_relaxed(&G(rt, g)->sg.ticket) || cansemacquire(rt, s);
}

enum waited semacquireResume(struct gmp *rt, uint32_t g, struct sema *s)
{
	return acquired(rt, g, s) ? WAIT_DONE : semacquireAs(rt, g, s, false, waitReasonSemacquire);
}

bool semrelease(struct gmp *rt, struct sema *s, bool handoff)
{
	uint32_t sg, ticket;

	add_seq_cst(&s->value, 1);
	POINT(rt, "semrelease.added");
	if (load_seq_cst(&s->nwait) == 0)
		return false;
	lock(rt, &s->lock);
	sg = waitqFirst(rt, &s->q);
	if (!sg) {
		unlock(rt, &s->lock);
		return false;
	}
	ticket = handoff && cansemacquire(rt, s);
	store_relaxed(&sudogOf(rt, sg)->ticket, (uint8_t)ticket);
	store_relaxed(&sudogOf(rt, sg)->success, 1);
	waitqServe(rt, &s->q, sg);
	store_seq_cst(&s->nwait, load_relaxed(&s->nwait) - 1);
	POINT(rt, "semrelease.uncounted");
	unlock(rt, &s->lock);
	POINT(rt, "semrelease.unlocked");
	ready(rt, sg, true); /* a semaphore's sudogs are the Gs' own: sg is g */
	return ticket;
}

/* --- mutex --- */

/* The semaphore is ours; is the mutex? If not, compete for it, or, in starvation mode, be first in the queue. */
static bool gotSema(struct gmp *rt, uint32_t g, struct sema *s)
{
	struct g *gp = G(rt, g);
	uint32_t old = load_seq_cst(&s->state), delta = MUTEX_LOCKED - WAITER_ONE;

	gp->mutexflags |= QUEUED;
	if (nanotime() - gp->since > STARVES_AFTER_NS)
		gp->mutexflags |= STARVING;
	if (!(old & MUTEX_STARVING)) {
		gp->mutexflags |= AWOKE;
		return false;
	}
	/* Handed over: it is unlocked, nobody else may take it, and we are still counted as waiting. */
	if (!(gp->mutexflags & STARVING) || old / WAITER_ONE == 1)
		delta -= MUTEX_STARVING;
	add_seq_cst(&s->state, delta);
	POINT(rt, "mutex.handed");
	store_relaxed(&s->holder, g);
	POINT(rt, "mutex.handed.holder");
	return true;
}

static enum waited lockSlow(struct gmp *rt, uint32_t g, struct sema *s)
{
	struct g *gp = G(rt, g);
	uint32_t old = load_seq_cst(&s->state);

	for (;;) {
		uint32_t new = old;

		if (!(old & MUTEX_STARVING))
			new |= MUTEX_LOCKED;
		if (old & (MUTEX_LOCKED | MUTEX_STARVING))
			new += WAITER_ONE;
		if (gp->mutexflags & STARVING && old & MUTEX_LOCKED)
			new |= MUTEX_STARVING;
		if (gp->mutexflags & AWOKE)
			new &= ~MUTEX_WOKEN;
		if (!cas_seq_cst(&s->state, &old, new))
			continue;
		POINT(rt, "mutex.counted");
		if (!(old & (MUTEX_LOCKED | MUTEX_STARVING))) {
			store_relaxed(&s->holder, g);
			POINT(rt, "mutex.slow.holder");
			return WAIT_DONE;
		}
		if (!gp->since)
			gp->since = nanotime();
		if (semacquireAs(rt, g, s, gp->mutexflags & QUEUED, waitReasonSyncMutexLock) == WAIT_PARKED)
			return WAIT_PARKED;
		if (gotSema(rt, g, s))
			return WAIT_DONE;
		old = load_seq_cst(&s->state);
	}
}

enum waited mutexLock(struct gmp *rt, uint32_t g, struct sema *s)
{
	uint32_t unlocked = 0;

	if (cas_seq_cst(&s->state, &unlocked, MUTEX_LOCKED)) {
		POINT(rt, "mutex.fast");
		store_relaxed(&s->holder, g);
		POINT(rt, "mutex.fast.holder");
		return WAIT_DONE;
	}
	G(rt, g)->since = 0;
	G(rt, g)->mutexflags = 0;
	store_relaxed(&s->kind, SEMA_MUTEX);
	POINT(rt, "mutex.kind");
	return lockSlow(rt, g, s);
}

enum waited mutexLockResume(struct gmp *rt, uint32_t g, struct sema *s)
{
	if (!acquired(rt, g, s) && semacquireAs(rt, g, s, true, waitReasonSyncMutexLock) == WAIT_PARKED)
		return WAIT_PARKED;
	return gotSema(rt, g, s) ? WAIT_DONE : lockSlow(rt, g, s);
}

int mutexUnlock(struct gmp *rt, struct sema *s)
{
	uint32_t old, new;

	store_relaxed(&s->holder, 0);
	POINT(rt, "mutex.noholder");
	old = add_seq_cst(&s->state, -MUTEX_LOCKED);
	POINT(rt, "mutex.unlocked");
	if (!(old & MUTEX_LOCKED))
		return -1;
	old -= MUTEX_LOCKED;
	if (old == 0)
		return 0;
	if (old & MUTEX_STARVING)
		return semrelease(rt, s, true);
	do {
		if (old / WAITER_ONE == 0 || old & (MUTEX_LOCKED | MUTEX_WOKEN | MUTEX_STARVING))
			return 0;
		new = (old - WAITER_ONE) | MUTEX_WOKEN;
	} while (!cas_seq_cst(&s->state, &old, new));
	POINT(rt, "mutex.woken");
	return semrelease(rt, s, false);
}

/* --- wait group: state is the counter --- */

bool waitgroupAdd(struct gmp *rt, struct sema *s, int32_t delta)
{
	struct gQueue woken = {0};
	int32_t counter;

	if (load_relaxed(&s->kind) != SEMA_WAITGROUP) /* first: a count without it is a mutex's state to the repairer */
		store_relaxed(&s->kind, SEMA_WAITGROUP);
	POINT(rt, "waitgroup.kind");
	counter = (int32_t)(add_seq_cst(&s->state, (uint32_t)delta) + (uint32_t)delta);
	POINT(rt, "waitgroup.added");
	if (counter != 0 || load_seq_cst(&s->nwait) == 0)
		return counter >= 0;
	POINT(rt, "waitgroup.zero");
	lock(rt, &s->lock);
	for (uint32_t sg; load_seq_cst(&s->state) == 0 && (sg = waitqFirst(rt, &s->q));) {
		waitqServe(rt, &s->q, sg);
		store_seq_cst(&s->nwait, load_relaxed(&s->nwait) - 1);
		POINT(rt, "waitgroup.served");
		queuePushBack(rt, &woken, sg);
	}
	unlock(rt, &s->lock);
	POINT(rt, "waitgroup.unlocked");
	readylist(rt, &woken);
	return true;
}

enum waited waitgroupWait(struct gmp *rt, uint32_t g, struct sema *s)
{
	if (load_seq_cst(&s->state) == 0)
		return WAIT_DONE;
	lock(rt, &s->lock);
	store_seq_cst(&s->nwait, load_relaxed(&s->nwait) + 1);
	POINT(rt, "waitgroup.counted");
	if (load_seq_cst(&s->state) == 0) {
		store_seq_cst(&s->nwait, load_relaxed(&s->nwait) - 1);
		POINT(rt, "waitgroup.uncounted");
		unlock(rt, &s->lock);
		return WAIT_DONE;
	}
	waitqPut(rt, &s->q, ownSudog(rt, g, 0, false, 0), false);
	gopark(rt, g, waitReasonSyncWaitGroupWait);
	unlock(rt, &s->lock);
	return WAIT_PARKED;
}
