/* gmp.c: the segment of the scheduler, and what its user calls. See gmp.h. no point: the caller; if that is killed, all are. */
#define _GNU_SOURCE
#include "gmp.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "chan.h"
#include "checked.h"
#include "lock_futex.h"
#include "proc.h"
#include "runq.h"
#include "template.h"

#define PAGE 4096u
#define HEAP_MOST (UINT64_C(1) << 37) /* blocks are named by 31 bits */
#define WAIT_LOOK_NS INT64_C(50000000)

static uint32_t otherwise(uint32_t value, uint32_t instead)
{
	return value ? value : instead;
}

static uint64_t place(uint64_t *end, uint64_t bytes)
{
	uint64_t at = (*end + PAGE - 1) / PAGE * PAGE;

	*end = at + bytes;
	return at;
}

/* Where everything lies; returns how much of it must have memory from the start. */
static uint64_t layOut(struct schedt *s, const struct gmp_config *config, uint64_t *total)
{
	uint64_t end = sizeof *s, first;

	s->maxprograms = otherwise(config->programs, 64);
	s->maxsteps = otherwise(config->steps, 4096);
	s->maxchans = otherwise(config->chans, 1024);
	s->maxsemas = otherwise(config->semas, 1024);
	s->maxwords = otherwise(config->words, 65536);
	s->maxg = otherwise(config->maxg, 1u << 24);
	s->maxsudog = s->maxg < 1u << 22 ? s->maxg : 1u << 22;
	s->maxmcount = otherwise(config->maxm, 1024);
	s->eventslots = config->eventslots;
	s->maxspans = (uint32_t)(config->heapbytes / SPAN_BYTES);
	s->mareabytes = s->maxprograms * sizeof(struct tally) + s->eventslots * sizeof(struct event);
	s->mareabytes = (s->mareabytes + PAGE - 1) / PAGE * PAGE;
	s->off_programs = place(&end, s->maxprograms * sizeof(struct program));
	s->off_steps = place(&end, s->maxsteps * sizeof(struct step));
	s->off_p = place(&end, GMP_MAXPROCS * sizeof(struct p));
	s->off_m = place(&end, (s->maxmcount + 1) * sizeof(struct m));
	s->off_words = place(&end, s->maxwords * sizeof(uint64_t));
	s->off_spans = place(&end, s->maxspans * sizeof(uint32_t));
	s->off_marea = place(&end, s->mareabytes); /* the caller's; the Ms' are committed by allocm */
	first = end;
	end += (uint64_t)s->maxmcount * s->mareabytes;
	s->off_g = place(&end, ((uint64_t)s->maxg + 1) * sizeof(struct g));
	s->off_sudog = place(&end, ((uint64_t)s->maxsudog + 1) * sizeof(struct sudog));
	s->off_chans = place(&end, (uint64_t)s->maxchans * sizeof(struct hchan));
	s->off_semas = place(&end, (uint64_t)s->maxsemas * sizeof(struct sema));
	s->off_heap = place(&end, (uint64_t)s->maxspans * SPAN_BYTES);
	*total = end;
	return first;
}

static void find(struct gmp *rt)
{
	char *base = rt->segment.base;

	rt->s = rt->segment.base;
	rt->programs = (struct program *)(base + rt->s->off_programs);
	rt->steps = (struct step *)(base + rt->s->off_steps);
	rt->chans = (struct hchan *)(base + rt->s->off_chans);
	rt->semas = (struct sema *)(base + rt->s->off_semas);
	rt->allp = (struct p *)(base + rt->s->off_p);
	rt->allm = (struct m *)(base + rt->s->off_m);
	rt->words = (_Atomic uint64_t *)(base + rt->s->off_words);
	rt->allgs = (struct g *)(base + rt->s->off_g);
	rt->sudogs = (struct sudog *)(base + rt->s->off_sudog);
	rt->tallies = talliesOf(rt, 0);
}

static uint64_t recordBytes(void)
{
	return (uint64_t)IS_CHECKED << 63 | (uint64_t)sizeof(struct g) << 32 | sizeof(struct m) << 16 | sizeof(struct p);
}

