/*
 * invariant.c: whether every list and count is what the records say, while nobody else is inside. Not in the shipped
 * library: the tests' build looks after every repair.
 *
 * It shares no code with rebuild.c, and asks the other way round: rebuild puts everything where it belongs; here every
 * list is walked, and what was met is counted and compared.
 *
 * no point: the template alone.
 */
#define _GNU_SOURCE
#include "mheap.h"
#include "proc.h"

#ifdef IPCLAB_POINTS
#include "runq.h"
#include "template.h"

#define MET 0x40000000u /* in g.mark: found in some queue by this look */

/* A queue must not hold a G twice, nor one that is not what those in it are. */
static bool meet(struct gmp *rt, uint32_t g, uint32_t status)
{
	struct g *gp = G(rt, g);

	if (!g || g > load_relaxed(&rt->s->allglen) || load_relaxed(&gp->atomicstatus) != status || gp->mark == MET)
		return false;
	gp->mark = MET;
	return true;
}

static const char *ringsAreRight(struct gmp *rt)
{
	for (uint32_t i = 0; i < GMP_MAXPROCS; i++) {
		struct p *pp = &rt->allp[i];
		uint32_t head = load_relaxed(&pp->runqhead), tail = load_relaxed(&pp->runqtail), next = load_relaxed(&pp->runnext);

		if (tail - head > GMP_RUNQ)
			return "a ring holds more than its slots";
		for (uint32_t at = head; at != tail; at++)
			if (!meet(rt, load_relaxed(&pp->runq[at % GMP_RUNQ]), _Grunnable))
				return "a ring holds a G twice, or one that is not runnable";
		if (next && !meet(rt, next, _Grunnable))
			return "a runnext is queued twice, or not runnable";
	}
	return NULL;
}

static const char *globalIsRight(struct gmp *rt)
{
	struct gQueue *q = &rt->s->runq;
	uint32_t last = 0;
	int32_t n = 0;

	for (uint32_t g = load_relaxed(&q->head); g; g = load_relaxed(&G(rt, g)->schedlink), n++) {
		if (!meet(rt, g, _Grunnable))
			return "the global queue holds a G twice, or one that is not runnable";
		last = g;
	}
	return load_relaxed(&q->tail) != last || load_relaxed(&q->size) != n ? "the global queue's tail or size is wrong" : NULL;
}

/* Every runnable G is queued once, but for those whose own M has been handed a P for them. */
static const char *runnableAreQueued(struct gmp *rt)
{
	for (uint32_t g = 1; g <= load_relaxed(&rt->s->allglen); g++) {
		struct g *gp = G(rt, g);
		uint32_t status = load_relaxed(&gp->atomicstatus), m = load_relaxed(&gp->lockedm), on = load_relaxed(&gp->m);

		if (status == _Grunnable && gp->mark != MET &&
		    !(m && (load_relaxed(&M(rt, m)->nextp) || load_relaxed(&M(rt, m)->p))))
			return "a runnable G is on no queue";
		if ((status == _Grunning || status == _Gsyscall) && (!on || !mLives(rt, on) || load_relaxed(&M(rt, on)->curg) != g))
			return "a running G has no M";
	}
	return NULL;
}

/* In a queue of sleepers; a select's G is in several. */
static const char *queueIsRight(struct gmp *rt, struct waitq *q, uint32_t *n)
{
	uint32_t prev = 0;

	*n = 0;
	for (uint32_t sg = load_relaxed(&q->first); sg; sg = load_relaxed(&sudogOf(rt, sg)->next), ++*n) {
		struct sudog *s = sudogOf(rt, sg);
		struct g *gp = G(rt, load_relaxed(&s->g));
		uint32_t status = load_relaxed(&gp->atomicstatus);

		if (*n > rt->s->maxg || load_relaxed(&s->prev) != prev)
			return "a queue of sleepers is linked wrongly";
		/* a select that was served elsewhere takes its other sudogs out itself */
		if (load_relaxed(&s->done) || status == _Gdead || (status != _Gwaiting && !s->isSelect))
			return "a queue of sleepers holds one that does not sleep";
		prev = sg;
	}
	return load_relaxed(&q->last) != prev ? "a queue of sleepers ends elsewhere" : NULL;
}

static const char *sleepersAreRight(struct gmp *rt)
{
	const char *wrong = NULL;
	uint32_t n, senders, receivers;

	for (uint32_t i = 0; !wrong && i < load_acquire(&rt->s->nchans); i++) {
		struct hchan *c = &rt->chans[i];
		uint64_t held = load_relaxed(&c->sendx) - load_relaxed(&c->recvx);

		wrong = queueIsRight(rt, &c->recvq, &receivers);
		wrong = wrong ? wrong : queueIsRight(rt, &c->sendq, &senders);
		if (held > c->dataqsiz || load_relaxed(&c->redo) || load_relaxed(&c->lock.key))
			wrong = "a channel holds more than it can, or is locked";
		if (!wrong && load_relaxed(&c->closed) && receivers + senders)
			wrong = "somebody sleeps on a closed channel";
	}
	for (uint32_t i = 0; !wrong && i < load_acquire(&rt->s->nsemas); i++) {
		wrong = queueIsRight(rt, &rt->semas[i].q, &n);
		if (!wrong && (load_relaxed(&rt->semas[i].nwait) != n || load_relaxed(&rt->semas[i].lock.key)))
			wrong = "a semaphore counts its sleepers wrongly, or is locked";
	}
	return wrong;
}

