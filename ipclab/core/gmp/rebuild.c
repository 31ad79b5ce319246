/*
 * rebuild.c: queues, idle lists and counts made true again, from allgs and allm, while nobody else is inside.
 *
 * Every G is one of: queued (a ring, runnext, the global queue), run by a live M, waiting in some queue or heap, dead,
 * or - because of a death - none of these. Every P is one of: held by a live M (running, in a system call, on its way to
 * it as nextp), idle, stopped, or none of these. What is none of these is found here, and put where it belongs.
 *
 * no point: the template alone; if that is killed, all Ms are.
 */
#define _GNU_SOURCE
#include "chan.h"
#include "checked.h"
#include "lock_futex.h"
#include "mheap.h"
#include "proc.h"
#include "runq.h"
#include "template.h"

/* --- Gs -------------------------------------------------------------------------------------------------------------- */

static void lose(struct gmp *rt, uint32_t g)
{
	struct schedt *s = rt->s;
	struct g *gp = G(rt, g);
	uint64_t n = load_relaxed(&s->lostgs);

	store_relaxed(&s->lostgoids[n % GMP_LOST_KEPT], load_relaxed(&gp->goid));
	store_seq_cst(&s->lostgs, n + 1);
	add_relaxed(&rt->programs[gp->startpc].lost, 1);
	store_relaxed(&gp->lockedm, 0);
	store_relaxed(&gp->m, 0);
	store_seq_cst(&gp->atomicstatus, _Gdead);
	if (s->mainends && load_relaxed(&gp->goid) == 1)
		fatal(rt, FATAL_DONE, 0, "main was lost with its M");
}

/* Lost: who ran on a dead M, or was locked to one, which is the same for a G that asked to be tied to a process. */
static bool isLost(struct gmp *rt, uint32_t g)
{
	struct g *gp = G(rt, g);
	uint32_t status = load_relaxed(&gp->atomicstatus), m = load_relaxed(&gp->m), lockedm = load_relaxed(&gp->lockedm);

	if (status == _Gdead || status == _Gidle)
		return false;
	if (lockedm && !mLives(rt, lockedm))
		return true;
	if (status != _Grunning && status != _Gsyscall)
		return false;
	return !m || !mLives(rt, m) || load_relaxed(&M(rt, m)->curg) != g;
}

static void loseThoseOfTheDead(struct gmp *rt)
{
	uint32_t n = load_acquire(&rt->s->allglen);

	for (uint32_t g = 1; g <= n; g++)
		if (isLost(rt, g))
			lose(rt, g);
	/* main ended, but its M could not say so any more */
	if (rt->s->mainends && load_relaxed(&G(rt, 1)->atomicstatus) == _Gdead && load_relaxed(&G(rt, 1)->goid) == 1)
		fatal(rt, FATAL_DONE, 0, "main has ended");
}

static bool keep(struct gmp *rt, uint32_t g)
{
	if (load_relaxed(&G(rt, g)->atomicstatus) != _Grunnable || G(rt, g)->mark == rt->s->epoch)
		return false;
	G(rt, g)->mark = rt->s->epoch;
	return true;
}

/* A ring keeps its order and loses those who are lost. Nobody has a copy of its indices. */
static void rebuildRing(struct gmp *rt, struct p *pp)
{
	uint32_t head = load_relaxed(&pp->runqhead), tail = load_relaxed(&pp->runqtail), to = head;
	uint32_t next = load_relaxed(&pp->runnext);

	for (uint32_t at = head; at != tail; at++) {
		uint32_t g = load_relaxed(&pp->runq[at % GMP_RUNQ]);

		if (keep(rt, g))
			store_relaxed(&pp->runq[to++ % GMP_RUNQ], g);
	}
	store_seq_cst(&pp->runqtail, to);
	if (next && !keep(rt, next))
		store_seq_cst(&pp->runnext, 0);
	for (uint32_t at = head; at != to; at++)
		REQUEUED(rt, load_relaxed(&pp->runq[at % GMP_RUNQ]), P_INDEX(pp));
	if (load_relaxed(&pp->runnext))
		REQUEUED(rt, load_relaxed(&pp->runnext), P_INDEX(pp));
}

