/* m.c: Ms and Ps: who has which, who is idle, who is woken. See the essay in proc.c. */
#define _GNU_SOURCE
#include "checked.h"
#include "events.h"
#include "lock_futex.h"
#include "point.h"
#include "proc.h"
#include "runq.h"

/* --- masks of Ps --- */

bool maskread(_Atomic uint32_t *mask, uint32_t id)
{
	return load_seq_cst(&mask[id / 32]) >> (id % 32) & 1;
}

void maskset(_Atomic uint32_t *mask, uint32_t id)
{
	atomic_fetch_or_explicit(&mask[id / 32], UINT32_C(1) << (id % 32), memory_order_seq_cst);
}

void maskclear(_Atomic uint32_t *mask, uint32_t id)
{
	atomic_fetch_and_explicit(&mask[id / 32], ~(UINT32_C(1) << (id % 32)), memory_order_seq_cst);
}

/* --- binding ---------------------------------------------------------------------------------------------------------
 *
 *   idle P --pidleget--> in hand --nextp or directly--> acquirep: P.m, M.p, _Prunning --releasep--> in hand, _Pidle
 */

void pstatus(struct gmp *rt, struct p *pp, uint32_t to)
{
	uint32_t from = load_relaxed(&pp->status);

	store_seq_cst(&pp->status, to);
	POINT(rt, "pstatus.to");
	event(rt, EV_PSTATUS, 0, (uint64_t)pp->id << 32 | from << 8 | to);
}

bool pcas(struct gmp *rt, struct p *pp, uint32_t from, uint32_t to)
{
	uint32_t seen = from;

	if (!cas_seq_cst(&pp->status, &seen, to))
		return false;
	POINT(rt, "pcas.to");
	event(rt, EV_PSTATUS, 0, (uint64_t)pp->id << 32 | from << 8 | to);
	return true;
}

void wirep(struct gmp *rt, uint32_t p)
{
	struct p *pp = P(rt, p);

	if (rt->p)
		throw(rt, "wirep: already in go");
	if (load_relaxed(&pp->m) || load_relaxed(&pp->status) != _Pidle)
		throw(rt, "wirep: invalid p state");
	rt->p = pp;
	eventWho(rt);
	store_relaxed(&rt->m->p, p);
	POINT(rt, "wirep.p");
	store_release(&pp->m, M_INDEX(rt, rt->m));
	POINT(rt, "wirep.m");
	pstatus(rt, pp, _Prunning);
	checkBound(rt);
}

void acquirep(struct gmp *rt, uint32_t p)
{
	wirep(rt, p);
	event(rt, EV_ACQUIREP, 0, p - 1);
}

uint32_t releasep(struct gmp *rt)
{
	struct p *pp = rt->p;

	if (!pp)
		throw(rt, "releasep: invalid arg");
	if (load_relaxed(&pp->m) != M_INDEX(rt, rt->m) || load_relaxed(&rt->m->p) != P_INDEX(pp) ||
	    load_relaxed(&pp->status) != _Prunning)
		throw(rt, "releasep: invalid p state");
	event(rt, EV_RELEASEP, 0, pp->id);
	rt->p = NULL;
	eventWho(rt);
	store_relaxed(&rt->m->p, 0);
	POINT(rt, "releasep.p");
	store_relaxed(&pp->m, 0);
	POINT(rt, "releasep.m");
	pstatus(rt, pp, _Pidle);
	return P_INDEX(pp);
}

/* --- idle lists; sched.lock is held --- */

void pidleput(struct gmp *rt, uint32_t p)
{
	struct schedt *s = rt->s;
	struct p *pp = P(rt, p);

	if (!runqempty(pp))
		throw(rt, "pidleput: P has non-empty run queue");
	if (load_seq_cst(&pp->timers.len) == 0)
		maskclear(s->timerpMask, pp->id);
	POINT(rt, "pidleput.timers");
	maskset(s->idlepMask, pp->id);
	POINT(rt, "pidleput.idle");
	store_relaxed(&pp->link, load_relaxed(&s->pidle));
	POINT(rt, "pidleput.linked");
	store_relaxed(&s->pidle, p);
	POINT(rt, "pidleput.listed");
	add_seq_cst(&s->npidle, 1);
	POINT(rt, "pidleput.counted");
	event(rt, EV_PIDLE, 0, (uint64_t)pp->id << 1 | 1);
	checkIdle(rt);
}

uint32_t pidleget(struct gmp *rt)
{
	struct schedt *s = rt->s;
	uint32_t p = load_relaxed(&s->pidle);

	if (!p)
		return 0;
	maskset(s->timerpMask, p - 1); /* it may get timers, unseen from now on */
	POINT(rt, "pidleget.timers");
	maskclear(s->idlepMask, p - 1);
	POINT(rt, "pidleget.notidle");
	store_relaxed(&s->pidle, load_relaxed(&P(rt, p)->link));
	POINT(rt, "pidleget.taken");
	add_seq_cst(&s->npidle, -1);
	POINT(rt, "pidleget.counted");
	event(rt, EV_PIDLE, 0, (uint64_t)(p - 1) << 1);
	checkIdle(rt);
	return p;
}

