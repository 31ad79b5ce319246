/* schedtrace.c: see schedtrace.h. (Go: runtime/proc.go, schedtrace.) */
#define _GNU_SOURCE
#include "schedtrace.h"

#include <stdarg.h>
#include <stdio.h>

#include "proc.h"
#include "script.h"

struct text { /* a buffer that counts on when it is full */
	char *into;
	size_t size, length;
};

__attribute__((format(printf, 2, 3))) static void print(struct text *text, const char *format, ...)
{
	size_t room = text->length < text->size ? text->size - text->length : 0;
	va_list arguments;
	int n;

	va_start(arguments, format);
	n = vsnprintf(room ? text->into + text->length : NULL, room, format, arguments);
	va_end(arguments);
	text->length += n > 0 ? (size_t)n : 0;
}

/* "nil", or the number of what an index names. */
static void printRef(struct text *text, uint32_t index, int64_t number)
{
	if (index)
		print(text, "%lld", (long long)number);
	else
		print(text, "nil");
}

static int64_t mId(struct gmp *rt, uint32_t m)
{
	return m < rt->s->maxmcount ? load_relaxed(&M(rt, m)->id) : -1;
}

static uint64_t goidOf(struct gmp *rt, uint32_t g)
{
	return g <= load_acquire(&rt->s->allglen) ? load_relaxed(&G(rt, g)->goid) : 0;
}

/* Bounded: an observer reads what another process has written. */
static int32_t gomaxprocs(struct gmp *rt)
{
	int32_t n = load_relaxed(&rt->s->gomaxprocs);

	return n < GMP_MAXPROCS ? n : GMP_MAXPROCS;
}

static uint32_t runqsize(struct p *pp)
{
	return load_seq_cst(&pp->runqtail) - load_seq_cst(&pp->runqhead);
}

static void headline(struct gmp *rt, struct text *text)
{
	struct schedt *s = rt->s;

	print(text,
	      "SCHED %lldms: gomaxprocs=%d idleprocs=%d threads=%lld spinningthreads=%d needspinning=%u idlethreads=%d "
	      "runqueue=%d",
	      (long long)((nanotime() - s->starttime) / 1000000), load_relaxed(&s->gomaxprocs), load_relaxed(&s->npidle),
	      (long long)mcount(rt), load_relaxed(&s->nmspinning), load_relaxed(&s->needspinning), load_relaxed(&s->nmidle),
	      load_relaxed(&s->runq.size));
}

static void shortPs(struct gmp *rt, struct text *text)
{
	int32_t n = gomaxprocs(rt);

	for (int32_t i = 0; i < n; i++)
		print(text, "%s%u%s", i == 0 ? " [ " : " ", runqsize(&rt->allp[i]), i == n - 1 ? " ]" : "");
	print(text, " schedticks=[ ");
	for (int32_t i = 0; i < n; i++)
		print(text, "%u ", load_relaxed(&rt->allp[i].schedtick));
	print(text, "]\n");
}

static void detailedPs(struct gmp *rt, struct text *text)
{
	struct schedt *s = rt->s;

	print(text, " gcwaiting=%s nmidlelocked=%d stopwait=%d sysmonwait=%s\n",
	      load_relaxed(&s->gcwaiting) ? "true" : "false", load_relaxed(&s->nmidlelocked), load_relaxed(&s->stopwait),
	      load_relaxed(&s->sysmonwait) ? "true" : "false");
	for (int32_t i = 0; i < gomaxprocs(rt); i++) {
		struct p *pp = &rt->allp[i];
		uint32_t m = load_relaxed(&pp->m);

		print(text, "  P%d: status=%u schedtick=%u syscalltick=%u m=", i, load_relaxed(&pp->status),
		      load_relaxed(&pp->schedtick), load_relaxed(&pp->syscalltick));
		printRef(text, m, mId(rt, m));
		print(text, " runqsize=%u gfreecnt=%u timerslen=%u\n", runqsize(pp), load_relaxed(&pp->gFreeN),
		      load_relaxed(&pp->timers.len));
	}
}

static const char *truth(uint32_t word)
{
	return word ? "true" : "false";
}

static void detailedMs(struct gmp *rt, struct text *text)
{
	for (uint32_t m = load_acquire(&rt->s->allm); m && m < rt->s->maxmcount; m = load_relaxed(&M(rt, m)->alllink)) {
		struct m *mp = M(rt, m);
		uint32_t p = load_relaxed(&mp->p), g = load_relaxed(&mp->curg), locked = load_relaxed(&mp->lockedg);

		if (load_relaxed(&mp->exiting) || load_relaxed(&mp->dead))
			continue; /* Go takes them off allm */
		print(text, "  M%lld: p=", (long long)load_relaxed(&mp->id));
		printRef(text, p, (int64_t)p - 1);
		print(text, " curg=");
		printRef(text, g, (int64_t)goidOf(rt, g));
		print(text, " mallocing=0 throwing=0 preemptoff= locks=%d dying=0 spinning=%s blocked=%s lockedg=",
		      load_relaxed(&mp->locks), truth(load_relaxed(&mp->spinning)), truth(load_relaxed(&mp->blocked)));
		printRef(text, locked, (int64_t)goidOf(rt, locked));
		print(text, "\n");
	}
}

static void detailedGs(struct gmp *rt, struct text *text)
{
	uint32_t n = load_acquire(&rt->s->allglen);

	for (uint32_t g = 1; g <= n; g++) {
		struct g *gp = G(rt, g);
		uint32_t m = load_relaxed(&gp->m), locked = load_relaxed(&gp->lockedm);

		print(text, "  G%llu: status=%u(%s) m=", (unsigned long long)load_relaxed(&gp->goid),
		      load_relaxed(&gp->atomicstatus), waitReasonString(load_relaxed(&gp->waitreason)));
		printRef(text, m, mId(rt, m));
		print(text, " lockedm=");
		printRef(text, locked, mId(rt, locked));
		print(text, "\n");
	}
}

int64_t schedtrace(struct gmp *rt, bool detailed, char *into, size_t size)
{
	struct text text = {.into = into, .size = size};

	if (!into && size)
		return -EINVAL;
	headline(rt, &text);
	if (!detailed) {
		shortPs(rt, &text);
		return (int64_t)text.length;
	}
	detailedPs(rt, &text);
	detailedMs(rt, &text);
	detailedGs(rt, &text);
	return (int64_t)text.length;
}