static void rebuildGlobal(struct gmp *rt)
{
	struct gQueue *q = &rt->s->runq;
	uint32_t g = load_relaxed(&q->head), next;

	*q = (struct gQueue){0};
	for (; g; g = next) {
		next = load_relaxed(&G(rt, g)->schedlink);
		if (keep(rt, g))
			queuePushBack(rt, q, g);
	}
}

/* Somebody is on his way to run it with its own M. */
static bool inHandOfItsM(struct gmp *rt, struct g *gp)
{
	uint32_t m = load_relaxed(&gp->lockedm);

	return m && (load_relaxed(&M(rt, m)->nextp) || load_relaxed(&M(rt, m)->p));
}

static void rebuildQueues(struct gmp *rt)
{
	struct schedt *s = rt->s;
	uint32_t n = load_acquire(&s->allglen);

	s->epoch++;
	for (uint32_t g = 1; g <= n; g++)
		REQUEUED(rt, g, QUEUED_NOWHERE);
	for (uint32_t i = 0; i < GMP_MAXPROCS; i++)
		rebuildRing(rt, &rt->allp[i]);
	rebuildGlobal(rt);
	for (uint32_t g = 1; g <= n; g++)
		if (!inHandOfItsM(rt, G(rt, g)) && keep(rt, g))
			queuePushBack(rt, &s->runq, g);
	for (uint32_t g = IS_CHECKED ? load_relaxed(&s->runq.head) : 0; g; g = load_relaxed(&G(rt, g)->schedlink))
		REQUEUED(rt, g, QUEUED_GLOBAL);
}

static void rebuildFree(struct gmp *rt)
{
	struct schedt *s = rt->s;
	uint32_t n = load_acquire(&s->allglen), count = 0, list = 0;

	for (uint32_t i = 0; i < GMP_MAXPROCS; i++) {
		rt->allp[i].gFree = 0;
		store_relaxed(&rt->allp[i].gFreeN, 0);
	}
	for (uint32_t g = n; g > 0; g--) {
		if (load_relaxed(&G(rt, g)->atomicstatus) != _Gdead)
			continue;
		store_relaxed(&G(rt, g)->schedlink, list);
		list = g;
		count++;
	}
	store_relaxed(&s->gFree, list);
	store_relaxed(&s->gFreeN, (int32_t)count);
}

/* Sudogs that no select holds. */
static void rebuildSudogs(struct gmp *rt)
{
	struct schedt *s = rt->s;
	uint32_t list = 0;

	for (uint32_t i = 1; i <= s->sudoglen; i++)
		rt->sudogs[i].unused[0] = 0;
	for (uint32_t g = 1; g <= load_acquire(&s->allglen); g++) {
		if (load_relaxed(&G(rt, g)->atomicstatus) == _Gdead)
			continue;
		for (uint32_t sg = G(rt, g)->waiting; sg; sg = sudogOf(rt, sg)->waitlink)
			sudogOf(rt, sg)->unused[0] = 1;
	}
	for (uint32_t i = 0; i < GMP_MAXPROCS; i++)
		rt->allp[i].sudogcache = rt->allp[i].sudogN = 0;
	for (uint32_t i = s->sudoglen; i > 0; i--) {
		if (rt->sudogs[i].unused[0])
			continue;
		store_relaxed(&rt->sudogs[i].next, list);
		list = s->maxg + i;
	}
	store_relaxed(&s->sudogfree, list);
}

/* --- Ms -------------------------------------------------------------------------------------------------------------- */

static bool isListed(struct gmp *rt, uint32_t m)
{
	for (uint32_t at = load_relaxed(&rt->s->newm); at; at = load_relaxed(&M(rt, at)->schedlink))
		if (at == m)
			return true;
	return false;
}

/* Has its P on the way to it: it must be awake, whatever became of the one who was about to wake it. */
static void completeWake(struct m *mp)
{
	if (load_relaxed(&mp->blocked) && load_seq_cst(&mp->park.word) != NOTE_SET)
		note_wakeup(&mp->park);
}

