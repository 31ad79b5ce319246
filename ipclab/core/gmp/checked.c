/* checked.c: see checked.h. */
#define _GNU_SOURCE
#include "checked.h"

#ifdef IPCLAB_CHECKED
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/procstat.h"
#include "point.h"
#include "proc.h"
#include "runq.h"

#define EVERY 64u     /* chosen: a look at all Ms, or at the kernel, once in so many rounds */
#define WALK_MOST 16  /* lists longer than this are walked once in EVERY times */

static _Thread_local uint32_t rounds, walks; /* an M's own */

static bool repaired(struct gmp *rt)
{
	return !load_seq_cst(&rt->s->gate);
}

void checkFailed(struct gmp *rt, const char *file, int line, const char *what)
{
	const char *name = strrchr(file, '/');
	char text[sizeof rt->s->fataltext];

	snprintf(text, sizeof text, "%s:%d: %s", name ? name + 1 : file, line, what);
	throw(rt, text);
}

/* --- M to kernel entity ---------------------------------------------------------------------------------------------- */

/* When the calling thread was started, in clock ticks since boot; 0 where /proc does not tell. */
static uint64_t startTicks(void)
{
	char text[1024];
	struct procstat stat;
	int fd = open("/proc/thread-self/stat", O_RDONLY | O_CLOEXEC);
	ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text);

	if (fd >= 0)
		close(fd);
	return size > 0 && procstat_parse(text, (size_t)size, &stat) == 0 ? stat.start_ticks : 0;
}

static bool isAlive(struct m *mp)
{
	return load_seq_cst(&mp->dead) == M_ALIVE && !load_seq_cst(&mp->exiting);
}

void checkBirth(struct gmp *rt)
{
	ALWAYS(rt, load_relaxed(&rt->m->starttime) == 0, "M to kernel entity: the record had one before");
	store_relaxed(&rt->m->starttime, startTicks());
	POINT(rt, "checked.birth");
	checkSelf(rt);
}

/* A dead one's id may have been given to us before the template has reaped it: so ask twice. */
static bool hasOurId(struct gmp *rt, struct m *mp)
{
	return mp != rt->m && load_relaxed(&mp->procid) == load_relaxed(&rt->m->procid) && isAlive(mp) &&
	       load_relaxed(&mp->starttime) == load_relaxed(&rt->m->starttime);
}

void checkSelf(struct gmp *rt)
{
	struct m *mp = rt->m;

	ALWAYS(rt, load_relaxed(&mp->curg) == 0, "M to G: between two Gs, and has one");
	if (rounds++ % EVERY)
		return;
	ALWAYS(rt, load_relaxed(&mp->procid) == gettid(), "M to kernel entity: not the thread it was born as");
	ALWAYS(rt, load_relaxed(&mp->starttime) == startTicks(), "M to kernel entity: another start time");
	for (uint32_t m = 1; m <= mLast(rt); m++)
		ALWAYS(rt, !hasOurId(rt, M(rt, m)), "M to kernel entity: two Ms are one");
}

/* --- M to P, M to G, P to G ------------------------------------------------------------------------------------------ */

void checkBound(struct gmp *rt)
{
	struct p *pp = rt->p;

	ALWAYS(rt, pp && load_relaxed(&rt->m->p) == P_INDEX(pp), "M to P: m.p is not its P");
	ALWAYS(rt, load_relaxed(&pp->m) == M_INDEX(rt, rt->m), "M to P: p.m is not its M");
	ALWAYS(rt, load_relaxed(&pp->status) == _Prunning, "M to P: bound, and the P is not _Prunning");
	if (rounds % EVERY)
		return;
	for (uint32_t m = 1; m <= mLast(rt); m++) {
		struct m *mp = M(rt, m);

		if (mp == rt->m || !isAlive(mp))
			continue;
		ALWAYS(rt, load_relaxed(&mp->p) != P_INDEX(pp), "M to P: two Ms have the same P");
		ALWAYS(rt, load_relaxed(&mp->nextp) != P_INDEX(pp), "M to P: a P in use is promised to another M");
	}
}

