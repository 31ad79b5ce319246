/* gfree.c: records of Gs and sudogs: made, kept for the next, given back. See runq.h. */
#define _GNU_SOURCE
#include "lock_futex.h"
#include "point.h"
#include "proc.h"
#include "runq.h"

#define GFREE_MOST 64
#define GFREE_KEEP 32
#define SUDOG_BATCH 32
#define CHUNK_BYTES ((size_t)1 << 20) /* chosen: memory is asked for in megabytes; one question costs about 50 us */

/* --- dead Gs --- */

static void pushfree(struct gmp *rt, struct p *pp, uint32_t g)
{
	store_relaxed(&G(rt, g)->schedlink, pp->gFree);
	POINT(rt, "pushfree.linked");
	pp->gFree = g;
	POINT(rt, "pushfree.listed");
	store_relaxed(&pp->gFreeN, load_relaxed(&pp->gFreeN) + 1);
	POINT(rt, "pushfree.counted");
}

static uint32_t popfree(struct gmp *rt, struct p *pp)
{
	uint32_t g = pp->gFree;

	if (g) {
		pp->gFree = load_relaxed(&G(rt, g)->schedlink);
		POINT(rt, "popfree.taken");
		store_relaxed(&pp->gFreeN, load_relaxed(&pp->gFreeN) - 1);
		POINT(rt, "popfree.counted");
	}
	return g;
}

static void givefree(struct gmp *rt, struct p *pp, uint32_t keep)
{
	struct schedt *s = rt->s;

	lock(rt, &s->gFreelock);
	while (load_relaxed(&pp->gFreeN) > keep) {
		uint32_t g = popfree(rt, pp);

		store_relaxed(&G(rt, g)->schedlink, load_relaxed(&s->gFree));
		POINT(rt, "gfput.linked");
		store_relaxed(&s->gFree, g);
		POINT(rt, "gfput.listed");
		store_relaxed(&s->gFreeN, load_relaxed(&s->gFreeN) + 1);
		POINT(rt, "gfput.counted");
	}
	unlock(rt, &s->gFreelock);
}

void gfput(struct gmp *rt, struct p *pp, uint32_t g)
{
	if (load_relaxed(&G(rt, g)->atomicstatus) != _Gdead)
		throw(rt, "gfput: bad status (not Gdead)");
	pushfree(rt, pp, g);
	if (load_relaxed(&pp->gFreeN) >= GFREE_MOST)
		givefree(rt, pp, GFREE_KEEP - 1);
}

void gfpurge(struct gmp *rt, struct p *pp)
{
	givefree(rt, pp, 0);
}

uint32_t gfget(struct gmp *rt, struct p *pp)
{
	struct schedt *s = rt->s;

	if (!pp->gFree && load_relaxed(&s->gFree)) {
		lock(rt, &s->gFreelock);
		for (uint32_t g; load_relaxed(&pp->gFreeN) < GFREE_KEEP && (g = load_relaxed(&s->gFree));) {
			store_relaxed(&s->gFree, load_relaxed(&G(rt, g)->schedlink));
			POINT(rt, "gfget.taken");
			store_relaxed(&s->gFreeN, load_relaxed(&s->gFreeN) - 1);
			POINT(rt, "gfget.popped");
			pushfree(rt, pp, g);
		}
		unlock(rt, &s->gFreelock);
	}
	return popfree(rt, pp);
}

int commitRecord(struct gmp *rt, uint64_t off, size_t size, uint32_t index, uint32_t *committed, uint32_t most)
{
	uint32_t upto;
	int rc;

	if (index < *committed)
		return 0;
	upto = index + (uint32_t)(CHUNK_BYTES / size);
	upto = upto < most ? upto : most;
	rc = segment_commit(&rt->segment, off + *committed * size, (upto - *committed) * size);
	if (!rc)
		*committed = upto; /* less than has memory: asked for again, harmlessly */
	return rc;
}