uint32_t pidlegetSpinning(struct gmp *rt)
{
	uint32_t p = pidleget(rt);

	if (!p) {
		store_seq_cst(&rt->s->needspinning, 1); /* whoever drops a P next looks in our place */
		POINT(rt, "pidleget.none");
	}
	return p;
}

void mput(struct gmp *rt, uint32_t m)
{
	struct schedt *s = rt->s;

	store_relaxed(&M(rt, m)->idle, 1);
	POINT(rt, "mput.idle");
	store_relaxed(&M(rt, m)->schedlink, load_relaxed(&s->midle));
	POINT(rt, "mput.linked");
	store_relaxed(&s->midle, m);
	POINT(rt, "mput.listed");
	store_relaxed(&s->nmidle, load_relaxed(&s->nmidle) + 1);
	POINT(rt, "mput.counted");
	checkIdle(rt);
	checkdead(rt);
}

uint32_t mget(struct gmp *rt)
{
	struct schedt *s = rt->s;
	uint32_t m = load_relaxed(&s->midle);

	if (!m)
		return 0;
	store_relaxed(&s->midle, load_relaxed(&M(rt, m)->schedlink));
	POINT(rt, "mget.taken");
	store_relaxed(&M(rt, m)->idle, 0);
	POINT(rt, "mget.notidle");
	store_relaxed(&s->nmidle, load_relaxed(&s->nmidle) - 1);
	POINT(rt, "mget.counted");
	checkIdle(rt);
	return m;
}

int64_t mcount(struct gmp *rt)
{
	return load_relaxed(&rt->s->mnext) - load_relaxed(&rt->s->nmfreed);
}

/* --- sleeping and waking --- */

void mPark(struct gmp *rt)
{
	struct m *mp = rt->m;

	store_relaxed(&mp->blocked, 1);
	POINT(rt, "mPark.blocked");
	leaveRuntime(rt, M_PARKED);
	/* -EINTR: a signal that is nothing to us. no point: the note is again as it was */
	while (note_sleep(&mp->park, NO_DEADLINE, 0) != 0)
		;
	POINT(rt, "mPark.slept");
	enterRuntime(rt);
	/* Within the gate: as long as an M is outside and blocked, its note says whether it has been woken. */
	note_clear(&mp->park);
	POINT(rt, "mPark.cleared");
	store_relaxed(&mp->blocked, 0);
	POINT(rt, "mPark.awake");
	if (load_seq_cst(&rt->s->exiting))
		mexit(rt);
	event(rt, EV_UNPARK, 0, 0);
}

void stopm(struct gmp *rt)
{
	struct m *mp = rt->m;

	if (load_relaxed(&mp->locks) || rt->p || load_relaxed(&mp->spinning))
		throw(rt, "stopm: holding locks, a P, or spinning");
	event(rt, EV_PARK, 0, 1);
	lock(rt, &rt->s->lock);
	mput(rt, M_INDEX(rt, mp));
	unlock(rt, &rt->s->lock);
	POINT(rt, "stopm.listed");
	mPark(rt);
	acquirep(rt, load_relaxed(&mp->nextp));
	store_relaxed(&mp->nextp, 0);
	POINT(rt, "stopm.taken");
}

/* --- starting --- */

void startm(struct gmp *rt, uint32_t p, bool spinning, bool lockheld)
{
	struct schedt *s = rt->s;
	uint32_t m, made = 0;
	bool makes;

	if (!lockheld)
		lock(rt, &s->lock);
	if (!p)
		p = pidleget(rt);
	m = p ? mget(rt) : 0;
	/* It is reserved under the lock: between two of these, checkdead must not see a P in nobody's hands. */
	makes = p && !m;
	if (makes)
		made = mReserve(rt);
	if (!lockheld || makes)
		unlock(rt, &s->lock);
	if (makes) {
		POINT(rt, "startm.reserved");
		newmReserved(rt, spinning ? MSTART_SPINNING : MSTART_NONE, p, made);
		if (lockheld)
			lock(rt, &s->lock);
	}
	if (!m)
		return;
	if (load_relaxed(&M(rt, m)->spinning) || load_relaxed(&M(rt, m)->nextp))
		throw(rt, "startm: m is spinning or has p");
	if (spinning && !runqempty(P(rt, p)))
		throw(rt, "startm: p has runnable gs");
	store_relaxed(&M(rt, m)->spinning, spinning);
	POINT(rt, "startm.spinning");
	store_relaxed(&M(rt, m)->nextp, p);
	POINT(rt, "startm.nextp");
	notewakeup(rt, &M(rt, m)->park);
}

