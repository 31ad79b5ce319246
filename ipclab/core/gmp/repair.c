/*
 * repair.c: after the death of an M. The order of things; what is made true again, and how, is in rebuild.c and wake.c.
 *
 *   1. close the gate
 *   2. what the dead have locked: the lists that lock guards are made whole, then it is unlocked in their name; who
 *      waited for it comes through and goes outside
 *   3. wait until every live M is outside; whoever dies meanwhile joins the dead
 *   4. rebuild, alone
 *   5. open the gate; start Ms for what was found
 *
 * Until 3 is over others go on working beside broken counts: those who check counts do not while the gate is closed.
 *
 * no point: the template alone; if that is killed, all Ms are.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "chan.h"
#include "lock_futex.h"
#include "proc.h"
#include "runq.h"
#include "stopped.h"
#include "template.h"

#define GATE_SPIN_NS INT64_C(50000)
#define LEND_NS INT64_C(200000)

bool mLives(struct gmp *rt, uint32_t m)
{
	struct m *mp = M(rt, m);

	return load_relaxed(&mp->procid) > 0 && load_relaxed(&mp->dead) == M_ALIVE && !load_relaxed(&mp->exiting);
}

/* --- what the dead have locked --------------------------------------------------------------------------------------- */

/* The global queue is what its links say: tail and size follow. */
static void mendRunq(struct gmp *rt)
{
	struct gQueue *q = &rt->s->runq;
	uint32_t tail = 0;
	int32_t size = 0;

	for (uint32_t g = load_relaxed(&q->head); g; g = load_relaxed(&G(rt, g)->schedlink)) {
		tail = g;
		size++;
	}
	store_relaxed(&q->tail, tail);
	store_relaxed(&q->size, size);
}

/* A heap in the middle of a meld: made anew of the Gs that say they are in it. */
static void mendTimers(struct gmp *rt, struct p *pp)
{
	timersRebuild(rt, pp);
}

static bool holds(struct mutex *l, uint32_t tid)
{
	return (load_seq_cst(&l->key) & ~SLEEPERS) == tid;
}

static void unlockSched(struct gmp *rt, uint32_t tid)
{
	struct schedt *s = rt->s;
	struct mutex *others[] = {&s->allpLock, &s->gFreelock, &s->allglock, &s->sudoglock,
				  &s->chanlock, &s->heaplock, &s->newmlock};

	if (holds(&s->lock, tid))
		mendRunq(rt);
	if (holds(&s->lock, tid) && holds(&s->worldsema, tid))
		store_relaxed(&s->pidle, 0); /* in procresize: it may list Ps beyond gomaxprocs, which nobody must get */
	lockrelease(&s->lock, tid);
	for (uint32_t i = 0; i < sizeof others / sizeof *others; i++)
		lockrelease(others[i], tid); /* lists that one store changes; blocks: made anew */
}

static void unlockDead(struct gmp *rt, uint32_t tid)
{
	struct schedt *s = rt->s;

	for (uint32_t i = 0; i < load_acquire(&s->nchans); i++) {
		struct hchan *c = &rt->chans[i];

		if (holds(&c->lock, tid))
			mendChan(rt, c);
		lockrelease(&c->lock, tid);
	}
	for (uint32_t i = 0; i < load_acquire(&s->nsemas); i++) {
		if (holds(&rt->semas[i].lock, tid))
			mendQueue(rt, &rt->semas[i].q);
		lockrelease(&rt->semas[i].lock, tid);
	}
	for (uint32_t i = 0; i < GMP_MAXPROCS; i++) {
		if (holds(&rt->allp[i].timers.lock, tid))
			mendTimers(rt, &rt->allp[i]);
		lockrelease(&rt->allp[i].timers.lock, tid);
	}
	unlockSched(rt, tid);
}

/* --- the gate -------------------------------------------------------------------------------------------------------- */

static void unlockAllDead(struct gmp *rt)
{
	for (uint32_t m = 1; m <= mLast(rt); m++)
		if (load_relaxed(&M(rt, m)->dead) == M_DIED)
			unlockDead(rt, (uint32_t)load_relaxed(&M(rt, m)->procid));
}

/* How many are still inside, the caller with them; they are lent to, or named, when that is due. */
static uint32_t inside(struct gmp *rt, bool lends, bool names)
{
	uint32_t n = load_seq_cst(&rt->s->callerwhere) == M_RUNTIME;

	for (uint32_t m = 1; m <= mLast(rt); m++) {
		if (load_seq_cst(&M(rt, m)->where) != M_RUNTIME) {
			takeBackFrom(rt, m);
			continue;
		}
		n++;
		if (lends)
			lendTo(rt, m);
		if (names)
			nameInside(rt, m); /* and it is waited for */
	}
	return n;
}

static void forgetThem(struct gmp *rt)
{
	for (uint32_t m = 1; m <= mLast(rt); m++)
		takeBackFrom(rt, m);
	unnameAll(rt);
}