uint32_t malg(struct gmp *rt, int *error)
{
	struct schedt *s = rt->s;
	uint32_t g;

	lock(rt, &s->allglock);
	g = load_relaxed(&s->allglen) + 1;
	*error = g > s->maxg ? -ENOSPC : commitRecord(rt, s->off_g, sizeof(struct g), g, &s->gcommitted, s->maxg + 1);
	if (!*error) {
		store_relaxed(&G(rt, g)->atomicstatus, _Gdead);
		POINT(rt, "malg.dead");
		store_release(&s->allglen, g);
		POINT(rt, "malg.listed");
	}
	unlock(rt, &s->allglock);
	return *error ? 0 : g;
}

uint64_t newgoid(struct gmp *rt, struct p *pp)
{
	uint64_t id = load_relaxed(&pp->goidcache);

	/* Past the end, and not at it: a batch that a dead one had begun to take. Its ids are not used. */
	if (id >= load_relaxed(&pp->goidcacheend)) {
		id = add_seq_cst(&rt->s->goidgen, GOID_BATCH) + 1;
		POINT(rt, "newgoid.batch");
		store_relaxed(&pp->goidcache, id);
		POINT(rt, "newgoid.cache");
		store_relaxed(&pp->goidcacheend, id + GOID_BATCH);
		POINT(rt, "newgoid.end");
	}
	store_relaxed(&pp->goidcache, id + 1);
	POINT(rt, "newgoid.taken");
	return id;
}

/* --- sudogs --- */

/* With sudoglock held: one from the shared list, or a new one. */
static uint32_t freshSudog(struct gmp *rt)
{
	struct schedt *s = rt->s;
	uint32_t sg = load_relaxed(&s->sudogfree), at;
	int rc;

	if (sg) {
		store_relaxed(&s->sudogfree, load_relaxed(&sudogOf(rt, sg)->next));
		POINT(rt, "sudog.taken");
		return sg;
	}
	at = s->sudoglen + 1;
	rc = at > s->maxsudog ? -ENOSPC : commitRecord(rt, s->off_sudog, sizeof(struct sudog), at, &s->sudogcommitted, s->maxsudog + 1);
	if (rc)
		return 0;
	s->sudoglen = at;
	POINT(rt, "sudog.made");
	return s->maxg + at;
}

static void cacheSudog(struct gmp *rt, struct p *pp, uint32_t sg)
{
	store_relaxed(&sudogOf(rt, sg)->next, pp->sudogcache);
	POINT(rt, "cacheSudog.linked");
	pp->sudogcache = sg;
	POINT(rt, "cacheSudog.listed");
	pp->sudogN++;
	POINT(rt, "cacheSudog.counted");
}

static uint32_t uncacheSudog(struct gmp *rt, struct p *pp)
{
	uint32_t sg = pp->sudogcache;

	if (sg) {
		pp->sudogcache = load_relaxed(&sudogOf(rt, sg)->next);
		POINT(rt, "uncacheSudog.taken");
		pp->sudogN--;
		POINT(rt, "uncacheSudog.counted");
	}
	return sg;
}

uint32_t acquireSudog(struct gmp *rt)
{
	struct p *pp = rt->p;

	if (!pp->sudogcache) {
		lock(rt, &rt->s->sudoglock);
		for (uint32_t sg; pp->sudogN < SUDOG_BATCH && (sg = freshSudog(rt));)
			cacheSudog(rt, pp, sg);
		unlock(rt, &rt->s->sudoglock);
	}
	return uncacheSudog(rt, pp);
}

void releaseSudog(struct gmp *rt, uint32_t sg)
{
	struct p *pp = rt->p;

	cacheSudog(rt, pp, sg);
	if (pp->sudogN < 2 * SUDOG_BATCH)
		return;
	lock(rt, &rt->s->sudoglock);
	while (pp->sudogN > SUDOG_BATCH) {
		sg = uncacheSudog(rt, pp);
		store_relaxed(&sudogOf(rt, sg)->next, load_relaxed(&rt->s->sudogfree));
		POINT(rt, "releaseSudog.linked");
		store_relaxed(&rt->s->sudogfree, sg);
		POINT(rt, "releaseSudog.listed");
	}
	unlock(rt, &rt->s->sudoglock);
}
