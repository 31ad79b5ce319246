/*
 * find.c: findRunnable: the next G for this M's P, in Go's order; sleeps when there is none.
 *
 *   stop the world asked for? -> gcstopm        own timers
 *   every 61st time slice: the global queue     so that two Gs that keep waking each other locally cannot starve it
 *   own queue                                   global queue, a batch
 *   steal                                       four rounds over all Ps; timers and runnext in the last one only
 *   give the P up, look once more               the second half of the protocol in proc.c
 *   sleep until the next timer, if nobody does  Go's network poller; here nothing but timers wakes it
 *   stopm
 */
#define _GNU_SOURCE
#include "checked.h"
#include "events.h"
#include "lock_futex.h"
#include "point.h"
#include "proc.h"
#include "runq.h"

#define STEAL_TRIES 4

void becomeSpinning(struct gmp *rt)
{
	store_relaxed(&rt->m->spinning, 1);
	POINT(rt, "becomeSpinning.m");
	add_seq_cst(&rt->s->nmspinning, 1);
	POINT(rt, "becomeSpinning.counted");
	store_seq_cst(&rt->s->needspinning, 0);
	POINT(rt, "becomeSpinning.need");
	event(rt, EV_SPIN, 0, 1);
}

/*
 * One from the global queue, a share of the rest to the own one. sched.lock is held; it is released.
 *
 * The rest is in the ring before the lock is released. Go 1.25 puts it there afterwards, and for that moment the Gs are
 * nowhere: a spinning M that looks just then, at the global queue and at all rings, finds nothing and goes to sleep,
 * and nobody tells it of them, because who moves Gs wakes nobody. There sysmon's preemption ends it after 10 ms.
 * (Found by test_gmp_stress, no_wake_up_is_lost.) So: whoever gives up his P takes the lock later, and sees the ring.
 */
static uint32_t takeGlobal(struct gmp *rt, struct p *pp)
{
	struct gQueue rest = {0};
	uint32_t g = globrunqgetbatch(rt, GMP_RUNQ / 2, &rest);

	POINT(rt, "takeGlobal.taken");
	if (g)
		runqputbatch(rt, pp, &rest);
	unlock(rt, &rt->s->lock);
	return g;
}

/* Runs p2's due timers; what they make runnable is ours. The earliest that is left goes into *until. */
static bool checkTimers(struct gmp *rt, struct p *p2, int64_t now, int64_t *until)
{
	bool ran;
	int64_t when = timersCheck(rt, p2, now, &ran);

	if (when && (*until == 0 || when < *until))
		*until = when;
	return ran;
}

/* 0: nothing; *newWork: there may be some by now, begin anew. */
static uint32_t stealWork(struct gmp *rt, int64_t *until, bool *inheritTime, bool *newWork)
{
	struct schedt *s = rt->s;
	struct p *pp = rt->p;
	bool ran = false;

	for (int i = 0; i < STEAL_TRIES; i++) {
		bool last = i == STEAL_TRIES - 1;
		struct randomEnum order = randomOrder(rt, (uint32_t)load_relaxed(&s->gomaxprocs));

		for (; !enumDone(&order); enumNext(&order)) {
			struct p *p2 = &rt->allp[order.pos];
			uint32_t g, before;

			if (load_seq_cst(&s->gcwaiting) || load_relaxed(&s->gate)) {
				*newWork = true;
				return 0;
			}
			if (p2 == pp)
				continue;
			if (last && maskread(s->timerpMask, order.pos) && checkTimers(rt, p2, 0, until)) {
				g = runqget(rt, pp, inheritTime);
				if (g)
					return g;
				ran = true;
			}
			if (maskread(s->idlepMask, order.pos))
				continue;
			before = load_relaxed(&pp->runqtail);
			g = runqsteal(rt, pp, p2, last);
			if (g) {
				count_up(&rt->m->steals);
				event(rt, EV_STEAL, load_relaxed(&G(rt, g)->goid),
				      (uint64_t)order.pos << 32 | (uint64_t)(i + 1) << 16 |
					      (load_relaxed(&pp->runqtail) - before + 1));
				*inheritTime = false;
				rt->told = true;
				return g;
			}
		}
	}
	*newWork = ran;
	return 0;
}

