/*
 * wake.c: what waits for what, after a death: queues without the lost, and Gs that a dead waker has served or was about
 * to serve made runnable. They get on a queue with all others that are on none (rebuildQueues).
 *
 * no point: the template alone; if that is killed, all Ms are.
 */
#define _GNU_SOURCE
#include "chan.h"
#include "proc.h"
#include "runq.h"
#include "script.h"
#include "template.h"

/* Not in a queue any more, or never really: served already, or of a G that died before it slept. */
static bool isStale(struct gmp *rt, struct sudog *s)
{
	struct g *gp = G(rt, load_relaxed(&s->g));
	uint32_t status = load_relaxed(&gp->atomicstatus), m = load_relaxed(&gp->m);

	return load_relaxed(&s->done) || status == _Gdead || (status == _Grunning && (!m || !mLives(rt, m)));
}

/*
 * Keeps those that really wait, in their order; returns how many. The links forward are true whatever the dead one was
 * doing; those backward and the end follow. A select that was won here and not served is open again.
 */
uint32_t mendQueue(struct gmp *rt, struct waitq *q)
{
	uint32_t sg = load_relaxed(&q->first), next, kept = 0;

	*q = (struct waitq){0};
	for (; sg; sg = next) {
		struct sudog *s = sudogOf(rt, sg);

		next = load_relaxed(&s->next);
		if (isStale(rt, s)) {
			store_relaxed(&s->next, 0);
			store_relaxed(&s->prev, 0);
			continue;
		}
		if (s->isSelect && load_seq_cst(&G(rt, load_relaxed(&s->g))->selectDone) == sg) {
			store_relaxed(&G(rt, load_relaxed(&s->g))->param, 0);
			store_seq_cst(&G(rt, load_relaxed(&s->g))->selectDone, 0);
		}
		waitqPut(rt, q, sg, false);
		kept++;
	}
	return kept;
}

/* Serves the first in the queue, as a waker would have; false: there is none. */
static bool serve(struct gmp *rt, struct waitq *q, uint8_t success)
{
	uint32_t sg = waitqFirst(rt, q);

	if (!sg)
		return false;
	store_relaxed(&sudogOf(rt, sg)->success, success);
	store_relaxed(&sudogOf(rt, sg)->ticket, 0); /* a dead one may have handed over what we give as a count */
	if (!success && !sudogOf(rt, sg)->sending)
		store_relaxed(&sudogOf(rt, sg)->elem, 0);
	waitqServe(rt, q, sg);
	return true;
}

/* A value on its way from a sleeping sender into the buffer: not begun, or finished. */
static void redo(struct gmp *rt, struct hchan *c)
{
	uint32_t sg = load_acquire(&c->redo);
	uint64_t sendx = load_relaxed(&c->sendx);
	struct sudog *s;

	store_relaxed(&c->redo, 0);
	if (!sg)
		return;
	s = sudogOf(rt, sg);
	if (load_relaxed(&s->done))
		return; /* over */
	if (sendx != c->redosendx && sendx - load_relaxed(&c->recvx) == c->dataqsiz)
		return; /* not begun: the buffer is still full of what it was full of */
	if (sendx != c->redosendx) {
		store_relaxed(&rt->words[c->buf + sendx % c->dataqsiz], load_relaxed(&s->elem));
		store_relaxed(&c->sendx, c->redosendx);
	}
	store_relaxed(&s->success, 1);
	store_relaxed(&G(rt, load_relaxed(&s->g))->param, sg);
	store_relaxed(&s->done, 1);
}

void mendChan(struct gmp *rt, struct hchan *c)
{
	redo(rt, c);
	mendQueue(rt, &c->recvq);
	mendQueue(rt, &c->sendq);
}

static void finishClose(struct gmp *rt, struct hchan *c)
{
	if (!load_relaxed(&c->closed))
		return;
	while (serve(rt, &c->recvq, 0) || serve(rt, &c->sendq, 0)) /* who closed it did not come to wake them all */
		;
}

