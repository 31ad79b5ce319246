/*
 * newm.c: new Ms: a record, what it needs, and the wish for a process, which the template fulfils.
 *
 *   new, or spare --mReserve--> reserved --allocm, newm--> to be born --newosproc--> M --its process has gone--> spare
 */
#define _GNU_SOURCE
#include "events.h"
#include "lock_futex.h"
#include "point.h"
#include "proc.h"
#include "template.h"

#define END_LOOK_NS INT64_C(50000)

/* The record of an M that is gone is as a new one. What it counted stays: it is of all who have had it. */
static void mClear(struct m *mp)
{
	/* no point: nobody has it, and observers see that it is dead */
	store_relaxed(&mp->procid, 0);
	store_relaxed(&mp->curg, 0);
	store_relaxed(&mp->p, 0);
	store_relaxed(&mp->nextp, 0);
	store_relaxed(&mp->oldp, 0);
	store_relaxed(&mp->spinning, 0);
	store_relaxed(&mp->blocked, 0);
	store_relaxed(&mp->lockedg, 0);
	store_relaxed(&mp->locks, 0);
	store_relaxed(&mp->mstartfn, MSTART_NONE);
	store_relaxed(&mp->idle, 0);
	store_relaxed(&mp->lockedwait, 0);
	store_relaxed(&mp->exiting, 0);
	store_relaxed(&mp->polling, 0);
	store_relaxed(&mp->stalled, 0);
	note_clear(&mp->park);
#ifdef IPCLAB_CHECKED
	store_relaxed(&mp->starttime, 0);
#endif
}

/*
 * A record for an M, with the next id: one whose process has gone, or else a new one, which is on allm from here on.
 * sched.lock is held. 0: there is no room. A record whose maker dies before it is on the template's list has no process,
 * and repair makes it one that has gone.
 */
uint32_t mReserve(struct gmp *rt)
{
	struct schedt *s = rt->s;
	uint32_t last = mLast(rt), m = load_seq_cst(&s->nmspare) > 0 || last + 1 >= s->maxmcount ? 1 : last + 1;
	int64_t id = load_relaxed(&s->mnext);

	while (m <= last && load_acquire(&M(rt, m)->dead) != M_REPAIRED)
		m++;
	if (m >= s->maxmcount)
		return 0;
	store_relaxed(&s->mnext, id + 1);
	POINT(rt, "mReserve.id");
	if (m > last) {
		store_relaxed(&M(rt, m)->id, id);
		POINT(rt, "mReserve.named");
		store_relaxed(&M(rt, m)->alllink, last);
		POINT(rt, "mReserve.linked");
		store_release(&s->allm, m);
		POINT(rt, "mReserve.listed");
		return m;
	}
	mClear(M(rt, m));
	store_relaxed(&M(rt, m)->id, id);
	POINT(rt, "mReserve.cleared");
	store_release(&M(rt, m)->dead, M_ALIVE);
	POINT(rt, "mReserve.taken");
	add_seq_cst(&s->nmspare, -1);
	POINT(rt, "mReserve.counted");
	return m;
}

/* Some M has ended in good order, and the template has only not come to reap it. (No thread is reaped.) */
static bool someEnd(struct gmp *rt)
{
	for (uint32_t m = 1; !rt->s->threads && m <= mLast(rt); m++)
		if (load_seq_cst(&M(rt, m)->exiting) && load_seq_cst(&M(rt, m)->dead) == M_ALIVE)
			return true;
	return false;
}

/*
 * There was no record. Those of Ms that end are waited for: they count no more, and a limit on Ms is none on how fast they
 * come and go. We wait inside, which is safe, because whoever waits for us to come out is the template, and goes on reaping.
 */
static uint32_t mReserveLate(struct gmp *rt)
{
	struct schedt *s = rt->s;

	for (;;) {
		bool ends = someEnd(rt), died;
		uint32_t m;

		if (ends && !rt->where)
			templateReap(rt, &died);
		lock(rt, &s->lock);
		m = mReserve(rt);
		unlock(rt, &s->lock);
		if (m || !ends || isOver(rt))
			return m;
		futex_wait_until(&s->exiting, 0, nanotime() + END_LOOK_NS);
	}
}

/* What the record m, as mReserve gave it, needs to become an M with that P as nextp. False: that ends the run. */
static bool allocm(struct gmp *rt, enum mstartfn fn, uint32_t p, uint32_t m)
{
	struct schedt *s = rt->s;
	int rc;

	if (!m) {
		fatal(rt, FATAL_THREADS, (uint64_t)mcount(rt), "thread exhaustion");
		return false;
	}
	rc = segment_commit(&rt->segment, s->off_marea + (uint64_t)m * s->mareabytes, s->mareabytes);
	if (rc) {
		fatal(rt, FATAL_MEMORY, (uint64_t)-rc, "no room for another M");
		return false;
	}
	/* no point: it has no process, and is on no list: repair frees it, whatever it says */
	store_relaxed(&M(rt, m)->mstartfn, fn);
	store_relaxed(&M(rt, m)->nextp, p);
	POINT(rt, "allocm.filled");
	return true;
}

/* Ms do not fork: the record is put on the template's list, and the template makes the process (newosproc). */
void newmReserved(struct gmp *rt, enum mstartfn fn, uint32_t p, uint32_t m)
{
	struct schedt *s = rt->s;

	if (!m)
		m = mReserveLate(rt);
	if (!allocm(rt, fn, p, m))
		return;
	event(rt, EV_NEWM, 0, (uint64_t)load_relaxed(&M(rt, m)->id));
	lock(rt, &s->newmlock);
	store_relaxed(&M(rt, m)->schedlink, load_relaxed(&s->newm));
	POINT(rt, "newm.linked");
	store_seq_cst(&s->newm, m);
	POINT(rt, "newm.there");
	unlock(rt, &s->newmlock);
	POINT(rt, "newm.listed");
	note_poke(&s->templatenote);
	POINT(rt, "newm.poked");
}

void newm(struct gmp *rt, enum mstartfn fn, uint32_t p)
{
	uint32_t m;

	lock(rt, &rt->s->lock);
	m = mReserve(rt);
	unlock(rt, &rt->s->lock);
	newmReserved(rt, fn, p, m);
}
