/*
 * preempt.c: a G that is stopped in the middle of its own code, on the side of the M that runs it. The invariant, and
 * why it holds, is in the essay in proc.c ("Stopped at any instruction"); the other side is stopped.c.
 *
 *   SIGURG --> outside the runtime, with a P, locks 0?  no: noted, taken as soon as that is so (preemptTake)
 *                | yes: in the handler, on the G's own stack
 *                v
 *              enterRuntime --- its P is gone (M_ROBBED): as out of a system call: another P, or wait for one ----+
 *                |                                                                                            |
 *              nobody waits for this P: a new time slice, and on                                              |
 *                |                                                                                            |
 *              the G locked to this M, onto the global queue; the P handed off; asleep (stoplockedm)          |
 *                |    ... somebody takes the G from the queue, gives us his P (startlockedm) ...              |
 *              execute; unlocked again; leaveRuntime <---------------------------------------------------------+
 *                v
 *              the handler returns to the very instruction
 */
#define _GNU_SOURCE
#include "events.h"
#include "lock_futex.h"
#include "point.h"
#include "proc.h"
#include "runq.h"

/* The G's continuation is this M's stack for a while: as if it had called LockOSThread. */
static void bindHere(struct gmp *rt, uint32_t g)
{
	store_relaxed(&G(rt, g)->lockedm, M_INDEX(rt, rt->m));
	POINT(rt, "preempt.lockedm");
	store_relaxed(&rt->m->lockedg, g);
	POINT(rt, "preempt.lockedg");
}

static void unbind(struct gmp *rt, uint32_t g)
{
	if (G(rt, g)->lockedExt)
		return; /* by its own wish */
	store_relaxed(&G(rt, g)->lockedm, 0);
	POINT(rt, "preempt.unlockedm");
	store_relaxed(&rt->m->lockedg, 0);
	POINT(rt, "preempt.unlockedg");
}

/* What a round of schedule would find before it found this G again. */
static bool somebodyWaits(struct gmp *rt)
{
	int64_t when = load_seq_cst(&rt->p->timers.minWhen);

	return load_seq_cst(&rt->s->gcwaiting) || !runqempty(rt->p) || load_seq_cst(&rt->s->runq.size) ||
	       (when && when <= nanotime());
}

/* Our P is one of those that the stopper counts, unless he has been lost meanwhile. */
static void stopOwnP(struct gmp *rt)
{
	lock(rt, &rt->s->lock);
	if (load_seq_cst(&rt->s->gcwaiting))
		worldstopped(rt, P(rt, releasep(rt)));
	unlock(rt, &rt->s->lock);
}

/* In the runtime, on the M that runs g, in the middle of g's code: comes back when g has a P again. */
static void preemptPark(struct gmp *rt, uint32_t g)
{
	if (!somebodyWaits(rt)) {
		store_relaxed(&G(rt, g)->preempt, 0);
		count_up(&rt->p->schedtick);
		return;
	}
	add_relaxed(&rt->s->parks, 1);
	bindHere(rt, g);
	gosched(rt, g, true);
	if (load_seq_cst(&rt->s->gcwaiting))
		stopOwnP(rt);
	stoplockedm(rt);
	execute(rt, g, false);
	unbind(rt, g);
}

/*
 * Back in the runtime, and somebody had laid hands on our P. He holds sched.lock from the mark on M.where until he has
 * done. If he died over it we may be here before the repairer: then what the two records say of each other counts.
 */
void robbed(struct gmp *rt)
{
	struct m *mp = rt->m;
	uint32_t g = load_relaxed(&mp->curg), p;
	bool gone;

	if (!rt->p)
		return; /* out of a system call: there was nothing to take */
	lock(rt, &rt->s->lock);
	p = load_relaxed(&mp->p);
	gone = !p || load_relaxed(&P(rt, p)->m) != M_INDEX(rt, mp);
	if (gone)
		store_relaxed(&mp->p, 0);
	else if (load_relaxed(&G(rt, g)->atomicstatus) == _Gsyscall)
		casgstatus(rt, g, _Gsyscall, _Grunning);
	POINT(rt, "robbed.seen");
	unlock(rt, &rt->s->lock);
	if (!gone)
		return;
	rt->p = NULL;
	eventWho(rt);
	bindHere(rt, g);
	if (!regainP(rt))
		throw(rt, "robbed: a locked G without a P");
	unbind(rt, g);
}

void preemptTake(struct gmp *rt)
{
	uint32_t g = load_relaxed(&rt->m->curg);

	do {
		rt->preempted = 0;
		enterRuntime(rt);
		if (rt->p && load_relaxed(&G(rt, g)->preempt))
			preemptPark(rt, g);
		leaveRuntime(rt, M_USER);
	} while (rt->preempted); /* noted while we were inside */
}

/*
 * SIGURG's handler. It may come again while it runs: inside the runtime that is noted, outside it is one more look at the
 * same words, from deeper in the stack. Other threads of a G's code have nothing to do with it, nor has a child that it forked: that one has
 * not even the segment, so rt's own memory is looked at first.
 */
void preemptSignal(struct gmp *rt)
{
	int saved = errno;
	uint32_t where;

	if ((uint32_t)gettid() == rt->tid) {
		where = load_relaxed(rt->where);
		if (!rt->p || (where != M_USER && where != M_ROBBED) || load_relaxed(&rt->m->locks) > 0 ||
		    (where == M_USER && rt->polls))
			rt->preempted = 1;
		else
			preemptTake(rt);
	}
	errno = saved;
}