/* Locked by a G that is lost, or that could not say any more that it had locked it: nobody is in the middle of that. */
static bool lostHolder(struct gmp *rt, struct sema *s)
{
	uint32_t g = load_relaxed(&s->holder);

	return !g || load_relaxed(&G(rt, g)->atomicstatus) == _Gdead;
}

/*
 * A mutex that a lost G held is unlocked: nobody else would. State and semaphore are set to what normal mode would have
 * come to: one of those that are awake already has been woken for it (the others find no count and queue again, so they
 * are waiting); if none is, the first in the queue is woken now. Nothing of what was before is kept: a count, a ticket or
 * the woken flag may have been the dead one's, which he took and never used.
 */
static uint32_t mendMutex(struct gmp *rt, struct sema *s, uint32_t waiting)
{
	uint32_t state = load_relaxed(&s->state) & MUTEX_LOCKED, awake = s->awake;

	if (state && lostHolder(rt, s)) {
		state = 0;
		store_relaxed(&s->holder, 0);
	}
	if (!state && !awake && serve(rt, &s->q, 1)) {
		waiting--;
		awake = 1;
	}
	store_relaxed(&s->value, awake > 0);
	if (awake)
		state |= MUTEX_WOKEN | (awake - 1) * WAITER_ONE;
	store_seq_cst(&s->state, state + waiting * WAITER_ONE);
	return waiting;
}

/* A count changes by one instruction, and is right; who was to be woken for it may still sleep. */
static void mendSema(struct gmp *rt, struct sema *s)
{
	uint32_t waiting = mendQueue(rt, &s->q);

	if (load_relaxed(&s->kind) == SEMA_WAITGROUP) {
		while (load_relaxed(&s->state) == 0 && serve(rt, &s->q, 1))
			waiting--;
	} else if (load_relaxed(&s->state) || load_relaxed(&s->kind) == SEMA_MUTEX) {
		waiting = mendMutex(rt, s, waiting);
	} else {
		for (uint32_t free = load_relaxed(&s->value); free > s->awake && serve(rt, &s->q, 1); free--)
			waiting--;
	}
	store_seq_cst(&s->nwait, waiting);
}

static bool isServed(struct gmp *rt, struct g *gp)
{
	uint32_t param = load_relaxed(&gp->param);

	return load_relaxed(&gp->waitreason) != waitReasonSleep && param && load_relaxed(&sudogOf(rt, param)->done);
}

/* Gs that have been woken for a semaphore and have not taken it yet will look after themselves. */
static void countAwake(struct gmp *rt)
{
	for (uint32_t i = 0; i < load_acquire(&rt->s->nsemas); i++)
		rt->semas[i].awake = 0;
	for (uint32_t g = 1; g <= load_acquire(&rt->s->allglen); g++) {
		struct g *gp = G(rt, g);
		uint32_t status = load_relaxed(&gp->atomicstatus);
		bool served = status == _Gwaiting && isServed(rt, gp);

		if ((status != _Grunnable && !served) || (gp->resume != OP_LOCK && gp->resume != OP_ACQUIRE))
			continue;
		rt->semas[rt->steps[rt->programs[gp->startpc].first + gp->pc - 1].a].awake++;
		store_relaxed(&gp->sg.ticket, 0); /* mendMutex knows of none */
	}
}

static void wakeServed(struct gmp *rt)
{
	for (uint32_t g = 1; g <= load_acquire(&rt->s->allglen); g++)
		if (load_relaxed(&G(rt, g)->atomicstatus) == _Gwaiting && isServed(rt, G(rt, g)))
			store_seq_cst(&G(rt, g)->atomicstatus, _Grunnable);
}

void rebuildWaits(struct gmp *rt)
{
	countAwake(rt);
	for (uint32_t i = 0; i < load_acquire(&rt->s->nchans); i++) {
		mendChan(rt, &rt->chans[i]);
		finishClose(rt, &rt->chans[i]);
	}
	for (uint32_t i = 0; i < load_acquire(&rt->s->nsemas); i++)
		mendSema(rt, &rt->semas[i]);
	wakeServed(rt);
}