static void fillIn(struct gmp *rt, const struct gmp_config *config)
{
	struct schedt *s = rt->s;

	s->recordbytes = recordBytes();
	s->layout = IPCLAB_LAYOUT; /* layout.cmake */
	s->threads = config->threads;
	s->model = config->model;
	s->tracking = config->tracking;
	s->randomize = config->randomize;
	s->nopreempt = config->nopreempt || config->model == GMP_MANY_TO_1;
	s->mainends = config->mainends;
	s->seed = config->seed;
	s->starttime = nanotime();
	s->startticks = cputicks();
	s->callerpid = getpid();
	s->ncpu = (int32_t)gmp_cpus();
	store_relaxed(&s->newprocs, config->model == GMP_MANY_TO_1 ? 1
				    : config->model == GMP_1_TO_1  ? GMP_MAXPROCS
								   : otherwise(config->procs, (uint32_t)s->ncpu));
	store_relaxed(&s->lastpoll, s->starttime);
	for (uint32_t i = 0; i <= s->maxmcount; i++)
		store_relaxed(&rt->allm[i].where, M_GONE);
	for (uint32_t i = 0; i < GMP_MAXPROCS; i++)
		rt->allp[i].id = i, store_relaxed(&rt->allp[i].status, _Pdead);
}

int gmp_create(struct gmp *rt, const struct gmp_config *config)
{
	struct schedt plan;
	struct segment_header header;
	uint64_t total, first;
	int rc;

	memset(rt, 0, sizeof *rt);
	rt->segment.fd = -1;
	if (config->procs > GMP_MAXPROCS || config->model > GMP_1_TO_1 || config->maxg > 1u << 28 ||
	    config->heapbytes > HEAP_MOST ||
	    (config->eventslots & (config->eventslots - 1)) || (!config->threads && !config->hooks.fork))
		return -EINVAL;
	memset(&plan, 0, sizeof plan);
	first = layOut(&plan, config, &total);
	rc = segment_reserve(&rt->segment, SEGMENT_GMP, sizeof plan, total, first);
	if (rc)
		return rc;
	memcpy(&header, rt->segment.base, sizeof header);
	memcpy(rt->segment.base, &plan, sizeof plan);
	memcpy(rt->segment.base, &header, sizeof header);
	find(rt);
	rt->hooks = config->hooks;
	rt->tid = (uint32_t)gettid();
	rt->where = &rt->s->callerwhere;
	store_relaxed(rt->where, M_GONE);
	rt->rng = config->seed ^ 0x9e3779b97f4a7c15u;
	fillIn(rt, config);
	return 0;
}

/* Whether everything lies where this build would have put it, and means the same: what an observer reads is bounded by
 * that. The sizes are what the compiler made of it, and the layout what the headers say: fields of one size may have
 * changed places. */
static bool laidOutAsHere(const struct schedt *s, size_t bytes)
{
	struct gmp_config config;
	struct schedt plan;
	uint64_t total;

	if (bytes < sizeof *s || s->recordbytes != recordBytes() || s->layout != IPCLAB_LAYOUT || s->maxg > 1u << 28)
		return false;
	memset(&plan, 0, sizeof plan);
	config = (struct gmp_config){.maxg = s->maxg, .maxm = s->maxmcount, .programs = s->maxprograms,
				     .steps = s->maxsteps, .chans = s->maxchans, .semas = s->maxsemas,
				     .words = s->maxwords, .eventslots = s->eventslots,
				     .heapbytes = (uint64_t)s->maxspans * SPAN_BYTES};
	(void)layOut(&plan, &config, &total);
	return total <= bytes && plan.off_programs == s->off_programs && plan.off_g == s->off_g &&
	       plan.off_p == s->off_p && plan.off_m == s->off_m && plan.off_chans == s->off_chans &&
	       plan.off_semas == s->off_semas && plan.off_words == s->off_words && plan.off_marea == s->off_marea &&
	       plan.off_sudog == s->off_sudog && plan.off_steps == s->off_steps &&
	       plan.off_spans == s->off_spans && plan.off_heap == s->off_heap && plan.mareabytes == s->mareabytes &&
	       plan.maxsudog == s->maxsudog && s->nprograms <= s->maxprograms &&
	       load_relaxed(&s->nchans) <= s->maxchans && load_relaxed(&s->nsemas) <= s->maxsemas;
}

