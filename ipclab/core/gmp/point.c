/* point.c: see point.h. */
#define _GNU_SOURCE
#include "point.h"

#ifdef IPCLAB_POINTS
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include "proc.h"

#define ANY_POINT 1 /* no name hashes to it: a countdown over all points */

uint32_t pointhash(const char *name)
{
	uint32_t hash = 2166136261u; /* FNV-1a */

	for (; *name; name++)
		hash = (hash ^ (unsigned char)*name) * 16777619u;
	return hash | 2;
}

/* One M in the whole runtime takes the blow: the countdown is shared. */
static void struck(struct gmp *rt, const char *name)
{
	uint32_t armed = load_relaxed(&rt->s->killpoint);

	if (!rt->m || rt->s->threads || (armed != ANY_POINT && armed != pointhash(name)))
		return;
	if (add_seq_cst(&rt->s->killcountdown, -1) != 1)
		return;
	store_seq_cst(&rt->s->killpoint, 0);
	kill(getpid(), (int)load_seq_cst(&rt->s->killsignal));
}

/* While a blow is awaited, who comes to any point dawdles there now and then: that opens windows to the others. */
static void dawdle(struct gmp *rt)
{
	if (rt->s->randomize && cheaprandn(rt, 256) == 0)
		nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL);
}

void pointhit(struct gmp *rt, const char *name)
{
	if (load_relaxed(&rt->s->killpoint)) {
		struck(rt, name);
		dawdle(rt);
	}
	if (rt->s->randomize && cheaprandn(rt, 64) == 0)
		sched_yield();
}
#endif