/* What is there with a P in hand. 0: nothing; *again: begin anew. */
static uint32_t lookAround(struct gmp *rt, int64_t *until, bool *inheritTime, bool *again)
{
	struct schedt *s = rt->s;
	struct p *pp = rt->p;
	uint32_t g = 0;

	*inheritTime = false;
	checkTimers(rt, pp, 0, until);
	if (load_relaxed(&pp->schedtick) % 61 == 0 && load_relaxed(&s->runq.size)) {
		lock(rt, &s->lock);
		g = globrunqget(rt);
		unlock(rt, &s->lock);
		POINT(rt, "find.tick61");
	}
	if (g) {
		event(rt, EV_GLOBAL, load_relaxed(&G(rt, g)->goid), 61);
		rt->told = true;
		return g;
	}
	g = runqget(rt, pp, inheritTime);
	rt->told = g != 0;
	if (g)
		return g;
	if (load_relaxed(&s->runq.size)) {
		lock(rt, &s->lock);
		g = takeGlobal(rt, pp);
	}
	if (g) {
		event(rt, EV_GLOBAL, load_relaxed(&G(rt, g)->goid), 0);
		rt->told = true;
		return g;
	}
	/* Half as many spinners as busy Ps at most: on a machine full of work, looking for it would only take CPU away. */
	if (!load_relaxed(&rt->m->spinning) &&
	    2 * load_seq_cst(&s->nmspinning) >= load_relaxed(&s->gomaxprocs) - load_seq_cst(&s->npidle))
		return 0;
	if (!load_relaxed(&rt->m->spinning))
		becomeSpinning(rt);
	ALWAYS(rt, load_seq_cst(&s->nmspinning) > 0 || load_seq_cst(&s->gate), "spinning: an M spins, and nobody is counted");
	return stealWork(rt, until, inheritTime, again);
}

static uint32_t pidlegetLocked(struct gmp *rt)
{
	uint32_t p;

	lock(rt, &rt->s->lock);
	p = pidlegetSpinning(rt);
	unlock(rt, &rt->s->lock);
	return p;
}

/* Gives the P up. A G if one came meanwhile, *again: begin anew, else this M has no P. */
static uint32_t dropP(struct gmp *rt, bool *again)
{
	struct schedt *s = rt->s;
	struct p *pp = rt->p;

	lock(rt, &s->lock);
	*again = load_seq_cst(&s->gcwaiting);
	if (!*again && load_relaxed(&s->runq.size)) {
		uint32_t g = takeGlobal(rt, pp);

		*again = !g;
		return g;
	}
	if (!*again && !load_relaxed(&rt->m->spinning) && load_seq_cst(&s->needspinning)) {
		becomeSpinning(rt);
		*again = true;
	}
	if (!*again) {
		releasep(rt);
		POINT(rt, "dropP.released");
		pidleput(rt, P_INDEX(pp));
	}
	unlock(rt, &s->lock);
	return 0;
}

/*
 * The masks as they are now, after nmspinning--, not as they were when we began to look: somebody may have come out of the
 * kernel since then, have taken a P that was idle, put work there, and relied on us, who were still spinning.
 */
static uint32_t checkRunqsNoP(struct gmp *rt, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (!maskread(rt->s->idlepMask, i) && !runqempty(&rt->allp[i]))
			return pidlegetLocked(rt);
	return 0;
}

static int64_t checkTimersNoP(struct gmp *rt, uint32_t n, int64_t until)
{
	for (uint32_t i = 0; i < n; i++) {
		int64_t when = maskread(rt->s->timerpMask, i) ? load_seq_cst(&rt->allp[i].timers.minWhen) : 0;

		if (when && (until == 0 || when < until))
			until = when;
	}
	return until;
}

/*
 * We were spinning and have no P any more: stop spinning, then look at everything once more. Otherwise a submitter that
 * saw us spinning and a spinner that saw no work would both have relied on the other.
 */
static uint32_t lookAgainNoP(struct gmp *rt, uint32_t n, bool *again)
{
	struct schedt *s = rt->s;
	uint32_t p = 0, g = 0;

	store_relaxed(&rt->m->spinning, 0);
	POINT(rt, "lookAgain.off");
	event(rt, EV_SPIN, 0, 0);
	if (add_seq_cst(&s->nmspinning, -1) < 1 && !load_relaxed(&s->gate))
		throw(rt, "findRunnable: negative nmspinning");
	POINT(rt, "lookAgain.uncounted");
	lock(rt, &s->lock);
	if (load_relaxed(&s->runq.size))
		p = pidlegetSpinning(rt);
	if (p) {
		g = takeGlobal(rt, P(rt, p));
		acquirep(rt, p);
		becomeSpinning(rt);
		*again = !g;
		return g;
	}
	unlock(rt, &s->lock);
	p = checkRunqsNoP(rt, n);
	if (p) {
		acquirep(rt, p);
		becomeSpinning(rt);
		*again = true;
	}
	return 0;
}