void wakep(struct gmp *rt)
{
	struct schedt *s = rt->s;
	int32_t none = 0;
	uint32_t p;

	if (load_seq_cst(&s->nmspinning) != 0 || !cas_seq_cst(&s->nmspinning, &none, 1))
		return;
	POINT(rt, "wakep.counted");
	lock(rt, &s->lock);
	p = pidlegetSpinning(rt);
	if (!p) {
		add_seq_cst(&s->nmspinning, -1);
		POINT(rt, "wakep.uncounted");
	}
	unlock(rt, &s->lock);
	if (!p)
		return;
	event(rt, EV_WAKEP, 0, p - 1);
	POINT(rt, "wakep.p");
	startm(rt, p, true, false);
}

/* A P whose M blocks: wherever findRunnable would find work for it, an M is started; else it becomes idle. */
void handoffp(struct gmp *rt, uint32_t p)
{
	struct schedt *s = rt->s;
	struct p *pp = P(rt, p);
	int32_t none = 0;
	int64_t when;

	event(rt, EV_HANDOFF, 0, p - 1);
	if (rt->m)
		count_up(&rt->m->handoffs);
	if (!runqempty(pp) || load_seq_cst(&s->runq.size)) {
		startm(rt, p, false, false);
		return;
	}
	/* Nobody spins and no P is idle: there may be work about to appear that nobody would look for. */
	if (load_seq_cst(&s->nmspinning) + load_seq_cst(&s->npidle) == 0 && cas_seq_cst(&s->nmspinning, &none, 1)) {
		POINT(rt, "handoffp.counted");
		store_seq_cst(&s->needspinning, 0);
		POINT(rt, "handoffp.need");
		startm(rt, p, true, false);
		return;
	}
	lock(rt, &s->lock);
	if (load_seq_cst(&s->gcwaiting)) {
		worldstopped(rt, pp);
		unlock(rt, &s->lock);
		return;
	}
	/* The last running P, and nobody sleeps for the timers: somebody must. */
	if (load_relaxed(&s->runq.size) ||
	    (load_relaxed(&s->npidle) == load_relaxed(&s->gomaxprocs) - 1 && load_seq_cst(&s->lastpoll))) {
		unlock(rt, &s->lock);
		startm(rt, p, false, false);
		return;
	}
	when = load_seq_cst(&pp->timers.minWhen);
	pidleput(rt, p);
	unlock(rt, &s->lock);
	if (when)
		wakeNetPoller(rt, when);
}

/* --- Ms locked to a G --- */

void incidlelocked(struct gmp *rt, int32_t delta)
{
	struct schedt *s = rt->s;

	lock(rt, &s->lock);
	store_relaxed(&s->nmidlelocked, load_relaxed(&s->nmidlelocked) + delta);
	POINT(rt, "incidlelocked.counted");
	if (delta > 0)
		checkdead(rt);
	unlock(rt, &s->lock);
}

/* This M waits until somebody has its locked G in hand and gives it a P. */
void stoplockedm(struct gmp *rt)
{
	struct m *mp = rt->m;
	uint32_t g = load_relaxed(&mp->lockedg);

	if (!g || load_relaxed(&G(rt, g)->lockedm) != M_INDEX(rt, mp))
		throw(rt, "stoplockedm: inconsistent locking");
	if (rt->p)
		handoffp(rt, releasep(rt));
	store_relaxed(&mp->lockedwait, 1);
	POINT(rt, "stoplockedm.waits");
	event(rt, EV_PARK, load_relaxed(&G(rt, g)->goid), 2);
	incidlelocked(rt, 1);
	POINT(rt, "stoplockedm.counted");
	mPark(rt);
	if (load_relaxed(&G(rt, g)->atomicstatus) != _Grunnable)
		throw(rt, "stoplockedm: not runnable");
	acquirep(rt, load_relaxed(&mp->nextp));
	store_relaxed(&mp->nextp, 0);
	POINT(rt, "stoplockedm.taken");
}

/* Gives our P to the M that g is locked to, and stops. */
void startlockedm(struct gmp *rt, uint32_t g)
{
	struct m *mp = M(rt, load_relaxed(&G(rt, g)->lockedm));

	if (mp == rt->m || load_relaxed(&mp->nextp))
		throw(rt, "startlockedm: locked to me, or m has p");
	event(rt, EV_LOCKEDM, load_relaxed(&G(rt, g)->goid), (uint64_t)load_relaxed(&mp->id));
	incidlelocked(rt, -1);
	store_relaxed(&mp->lockedwait, 0);
	POINT(rt, "startlockedm.uncounted");
	store_relaxed(&mp->nextp, releasep(rt));
	POINT(rt, "startlockedm.nextp");
	notewakeup(rt, &mp->park);
	stopm(rt);
}
