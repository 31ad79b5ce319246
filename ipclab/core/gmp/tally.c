/*
 * tally.c: how many Gs were born, how many have ended, and with what result.
 *
 * Every M counts for itself, so counting costs no locked instruction; readers add up. A G's birth and end are commits of
 * its status; a count that is one store away from them could be missed by a kill. So the M first notes in its log which G
 * it is about to change and what its count was: whoever repairs looks at the status and stores the count that belongs to
 * it. The log names a G that nobody else can change until the log is cleared.
 */
#define _GNU_SOURCE
#include "events.h"
#include "point.h"
#include "proc.h"

struct tally *talliesOf(struct gmp *rt, uint32_t m)
{
	return (struct tally *)((char *)rt->s + rt->s->off_marea + m * rt->s->mareabytes);
}

static void openLog(struct gmp *rt, uint32_t entry, uint64_t count, uint64_t acc)
{
	/* no point: nobody reads them before the log says of which G */
	store_relaxed(&rt->m->logcount, count);
	store_relaxed(&rt->m->logacc, acc);

	store_release(&rt->m->log, entry);
	POINT(rt, "tally.logged");
}

void tallyBirth(struct gmp *rt, uint32_t g)
{
	struct tally *tally = &rt->tallies[G(rt, g)->startpc];
	uint64_t before = load_relaxed(&tally->spawned);

	if (rt->m)
		openLog(rt, g | LOG_BIRTH, before, 0);
	casgstatus(rt, g, _Gdead, _Grunnable);
	POINT(rt, "tally.born");
	store_relaxed(&tally->spawned, before + 1);
	POINT(rt, "tally.spawned");
	if (rt->m)
		store_release(&rt->m->log, 0);
	POINT(rt, "tally.birth");
}

static void addTimes(struct gmp *rt, struct tally *tally, struct g *gp)
{
	int64_t now;

	if (!rt->s->tracking)
		return;
	now = (int64_t)cputicks();
	store_relaxed(&tally->turnaround, load_relaxed(&tally->turnaround) + now - gp->created);
	store_relaxed(&tally->response, load_relaxed(&tally->response) + gp->started - gp->created);
	store_relaxed(&tally->waiting, load_relaxed(&tally->waiting) + gp->waited);
	store_relaxed(&tally->lastend, now);
}

void tallyEnd(struct gmp *rt, uint32_t g)
{
	struct g *gp = G(rt, g);
	struct tally *tally = &rt->tallies[gp->startpc];
	uint64_t count = load_relaxed(&tally->done), acc = load_relaxed(&tally->acc);

	openLog(rt, g, count, acc);
	casgstatus(rt, g, _Grunning, _Gdead);
	POINT(rt, "tally.dead");
	store_relaxed(&tally->acc, acc + gp->acc);
	POINT(rt, "tally.acc");
	store_relaxed(&tally->done, count + 1);
	addTimes(rt, tally, gp);
	POINT(rt, "tally.done");
	store_release(&rt->m->log, 0);
	POINT(rt, "tally.end");
}

/* no point: the template */
void tallyRedo(struct gmp *rt, uint32_t m)
{
	struct m *mp = M(rt, m);
	uint32_t entry = load_acquire(&mp->log), g = entry & ~LOG_BIRTH;
	bool dead = g && load_relaxed(&G(rt, g)->atomicstatus) == _Gdead;
	struct tally *tally;

	if (!entry)
		return;
	tally = &talliesOf(rt, m)[G(rt, g)->startpc];
	if (entry & LOG_BIRTH) {
		store_relaxed(&tally->spawned, load_relaxed(&mp->logcount) + !dead);
	} else if (dead) {
		store_relaxed(&tally->acc, load_relaxed(&mp->logacc) + G(rt, g)->acc);
		store_relaxed(&tally->done, load_relaxed(&mp->logcount) + 1);
	}
	store_release(&mp->log, 0);
}