static void rebuildM(struct gmp *rt, uint32_t m, int64_t *there)
{
	struct schedt *s = rt->s;
	struct m *mp = M(rt, m);
	bool parked;

	store_relaxed(&mp->idle, 0);
	if (load_relaxed(&mp->mstartfn) == MSTART_SPINNING && load_relaxed(&mp->dead) == M_ALIVE &&
	    (load_relaxed(&mp->procid) > 0 || isListed(rt, m)))
		store_relaxed(&s->nmspinning, load_relaxed(&s->nmspinning) + 1);
	if (!mLives(rt, m)) {
		if (load_relaxed(&mp->procid) == 0 && isListed(rt, m)) {
			*there += 1; /* about to be born */
			return;
		}
		if (load_relaxed(&mp->exiting) && load_relaxed(&mp->dead) == M_ALIVE)
			return; /* its process may still write "gone": the record is spare when that is reaped */
		store_relaxed(&mp->dead, M_REPAIRED); /* also a record whose maker died before it was listed */
		add_seq_cst(&s->nmspare, 1);
		return;
	}
	*there += 1;
	if (load_relaxed(&mp->mstartfn) == MSTART_SYSMON) {
		store_relaxed(&s->nmsys, 1);
		return;
	}
	parked = load_relaxed(&mp->blocked) && !load_relaxed(&mp->polling) && !load_relaxed(&mp->nextp);
	if (parked)
		store_relaxed(&mp->spinning, 0); /* who was about to start it spinning has not come to give it a P */
	store_relaxed(&s->nmspinning, load_relaxed(&s->nmspinning) + (int32_t)load_relaxed(&mp->spinning));
	if (load_relaxed(&mp->nextp)) {
		store_relaxed(&mp->lockedwait, 0);
		completeWake(mp);
	}
	if (parked && load_relaxed(&mp->lockedg)) {
		store_relaxed(&mp->lockedwait, 1);
		store_relaxed(&s->nmidlelocked, load_relaxed(&s->nmidlelocked) + 1);
	} else if (parked) {
		store_relaxed(&mp->idle, 1);
		store_relaxed(&mp->schedlink, load_relaxed(&s->midle));
		store_relaxed(&s->midle, m);
		store_relaxed(&s->nmidle, load_relaxed(&s->nmidle) + 1);
	}
}

/*
 * Whoever took the P of an M that stood still (stopped.c) died while he did. That M is alive, and outside, so what its
 * record and the P's say is final: its P is gone if they do not name each other; and its G is then in a system call.
 */
static void mendRobbed(struct gmp *rt, uint32_t m)
{
	struct m *mp = M(rt, m);
	uint32_t p = load_relaxed(&mp->p), g = load_relaxed(&mp->curg);
	bool wired = p && load_relaxed(&P(rt, p)->m) == m;
	uint32_t status = g ? load_relaxed(&G(rt, g)->atomicstatus) : _Gidle;

	if (!mLives(rt, m) || (status != _Grunning && status != _Gsyscall) || load_relaxed(&G(rt, g)->m) != m)
		return;
	if (!wired)
		store_relaxed(&mp->p, 0);
	store_seq_cst(&G(rt, g)->atomicstatus, wired ? _Grunning : _Gsyscall);
}

static void rebuildMs(struct gmp *rt)
{
	struct schedt *s = rt->s;
	bool polling = false;
	int64_t there = 0;

	store_relaxed(&s->midle, 0);
	store_relaxed(&s->nmidle, 0);
	store_relaxed(&s->nmidlelocked, load_relaxed(&s->callerstops) ? -1 : 0);
	store_relaxed(&s->nmsys, 0);
	store_relaxed(&s->nmspinning, 0);
	store_relaxed(&s->nmspare, 0);
	store_relaxed(&s->needspinning, 1);
	for (uint32_t m = 1; m <= mLast(rt); m++) {
		mendRobbed(rt, m);
		rebuildM(rt, m, &there);
		polling |= mLives(rt, m) && load_relaxed(&M(rt, m)->polling);
	}
	store_relaxed(&s->nmfreed, load_relaxed(&s->mnext) - there);
	if (!load_relaxed(&s->nmsys)) { /* or the next sysmon finds somebody asleep on its note, or is always woken */
		store_seq_cst(&s->sysmonwait, 0);
		note_clear(&s->sysmonnote);
	}
	if (polling)
		return;
	store_seq_cst(&s->pollUntil, 0);
	note_clear(&s->pollnote);
	store_seq_cst(&s->lastpoll, nanotime());
}