void checkRuns(struct gmp *rt, uint32_t g)
{
	struct g *gp = G(rt, g);

	ALWAYS(rt, load_relaxed(&gp->m) == M_INDEX(rt, rt->m), "M to G: g.m is not its M");
	ALWAYS(rt, load_relaxed(&rt->m->curg) == g, "M to G: m.curg is not its G");
	ALWAYS(rt, load_relaxed(&gp->queued) == QUEUED_NOWHERE, "P to G: runs, and is on a run queue");
	checkBound(rt);
	if (rounds % EVERY)
		return;
	for (uint32_t m = 1; m <= mLast(rt); m++)
		ALWAYS(rt, M(rt, m) == rt->m || !isAlive(M(rt, m)) || load_relaxed(&M(rt, m)->curg) != g,
		       "M to G: two Ms run the same G");
}

void checkQueued(struct gmp *rt, uint32_t g, uint32_t from, uint32_t to, const char *file, int line)
{
	uint32_t seen = from;

	/* Relaxed: a check that orders would hide from ThreadSanitizer that the queue itself does not. */
	if (!atomic_compare_exchange_strong_explicit(&G(rt, g)->queued, &seen, to, memory_order_relaxed,
						     memory_order_relaxed))
		checkFailed(rt, file, line, seen ? "P to G: on a run queue already" : "P to G: on no run queue");
	POINT(rt, "checked.queued");
}

/* --- idle lists, spinning -------------------------------------------------------------------------------------------- */

static void checkIdlePs(struct gmp *rt)
{
	int32_t n = 0, most = load_relaxed(&rt->s->npidle);

	for (uint32_t p = load_relaxed(&rt->s->pidle); p && n <= most; p = load_relaxed(&P(rt, p)->link), n++) {
		ALWAYS(rt, runqempty(P(rt, p)), "idle list: a P with work");
		ALWAYS(rt, load_relaxed(&P(rt, p)->status) == _Pidle, "idle list: a P that is not _Pidle");
		ALWAYS(rt, load_relaxed(&P(rt, p)->m) == 0, "idle list: a P with an M");
		ALWAYS(rt, maskread(rt->s->idlepMask, p - 1), "idle list: a P that the mask does not name");
	}
	ALWAYS(rt, n == most, "idle list: npidle is not how many Ps are on it");
}

static void checkIdleMs(struct gmp *rt)
{
	int32_t n = 0, most = load_relaxed(&rt->s->nmidle);

	for (uint32_t m = load_relaxed(&rt->s->midle); m && n <= most; m = load_relaxed(&M(rt, m)->schedlink), n++) {
		struct m *mp = M(rt, m);

		ALWAYS(rt, load_relaxed(&mp->idle), "idle list: an M that does not say so");
		ALWAYS(rt, !load_relaxed(&mp->p) && !load_relaxed(&mp->nextp), "idle list: an M with a P");
		ALWAYS(rt, !load_relaxed(&mp->curg), "idle list: an M with a G");
		ALWAYS(rt, !load_relaxed(&mp->spinning), "idle list: an M that spins");
	}
	ALWAYS(rt, n == most, "idle list: nmidle is not how many Ms are on it");
}

void checkIdle(struct gmp *rt)
{
	if (!repaired(rt))
		return;
	if (load_relaxed(&rt->s->npidle) + load_relaxed(&rt->s->nmidle) > WALK_MOST && walks++ % EVERY)
		return;
	checkIdlePs(rt);
	checkIdleMs(rt);
}

void checkAllIdle(struct gmp *rt)
{
	ALWAYS(rt, load_seq_cst(&rt->s->nmspinning) == 0, "spinning: counted, and every M is idle");
}
#endif
