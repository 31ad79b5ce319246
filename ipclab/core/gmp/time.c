/*
 * time.c: the timers of a P: who sleeps until when.
 *
 * Go keeps a 4-ary heap in an array per P. An array that grows is a nuisance in shared memory, so this is a pairing heap
 * through the Gs' own records: a G sleeps on one timer at most, and is the timer. Insert is O(1), taking the first
 * O(log n) amortised; a heap torn by a death is rebuilt from allgs.
 *
 * minWhen is read without the lock, by whoever wants to know whether to look at all. The order against the poller:
 *   who adds a timer   1. minWhen (seq_cst)   2. look at lastpoll and pollUntil; wake the poller if it sleeps too long
 *   who goes to sleep  1. pollUntil, lastpoll 2. has looked at minWhen of all Ps after it stopped spinning
 */
#define _GNU_SOURCE
#include "events.h"
#include "lock_futex.h"
#include "point.h"
#include "proc.h"
#include "runq.h"

/* Two heaps to one. */
static uint32_t meld(struct gmp *rt, uint32_t a, uint32_t b)
{
	uint32_t other;

	if (!a || !b)
		return a ? a : b;
	if (G(rt, b)->when < G(rt, a)->when) {
		other = a;
		a = b;
		b = other;
	}
	G(rt, b)->tnext = G(rt, a)->tchild;
	POINT(rt, "timers.meld");
	G(rt, a)->tchild = b;
	return a;
}

/* The children of a root that was taken, melded in pairs, then from the last pair to the first. */
static uint32_t meldPairs(struct gmp *rt, uint32_t first)
{
	uint32_t pairs = 0, heap = 0;

	while (first) {
		uint32_t a = first, b = G(rt, a)->tnext, pair;

		first = b ? G(rt, b)->tnext : 0;
		G(rt, a)->tnext = 0;
		if (b)
			G(rt, b)->tnext = 0;
		pair = meld(rt, a, b);
		G(rt, pair)->tnext = pairs;
		pairs = pair;
	}
	while (pairs) {
		uint32_t pair = pairs;

		pairs = G(rt, pair)->tnext;
		G(rt, pair)->tnext = 0;
		heap = meld(rt, heap, pair);
	}
	return heap;
}

static void setMin(struct gmp *rt, struct timers *ts)
{
	uint32_t heap = load_relaxed(&ts->heap);

	store_seq_cst(&ts->minWhen, heap ? G(rt, heap)->when : 0);
	POINT(rt, "timers.minWhen");
}

/* With ts->lock held. */
static void add(struct gmp *rt, struct p *pp, uint32_t g)
{
	struct timers *ts = &pp->timers;
	struct g *gp = G(rt, g);

	gp->tchild = gp->tnext = 0;
	store_relaxed(&gp->timerp, P_INDEX(pp));
	POINT(rt, "timers.timerp");
	store_relaxed(&ts->heap, meld(rt, load_relaxed(&ts->heap), g));
	POINT(rt, "timers.heap");
	store_seq_cst(&ts->len, load_relaxed(&ts->len) + 1);
	POINT(rt, "timers.len");
	setMin(rt, ts);
}

/* With ts->lock held: the first one if it is due, else 0. */
static uint32_t takeDue(struct gmp *rt, struct timers *ts, int64_t now)
{
	uint32_t g = load_relaxed(&ts->heap);

	if (!g || G(rt, g)->when > now)
		return 0;
	store_relaxed(&G(rt, g)->timerp, 0);
	POINT(rt, "timers.due");
	store_relaxed(&ts->heap, meldPairs(rt, G(rt, g)->tchild));
	POINT(rt, "timers.popped");
	store_seq_cst(&ts->len, load_relaxed(&ts->len) - 1);
	POINT(rt, "timers.taken");
	return g;
}

void timeSleep(struct gmp *rt, uint32_t g, int64_t ns)
{
	struct p *pp = rt->p;
	struct g *gp = G(rt, g);
	int64_t before, now;

	gp->when = nanotimeIn(ns);
	lock(rt, &pp->timers.lock);
	gopark(rt, g, waitReasonSleep); /* before it is in the heap: it may be woken at once, by another M */
	before = load_relaxed(&pp->timers.minWhen);
	add(rt, pp, g);
	now = load_relaxed(&pp->timers.minWhen);
	unlock(rt, &pp->timers.lock);
	POINT(rt, "timeSleep.added");
	if (before == 0 || now < before)
		wakeNetPoller(rt, now);
}

int64_t timersCheck(struct gmp *rt, struct p *pp, int64_t now, bool *ran)
{
	struct timers *ts = &pp->timers;
	struct gQueue due = {0};
	int64_t next = load_seq_cst(&ts->minWhen);

	*ran = false;
	if (next == 0)
		return 0;
	if (now == 0)
		now = nanotime();
	if (next > now)
		return next;
	lock(rt, &ts->lock);
	for (uint32_t g; (g = takeDue(rt, ts, now));)
		queuePushBack(rt, &due, g);
	setMin(rt, ts);
	next = load_relaxed(&ts->minWhen);
	unlock(rt, &ts->lock);
	*ran = load_relaxed(&due.size) > 0;
	readylist(rt, &due);
	return next;
}

int64_t timeSleepUntil(struct gmp *rt)
{
	int64_t until = INT64_MAX;

	for (int32_t i = 0; i < load_relaxed(&rt->s->gomaxprocs); i++) {
		int64_t when = load_seq_cst(&rt->allp[i].timers.minWhen);

		if (when && when < until)
			until = when;
	}
	return until;
}

void timersTake(struct gmp *rt, struct p *to, struct p *from)
{
	for (uint32_t g; (g = takeDue(rt, &from->timers, INT64_MAX));)
		add(rt, to, g);
	setMin(rt, &from->timers);
}

/* no point: the template */
void timersRebuild(struct gmp *rt, struct p *pp)
{
	struct schedt *s = rt->s;

	for (uint32_t i = 0; i < GMP_MAXPROCS; i++) {
		if (pp && pp != &rt->allp[i])
			continue;
		store_relaxed(&rt->allp[i].timers.heap, 0);
		store_relaxed(&rt->allp[i].timers.len, 0);
		store_seq_cst(&rt->allp[i].timers.minWhen, 0);
	}
	for (uint32_t g = 1; g <= load_acquire(&s->allglen); g++) {
		struct g *gp = G(rt, g);
		uint32_t p = load_relaxed(&gp->timerp);

		if (pp && p != P_INDEX(pp))
			continue;
		if (load_relaxed(&gp->atomicstatus) != _Gwaiting || load_relaxed(&gp->waitreason) != waitReasonSleep)
			continue;
		/* in no heap: taken out as due, but not made runnable; or not put in yet */
		add(rt, &rt->allp[p && p <= (uint32_t)load_relaxed(&s->gomaxprocs) ? p - 1 : 0], g);
	}
}