int gmp_attach(struct gmp *rt, int fd)
{
	int rc;

	memset(rt, 0, sizeof *rt);
	rc = segment_attach_readonly(&rt->segment, fd, SEGMENT_GMP);
	if (rc)
		return rc;
	if (laidOutAsHere(rt->segment.base, rt->segment.total_bytes)) {
		find(rt);
		return 0;
	}
	segment_close(&rt->segment);
	return -EPROTO;
}

/* --- the work --- */

int gmp_chan(struct gmp *rt, uint32_t capacity)
{
	return makechan(rt, capacity);
}

int gmp_sema(struct gmp *rt, uint32_t value)
{
	return makesema(rt, value);
}

int gmp_program(struct gmp *rt, const struct step *steps, uint32_t n)
{
	struct schedt *s = rt->s;

	if (s->nprograms == s->maxprograms || n > s->maxsteps - s->nsteps)
		return -ENOSPC;
	rt->programs[s->nprograms] = (struct program){.first = s->nsteps, .count = n};
	memcpy(&rt->steps[s->nsteps], steps, n * sizeof *steps);
	s->nsteps += n;
	return (int)s->nprograms++;
}

static uint32_t firstWrong(struct gmp *rt)
{
	struct schedt *s = rt->s;

	for (uint32_t i = 0; i < s->nprograms; i++) {
		struct program *program = &rt->programs[i];
		uint32_t step = scriptCheck(&rt->steps[program->first], program->count, load_relaxed(&s->nchans),
					    load_relaxed(&s->nsemas), s->nprograms);

		for (uint32_t j = 0; !step && j < program->count && !rt->hooks.user; j++)
			step = rt->steps[program->first + j].op == OP_USER ? j + 1 : 0;
		if (step)
			return i << 16 | (step - 1);
	}
	return UINT32_MAX;
}

int gmp_start(struct gmp *rt, uint32_t program, uint32_t *wrong)
{
	struct schedt *s = rt->s;
	uint32_t bad = firstWrong(rt), p;
	int rc;

	if (wrong)
		*wrong = bad;
	if (bad != UINT32_MAX || program >= s->nprograms || rt->template || rt->team)
		return -EINVAL;
	lock(rt, &s->lock);
	if (!newproc(rt, program, 0, false)) {
		unlock(rt, &s->lock);
		return -ENOSPC;
	}
	/* The world has not begun: all Ps are made, and are idle but for the one the first M gets. */
	(void)procresize(rt, (int32_t)load_relaxed(&s->newprocs));
	store_relaxed(&s->newprocs, 0);
	p = pidleget(rt);
	unlock(rt, &s->lock);
	newm(rt, MSTART_SYSMON, 0);
	newm(rt, MSTART_NONE, p);
	rc = templateStart(rt);
	return rc;
}

/* --- waiting, changing, ending --- */

int gmp_wait(struct gmp *rt, int64_t deadline_ns)
{
	struct schedt *s = rt->s;
	int rc = 0;

	for (;;) {
		int64_t until = nanotime() + WAIT_LOOK_NS;
		uint32_t fatal;

		note_arm(&s->donenote);
		fatal = fatalSaid(rt);
		if (fatal != FATAL_NONE) {
			note_disarm(&s->donenote);
			return (int)fatal;
		}
		rc = templateLook(rt);
		if (!rc && deadline_ns >= 0 && nanotime() >= deadline_ns)
			rc = -ETIMEDOUT;
		if (!rc && note_park(&s->donenote, deadline_ns >= 0 && deadline_ns < until ? deadline_ns : until) == -EINTR)
			rc = -EINTR;
		if (rc) {
			note_disarm(&s->donenote);
			return rc;
		}
	}
}