static uint32_t heapSize(struct gmp *rt, uint32_t g, uint32_t p, uint32_t limit)
{
	uint32_t n = 0;

	for (; g && n < limit; g = G(rt, g)->tnext) {
		if (!meet(rt, g, _Gwaiting) || load_relaxed(&G(rt, g)->timerp) != p)
			return limit; /* too many: wrong */
		n += 1 + heapSize(rt, G(rt, g)->tchild, p, limit - n - 1);
	}
	return n;
}

static const char *timersAreRight(struct gmp *rt)
{
	uint32_t asleep = 0, inHeaps = 0;

	for (uint32_t g = 1; g <= load_relaxed(&rt->s->allglen); g++)
		asleep += load_relaxed(&G(rt, g)->atomicstatus) == _Gwaiting &&
			  load_relaxed(&G(rt, g)->waitreason) == waitReasonSleep;
	for (uint32_t i = 0; i < GMP_MAXPROCS; i++) {
		struct timers *ts = &rt->allp[i].timers;
		uint32_t n = heapSize(rt, load_relaxed(&ts->heap), i + 1, asleep + 1), first = load_relaxed(&ts->heap);

		if (load_relaxed(&ts->len) != n || load_relaxed(&ts->minWhen) != (first ? G(rt, first)->when : 0))
			return "a heap of timers is not what its P says";
		inHeaps += n;
	}
	return inHeaps != asleep ? "a G sleeps on no timer" : NULL;
}

static const char *freeAreRight(struct gmp *rt)
{
	struct schedt *s = rt->s;
	uint32_t dead = 0, free = 0, sudogs = 0, used = 0, len = load_relaxed(&s->allglen);

	for (uint32_t g = 1; g <= len; g++)
		dead += load_relaxed(&G(rt, g)->atomicstatus) == _Gdead;
	for (uint32_t g = load_relaxed(&s->gFree); g && free <= len; g = load_relaxed(&G(rt, g)->schedlink), free++)
		if (!meet(rt, g, _Gdead))
			return "the free list holds a G twice, or a live one";
	if (dead != free || load_relaxed(&s->gFreeN) != (int32_t)free)
		return "a dead G's record is lost";
	for (uint32_t sg = load_relaxed(&s->sudogfree); sg && sudogs <= s->sudoglen; sg = load_relaxed(&sudogOf(rt, sg)->next))
		sudogs++;
	for (uint32_t g = 1; g <= len; g++)
		if (load_relaxed(&G(rt, g)->atomicstatus) != _Gdead)
			for (uint32_t sg = G(rt, g)->waiting; sg; sg = sudogOf(rt, sg)->waitlink)
				used += sg > s->maxg;
	return sudogs + used != s->sudoglen ? "a sudog is lost" : NULL;
}

static const char *idleAreRight(struct gmp *rt)
{
	struct schedt *s = rt->s;
	int32_t ps = 0, ms = 0, spinning = 0, spare = 0, most = load_relaxed(&s->gomaxprocs);

	for (uint32_t p = load_relaxed(&s->pidle); p; p = load_relaxed(&P(rt, p)->link), ps++)
		if (ps > most || load_relaxed(&P(rt, p)->status) != _Pidle || load_relaxed(&P(rt, p)->m) || !runqempty(P(rt, p)) ||
		    !maskread(s->idlepMask, p - 1))
			return "an idle P is not idle, or has work";
	for (uint32_t m = load_relaxed(&s->midle); m; m = load_relaxed(&M(rt, m)->schedlink), ms++)
		if (ms > (int32_t)mLast(rt) || !mLives(rt, m) || !load_relaxed(&M(rt, m)->blocked) ||
		    load_relaxed(&M(rt, m)->nextp) || load_relaxed(&M(rt, m)->p))
			return "an idle M is not idle";
	for (uint32_t m = 1; m <= mLast(rt); m++) {
		spare += load_relaxed(&M(rt, m)->dead) == M_REPAIRED;
		spinning += load_relaxed(&M(rt, m)->dead) == M_ALIVE &&
			    (load_relaxed(&M(rt, m)->spinning) || load_relaxed(&M(rt, m)->mstartfn) == MSTART_SPINNING);
	}
	if (spare != load_relaxed(&s->nmspare))
		return "nmspare is wrong";
	if (ps != load_relaxed(&s->npidle) || ms != load_relaxed(&s->nmidle) || spinning != load_relaxed(&s->nmspinning))
		return "npidle, nmidle or nmspinning is wrong";
	return load_relaxed(&s->lock.key) || load_relaxed(&s->gFreelock.key) || load_relaxed(&s->allglock.key) ||
		       load_relaxed(&s->sudoglock.key) || load_relaxed(&s->newmlock.key) || load_relaxed(&s->allpLock.key)
		       ? "a lock of the scheduler is held"
		       : NULL;
}


const char *brokenInvariant(struct gmp *rt)
{
	const char *wrong;

	for (uint32_t g = 1; g <= load_relaxed(&rt->s->allglen); g++)
		G(rt, g)->mark = 0;
	rt->s->epoch = 1; /* the marks are ours now */
	wrong = ringsAreRight(rt);
	wrong = wrong ? wrong : globalIsRight(rt);
	wrong = wrong ? wrong : runnableAreQueued(rt);
	wrong = wrong ? wrong : sleepersAreRight(rt);
	wrong = wrong ? wrong : timersAreRight(rt);
	wrong = wrong ? wrong : freeAreRight(rt);
	wrong = wrong ? wrong : idleAreRight(rt);
	return wrong ? wrong : heapBroken(rt);
}
#endif