/* --- the poller's place --- */

void netpollBreak(struct gmp *rt)
{
	notewake(rt, &rt->s->pollnote); /* already set: it wakes up anyway */
}

void wakeNetPoller(struct gmp *rt, int64_t when)
{
	struct schedt *s = rt->s;
	int64_t until;

	if (load_seq_cst(&s->lastpoll) != 0) {
		wakep(rt); /* nobody sleeps for timers: let one come by */
		return;
	}
	until = load_seq_cst(&s->pollUntil);
	if (until == 0 || until > when)
		netpollBreak(rt);
}

static void netpoll(struct gmp *rt, int64_t until)
{
	struct schedt *s = rt->s;
	int rc;

	event(rt, EV_PARK, 0, 3);
	store_relaxed(&rt->m->blocked, 1);
	POINT(rt, "netpoll.blocked");
	store_relaxed(&rt->m->polling, 1);
	POINT(rt, "netpoll.polling");
	leaveRuntime(rt, M_PARKED);
	do {
		rc = note_sleep(&s->pollnote, until, 0);
		POINT(rt, "netpoll.slept");
	} while (rc == -EINTR);
	enterRuntime(rt);
	note_clear(&s->pollnote);
	POINT(rt, "netpoll.cleared");
	store_relaxed(&rt->m->blocked, 0);
	POINT(rt, "netpoll.unblocked");
	store_relaxed(&rt->m->polling, 0);
	POINT(rt, "netpoll.over");
	event(rt, EV_UNPARK, 0, 0);
	if (load_seq_cst(&s->exiting))
		mexit(rt);
}

/* Sleeps until the next timer as the only one who does. True: has a P again, begin anew. */
static bool pollTimers(struct gmp *rt, int64_t until, bool wasSpinning)
{
	struct schedt *s = rt->s;
	int64_t poller;
	uint32_t p;

	if (until == 0)
		return false;
	if (swap_seq_cst(&s->lastpoll, 0) == 0) {
		POINT(rt, "pollTimers.second");
		poller = load_seq_cst(&s->pollUntil);
		if (poller == 0 || poller > until)
			netpollBreak(rt);
		return false;
	}
	POINT(rt, "pollTimers.claimed");
	store_seq_cst(&s->pollUntil, until);
	POINT(rt, "pollTimers.until");
	netpoll(rt, until);
	store_seq_cst(&s->pollUntil, 0);
	POINT(rt, "pollTimers.slept");
	store_seq_cst(&s->lastpoll, nanotime());
	POINT(rt, "pollTimers.lastpoll");
	lock(rt, &s->lock);
	p = pidleget(rt);
	unlock(rt, &s->lock);
	if (!p)
		return false;
	acquirep(rt, p);
	if (wasSpinning)
		becomeSpinning(rt);
	return true;
}

uint32_t findRunnable(struct gmp *rt, bool *inheritTime)
{
	struct schedt *s = rt->s;
	uint32_t n, g;

	for (;;) {
		int64_t until = 0;
		bool again = false, wasSpinning;

		if (load_relaxed(&s->exiting))
			mexit(rt);
		passGate(rt);
		if (load_seq_cst(&s->gcwaiting)) {
			gcstopm(rt);
			continue;
		}
		g = lookAround(rt, &until, inheritTime, &again);
		if (g)
			return g;
		if (again)
			continue;
		*inheritTime = false;
		n = (uint32_t)load_relaxed(&s->gomaxprocs);
		wasSpinning = load_relaxed(&rt->m->spinning);
		g = dropP(rt, &again);
		if (g)
			return g;
		if (again)
			continue;
		if (wasSpinning) {
			g = lookAgainNoP(rt, n, &again);
			if (g)
				return g;
			if (again)
				continue;
			until = checkTimersNoP(rt, n, until);
		}
		if (!pollTimers(rt, until, wasSpinning))
			stopm(rt);
	}
}