int gmp_set_procs(struct gmp *rt, uint32_t procs)
{
	if (procs < 1 || procs > GMP_MAXPROCS)
		return -EINVAL;
	enterRuntime(rt);
	if (stopTheWorld(rt)) {
		if (!fatalSaid(rt)) /* else it ended meanwhile: what is said of it stays as it was */
			store_relaxed(&rt->s->newprocs, procs);
		startTheWorld(rt);
	}
	leaveRuntime(rt, M_GONE);
	return load_seq_cst(&rt->s->exiting) || load_seq_cst(&rt->s->fatal) ? 0 : templateLook(rt); /* it may have ended meanwhile */
}

int gmp_stop(struct gmp *rt)
{
	templateStop(rt);
	return 0;
}

void gmp_destroy(struct gmp *rt)
{
	templateStop(rt);
	segment_close(&rt->segment);
}

/* --- looking --- */

int gmp_copy(struct gmp *copy, const struct gmp *from, uint32_t most)
{
	const struct schedt *s = from->s;
	char *base, *there = from->segment.base;
	uint32_t ms, gs, sudogs;

	base = mmap(NULL, from->segment.mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		    0);
	if (base == MAP_FAILED)
		return -errno;
	memset(copy, 0, sizeof *copy);
	copy->segment = (struct segment){.base = base, .total_bytes = from->segment.total_bytes,
					 .mapped_bytes = from->segment.mapped_bytes, .fd = -1};
	memcpy(base, there, s->off_marea);
	ms = mLast(from) + 1;
	for (uint32_t m = 0; m < ms && m < s->maxmcount; m++)
		memcpy(base + s->off_marea + m * s->mareabytes, there + s->off_marea + m * s->mareabytes,
		       s->maxprograms * sizeof(struct tally));
	gs = load_acquire(&s->allglen);
	copy->leftout = gs > most ? gs - most : 0;
	gs -= copy->leftout;
	memcpy(base + s->off_g, there + s->off_g, (gs + (size_t)1) * sizeof(struct g));
	sudogs = s->sudoglen < s->maxsudog ? s->sudoglen : s->maxsudog;
	memcpy(base + s->off_sudog, there + s->off_sudog, (sudogs + (size_t)1) * sizeof(struct sudog));
	memcpy(base + s->off_chans, there + s->off_chans, load_acquire(&s->nchans) * sizeof(struct hchan));
	memcpy(base + s->off_semas, there + s->off_semas, load_acquire(&s->nsemas) * sizeof(struct sema));
	find(copy);
	store_relaxed(&copy->s->allglen, gs);
	return (int)gs;
}

/* Whoever named it may have gone before he could take that back. */
static bool stillLate(struct gmp *rt, uint32_t m, uint32_t why)
{
	struct m *mp = M(rt, m);
	uint32_t where = load_seq_cst(&mp->where);

	if (!mLives(rt, m))
		return false;
	return why == STALL_DEAF ? where == M_USER && load_relaxed(&mp->p) : where == M_RUNTIME || load_relaxed(&mp->locks) > 0;
}

uint32_t gmp_stalled(struct gmp *rt, struct gmp_stalled *into, uint32_t most)
{
	uint32_t n = 0;

	for (uint32_t m = 1; m <= mLast(rt) && n < most; m++) {
		uint32_t stalled = load_seq_cst(&M(rt, m)->stalled);

		if (stalled && stillLate(rt, m, stalled >> 8))
			into[n++] = (struct gmp_stalled){.m = load_relaxed(&M(rt, m)->id), .pid = load_relaxed(&M(rt, m)->procid),
							 .why = stalled >> 8, .state = (char)(stalled & 0xff)};
	}
	return n;
}

struct tally gmp_tally(struct gmp *rt, uint32_t program)
{
	struct tally sum = {0};

	for (uint32_t m = 0; m <= mLast(rt); m++) {
		struct tally *one = &talliesOf(rt, m)[program];

		sum.spawned += load_relaxed(&one->spawned);
		sum.done += load_relaxed(&one->done);
		sum.acc += load_relaxed(&one->acc);
		sum.turnaround += load_relaxed(&one->turnaround);
		sum.response += load_relaxed(&one->response);
		sum.waiting += load_relaxed(&one->waiting);
		if (load_relaxed(&one->lastend) > sum.lastend)
			sum.lastend = load_relaxed(&one->lastend);
	}
	return sum;
}