/* False: the run ends, nothing is to be repaired any more. */
static bool allOutside(struct gmp *rt)
{
	struct schedt *s = rt->s;
	int64_t began = nanotime(), waited = 0;
	bool ends = false;

	while (!ends && inside(rt, waited > LEND_NS, waited > STALLED_NS)) {
		bool died;

		templateReap(rt, &died);
		if (died)
			unlockAllDead(rt);
		futex_wait_until(&s->gate, 1, nanotime() + GATE_SPIN_NS);
		waited = nanotime() - began;
		ends = load_seq_cst(&s->exiting) || fatalSaid(rt);
	}
	forgetThem(rt);
	return !ends;
}

/* Who set a note and died before he woke its sleeper: the word is set, and that one sleeps on. */
static void wakeSleepers(struct gmp *rt)
{
	struct note *notes[] = {&rt->s->pollnote, &rt->s->sysmonnote, &rt->s->stopnote, &rt->s->donenote};

	for (uint32_t m = 1; m <= mLast(rt); m++)
		if (mLives(rt, m) && load_seq_cst(&M(rt, m)->park.word) == NOTE_SET)
			futex_wake(&M(rt, m)->park.word, 1);
	for (uint32_t i = 0; i < sizeof notes / sizeof *notes; i++)
		if (load_seq_cst(&notes[i]->word) == NOTE_SET)
			futex_wake(&notes[i]->word, 1);
}

/* What was found must not wait for the next one who happens to come by. */
static void startAgain(struct gmp *rt)
{
	struct schedt *s = rt->s;
	int64_t when;

	for (int32_t i = 0; i < load_relaxed(&s->gomaxprocs); i++)
		if (rt->allp[i].adrift) {
			rt->allp[i].adrift = 0;
			startm(rt, (uint32_t)i + 1, false, false);
		}
	wakep(rt);
	when = timeSleepUntil(rt);
	if (when != INT64_MAX)
		wakeNetPoller(rt, when);
	lock(rt, &s->lock);
	wakesysmon(rt);
	unlock(rt, &s->lock);
	incidlelocked(rt, 1);
}

void templateLockLook(struct gmp *rt)
{
	bool died;

	if (rt->s->threads)
		return;
	templateReap(rt, &died);
	if (!died)
		return;
	store_seq_cst(&rt->s->gate, 1); /* for the repair that follows as soon as we are through */
	unlockAllDead(rt);
}

/* A dead one was about to say why the run ends. Its reason stands; its argument and its text may be half written. */
static void sayFatal(struct gmp *rt)
{
	struct schedt *s = rt->s;
	uint32_t why = load_seq_cst(&s->fatal) & ~(uint32_t)FATAL_SAYING;

	if (!(load_seq_cst(&s->fatal) & FATAL_SAYING))
		return;
	memset(s->fataltext, 0, sizeof s->fataltext);
	strncpy(s->fataltext, why == FATAL_DEADLOCK ? DEADLOCK_TEXT : "the M that ended the run died before it said why",
		sizeof s->fataltext - 1);
	store_seq_cst(&s->fatal, why);
	note_poke(&s->donenote);
}

static void mustBeWhole(struct gmp *rt)
{
#ifdef IPCLAB_POINTS
	const char *broken = brokenInvariant(rt);

	if (broken)
		fatal(rt, FATAL_THROW, 0, broken);
#else
	(void)rt;
#endif
}

/* With the gate closed. False: the run ends. */
static bool mend(struct gmp *rt, bool *sysmonGone)
{
	struct schedt *s = rt->s;

	unlockAllDead(rt);
	if (!allOutside(rt))
		return false;
	for (uint32_t m = 1; m <= mLast(rt); m++) {
		if (load_relaxed(&M(rt, m)->dead) != M_DIED)
			continue;
		add_relaxed(&s->deaths, 1);
		tallyRedo(rt, m);
		*sysmonGone |= load_relaxed(&M(rt, m)->mstartfn) == MSTART_SYSMON;
	}
	sayFatal(rt);
	rebuild(rt);
	mustBeWhole(rt);
	wakeSleepers(rt);
	rt->deaths = 0; /* all that had died until then */
	return true;
}

static void remember(struct gmp *rt, int64_t took)
{
	struct schedt *s = rt->s;

	store_relaxed(&s->tookns[load_relaxed(&s->repairs) % GMP_REPAIRS_KEPT], (uint64_t)took);
	add_relaxed(&s->repairs, 1);
	add_relaxed(&s->repairns, (uint64_t)took);
	if ((uint64_t)took > load_relaxed(&s->longestns))
		store_relaxed(&s->longestns, (uint64_t)took);
}

void repair(struct gmp *rt)
{
	struct schedt *s = rt->s;
	int64_t began = nanotime();
	int lent;
	bool sysmonGone = false, mended;

	rt->deaths = 0;
	store_seq_cst(&s->gate, 1);
	lent = lend(getpid());
	mended = mend(rt, &sysmonGone);
	takeBack(lent, getpid());
	if (!mended)
		return; /* the gate stays closed: the end is near */
	remember(rt, nanotime() - began);
	/* Until Ms have been started for what was found, we count as one that runs: else that is a deadlock. */
	store_relaxed(&s->nmidlelocked, load_relaxed(&s->nmidlelocked) - 1);
	store_seq_cst(&s->gate, 0);
	futex_wake(&s->gate, INT_MAX);
	if (sysmonGone)
		newm(rt, MSTART_SYSMON, 0);
	startAgain(rt);
}