/* --- Ps -------------------------------------------------------------------------------------------------------------- */

/* Who has it; 0: nobody. */
static uint32_t ownerOf(struct gmp *rt, uint32_t p)
{
	struct p *pp = P(rt, p);
	uint32_t m = load_relaxed(&pp->m);

	if (m && mLives(rt, m) && load_relaxed(&M(rt, m)->p) == p)
		return m;
	for (m = 1; m <= mLast(rt); m++) {
		struct m *mp = M(rt, m);

		if (load_relaxed(&mp->dead) != M_ALIVE || load_relaxed(&mp->exiting))
			continue;
		if (load_relaxed(&mp->nextp) == p)
			return m;
		if (load_relaxed(&pp->status) == _Psyscall && load_relaxed(&mp->oldp) == p && mLives(rt, m))
			return m;
	}
	return 0;
}

/* By a live one: count for it what is still to stop. */
static void rebuildStop(struct gmp *rt)
{
	struct schedt *s = rt->s;
	int32_t wait = 0;

	if (!load_seq_cst(&s->gcwaiting))
		return;
	for (int32_t i = 0; i < load_relaxed(&s->gomaxprocs); i++)
		wait += load_relaxed(&rt->allp[i].status) != _Pgcstop;
	store_relaxed(&s->stopwait, wait);
	if (wait == 0)
		note_wakeup(&s->stopnote);
}

static void rebuildP(struct gmp *rt, uint32_t p)
{
	struct schedt *s = rt->s;
	struct p *pp = P(rt, p);
	bool stopping = load_seq_cst(&s->gcwaiting);

	maskclear(s->idlepMask, p - 1);
	maskset(s->timerpMask, p - 1);
	pp->adrift = 0;
	if (stopping && load_relaxed(&pp->status) == _Pgcstop)
		return;
	if (ownerOf(rt, p))
		return;
	store_relaxed(&pp->m, 0);
	store_seq_cst(&pp->status, stopping ? _Pgcstop : _Pidle);
	if (stopping)
		return;
	if (runqempty(pp))
		pidleput(rt, p);
	else
		pp->adrift = 1;
	maskset(s->timerpMask, p - 1);
}

static void rebuildPs(struct gmp *rt)
{
	struct schedt *s = rt->s;

	store_relaxed(&s->pidle, 0);
	store_seq_cst(&s->npidle, 0);
	for (int32_t i = load_relaxed(&s->gomaxprocs) - 1; i >= 0; i--)
		rebuildP(rt, (uint32_t)i + 1);
	for (int32_t i = load_relaxed(&s->gomaxprocs); i < GMP_MAXPROCS; i++)
		store_relaxed(&rt->allp[i].status, _Pdead); /* also those that a procresize had just made */
	rebuildStop(rt);
}

/*
 * The world was being stopped by one of those who have just died: it goes on. Not by one who died before: the kernel may
 * have given his id to a live one since.
 */
static void endStopOfTheDead(struct gmp *rt)
{
	struct schedt *s = rt->s;
	uint32_t stopper = load_seq_cst(&s->worldsema.key) & ~SLEEPERS;

	for (uint32_t m = 1; stopper && m <= mLast(rt); m++)
		if (load_relaxed(&M(rt, m)->dead) == M_DIED && (uint32_t)load_relaxed(&M(rt, m)->procid) == stopper) {
			store_seq_cst(&s->gcwaiting, 0);
			store_relaxed(&s->newprocs, 0);
			lockrelease(&s->worldsema, stopper);
			return;
		}
}

void rebuild(struct gmp *rt)
{
	endStopOfTheDead(rt);
	loseThoseOfTheDead(rt);
	rebuildWaits(rt);
	timersRebuild(rt, NULL);
	rebuildQueues(rt);
	rebuildFree(rt);
	rebuildSudogs(rt);
	rebuildMs(rt);
	rebuildPs(rt);
	chansRebuild(rt);
	heapRebuild(rt); /* last: it asks who lives, and who waits with what */
}
