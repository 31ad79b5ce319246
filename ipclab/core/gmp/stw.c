/*
 * stw.c: stop the world, for serial tasks: no P runs until startTheWorld; and procresize, which needs it.
 *
 *   stopper                                        the others
 *   worldsema; stopwait = gomaxprocs;              findRunnable sees gcwaiting: gcstopm: P -> _Pgcstop, stopwait--,
 *   gcwaiting = 1, then look at all Ps:              the last one wakes stopnote; to the idle list
 *     running: preempted                           entersyscall: P -> _Psyscall, then looks at gcwaiting: CAS -> _Pgcstop
 *     in a system call: CAS -> _Pgcstop              (the same CAS: one of the two counts it)
 *     idle: taken off the list, _Pgcstop           handoffp: -> _Pgcstop
 *   sleep on stopnote in slices of 100 us, preempt again
 *
 * The stopper is outside the runtime while it waits, and while it does what the world was stopped for (script.c), with
 * worldsema in its hand: that lock's holder is known by its thread id, and rebuild.c ends the stop of a dead one. Since
 * when is in stopsince, for who looks.
 */
#define _GNU_SOURCE
#include "checked.h"
#include "events.h"
#include "lock_futex.h"
#include "point.h"
#include "mheap.h"
#include "proc.h"
#include "runq.h"
#include "stopped.h"

#define STOP_LOOK_NS INT64_C(100000) /* between two signals, at first */
#define LATE_NS INT64_C(2000000)     /* from then on those that stand still are looked for, and signals are rarer */
#define LATE_LOOK_NS INT64_C(1000000)

void preemptone(struct gmp *rt, struct p *pp)
{
	uint32_t m = load_acquire(&pp->m), g;
	int32_t procid;

	if (!m || M(rt, m) == rt->m)
		return;
	g = load_relaxed(&M(rt, m)->curg);
	if (!g)
		return;
	store_relaxed(&G(rt, g)->preempt, 1);
	store_relaxed(&pp->preempt, 1);
	procid = load_acquire(&M(rt, m)->procid);
	if (!rt->s->threads && procid > 0)
		signalM(procid);
}

void preemptall(struct gmp *rt)
{
	for (int32_t i = 0; i < load_relaxed(&rt->s->gomaxprocs); i++)
		if (load_relaxed(&rt->allp[i].status) == _Prunning)
			preemptone(rt, &rt->allp[i]);
}

void uncountStopped(struct gmp *rt)
{
	int32_t wait = load_relaxed(&rt->s->stopwait) - 1;

	store_relaxed(&rt->s->stopwait, wait);
	POINT(rt, "uncountStopped.stopwait");
	if (wait == 0)
		notewake(rt, &rt->s->stopnote);
}

void worldstopped(struct gmp *rt, struct p *pp)
{
	pstatus(rt, pp, _Pgcstop);
	POINT(rt, "worldstopped.status");
	uncountStopped(rt);
}

void gcstopm(struct gmp *rt)
{
	struct schedt *s = rt->s;
	uint32_t p;

	if (load_relaxed(&rt->m->spinning)) {
		store_relaxed(&rt->m->spinning, 0);
		POINT(rt, "gcstopm.off");
		if (add_seq_cst(&s->nmspinning, -1) < 1 && !load_relaxed(&s->gate))
			throw(rt, "gcstopm: negative nmspinning");
		POINT(rt, "gcstopm.uncounted");
	}
	p = releasep(rt);
	POINT(rt, "gcstopm.released");
	lock(rt, &s->lock);
	worldstopped(rt, P(rt, p));
	unlock(rt, &s->lock);
	stopm(rt);
}

static void stopInSyscall(struct gmp *rt, struct p *pp)
{
	if (!pcas(rt, pp, _Psyscall, _Pgcstop))
		return;
	count_up(&pp->syscalltick);
	store_relaxed(&rt->s->stopwait, load_relaxed(&rt->s->stopwait) - 1);
	POINT(rt, "stopPs.syscall");
}

static void stopPs(struct gmp *rt)
{
	struct schedt *s = rt->s;

	for (int32_t i = 0; i < load_relaxed(&s->gomaxprocs); i++)
		stopInSyscall(rt, &rt->allp[i]);
	for (uint32_t p; (p = pidleget(rt));) {
		pstatus(rt, P(rt, p), _Pgcstop);
		store_relaxed(&s->stopwait, load_relaxed(&s->stopwait) - 1);
		POINT(rt, "stopPs.idle");
	}
}

/* Those who have not come for a while: an M that stands still in its G's code loses its P, others are named. */
static void lookAfterTheLate(struct gmp *rt, int64_t waited)
{
	for (int32_t i = 0; i < load_relaxed(&rt->s->gomaxprocs); i++) {
		struct p *pp = &rt->allp[i];

		if (load_seq_cst(&pp->status) != _Prunning || !takeFromStopped(rt, pp))
			continue;
		lock(rt, &rt->s->lock);
		stopInSyscall(rt, pp);
		unlock(rt, &rt->s->lock);
	}
	if (waited > STALLED_NS)
		nameAll(rt);
}

/* With worldsema held. False: the run has ended meanwhile, and the world is not stopped. */
static bool stopTheWorldWithSema(struct gmp *rt)
{
	struct schedt *s = rt->s;
	int64_t began = nanotime(), waited = 0;
	bool wait;

	if (rt->m)
		event(rt, EV_STW_START, 0, 0);
	note_clear(&s->stopnote);
	POINT(rt, "stw.note");
	lock(rt, &s->lock);
	if (!rt->m) { /* all Ms will be idle, and that is no deadlock: we count as one that runs */
		/* no point: the caller */
		store_relaxed(&s->nmidlelocked, load_relaxed(&s->nmidlelocked) - 1);
		store_relaxed(&s->callerstops, 1);
	}
	store_relaxed(&s->stopwait, load_relaxed(&s->gomaxprocs));
	POINT(rt, "stw.stopwait");
	store_relaxed(&s->stopsince, began);
	store_seq_cst(&s->gcwaiting, 1);
	POINT(rt, "stw.gcwaiting");
	preemptall(rt);
	if (rt->p) {
		pstatus(rt, rt->p, _Pgcstop);
		store_relaxed(&s->stopwait, load_relaxed(&s->stopwait) - 1);
		POINT(rt, "stw.own");
	}
	stopPs(rt);
	wait = load_relaxed(&s->stopwait) > 0;
	unlock(rt, &s->lock);
	while (wait) {
		int rc;

		leaveRuntime(rt, M_PARKED); /* lest the repairer wait for us, who wait for an M that is dead */
		rc = note_sleep(&s->stopnote, nanotime() + (waited < LATE_NS ? STOP_LOOK_NS : LATE_LOOK_NS), 0);
		POINT(rt, "stw.slept");
		enterRuntime(rt);
		if (isOver(rt))
			return false;
		waited = nanotime() - began;
		if (waited > LATE_NS)
			lookAfterTheLate(rt, waited);
		lock(rt, &s->lock);
		wait = load_relaxed(&s->stopwait) > 0;
		unlock(rt, &s->lock);
		if (wait && rc == 0)
			note_clear(&s->stopnote);
		POINT(rt, "stw.again");
		if (wait)
			preemptall(rt);
	}
	if (waited > STALLED_NS)
		unnameAll(rt);
	for (int32_t i = 0; i < load_relaxed(&s->gomaxprocs); i++)
		if (load_relaxed(&rt->allp[i].status) != _Pgcstop)
			throw(rt, "stopTheWorld: not stopped (status != _Pgcstop)");
	return true;
}

/* For an M that was to stop the world when the run ended. To go on as if it had would be to start a world in which others
 * run: it makes their Ps idle, throws with sched.lock held, and Ms that are threads then wait for that lock for ever. */
static _Noreturn void waitForTheEnd(struct gmp *rt)
{
	unlock(rt, &rt->s->worldsema);
	while (!load_seq_cst(&rt->s->exiting)) {
		leaveRuntime(rt, M_PARKED);
		futex_wait_until(&rt->s->exiting, 0, NO_DEADLINE);
		enterRuntime(rt);
	}
	mexit(rt);
}

bool tryStopTheWorld(struct gmp *rt)
{
	uint32_t unlocked = 0;

	if (!cas_seq_cst(&rt->s->worldsema.key, &unlocked, rt->tid))
		return false;
	count_up(&rt->m->locks);
	POINT(rt, "stw.worldsema");
	if (!stopTheWorldWithSema(rt))
		waitForTheEnd(rt);
	return true;
}

/*
 * Who holds worldsema is not always inside: it may be an M at the gate, or one that is dead. So we wait for it outside, too.
 *
 * no point: the caller
 */
bool stopTheWorld(struct gmp *rt)
{
	uint32_t seen = 0;

	while (!cas_seq_cst(&rt->s->worldsema.key, &seen, rt->tid)) {
		if (isOver(rt))
			return false;
		leaveRuntime(rt, M_PARKED);
		futex_wait_until(&rt->s->worldsema.key, seen, nanotime() + STOP_LOOK_NS);
		enterRuntime(rt);
		seen = 0;
	}
	if (stopTheWorldWithSema(rt))
		return true;
	unlock(rt, &rt->s->worldsema);
	return false;
}

/* A P that goes: its Gs to the head of the global queue, in their order; its timers and free Gs to others. */
static void destroy(struct gmp *rt, struct p *pp, struct p *heir)
{
	uint32_t head = load_relaxed(&pp->runqhead), tail = load_relaxed(&pp->runqtail), g;

	while (tail != head) {
		g = load_relaxed(&pp->runq[--tail % GMP_RUNQ]);
		store_relaxed(&pp->runqtail, tail);
		QUEUED(rt, g, P_INDEX(pp), QUEUED_NOWHERE);
		POINT(rt, "destroy.taken");
		globrunqputhead(rt, g);
	}
	g = swap_seq_cst(&pp->runnext, 0);
	POINT(rt, "destroy.next");
	if (g) {
		QUEUED(rt, g, P_INDEX(pp), QUEUED_NOWHERE);
		globrunqputhead(rt, g);
	}
	timersTake(rt, heir, pp);
	gfpurge(rt, pp);
	mcachePurge(rt, pp);
	pstatus(rt, pp, _Pdead);
}

static void keepOwnP(struct gmp *rt, int32_t n)
{
	if (rt->p->id < (uint32_t)n) {
		pstatus(rt, rt->p, _Prunning);
		return;
	}
	store_relaxed(&rt->p->m, 0);
	POINT(rt, "procresize.own.m");
	store_relaxed(&rt->m->p, 0);
	rt->p = NULL;
	eventWho(rt);
	POINT(rt, "procresize.own.p");
	store_relaxed(&rt->allp[0].m, 0);
	POINT(rt, "procresize.first.m");
	pstatus(rt, &rt->allp[0], _Pidle);
	acquirep(rt, 1);
}

uint32_t procresize(struct gmp *rt, int32_t n)
{
	struct schedt *s = rt->s;
	int32_t old = load_relaxed(&s->gomaxprocs);
	uint32_t runnable = 0;

	for (int32_t i = old; i < n; i++) {
		struct p *pp = &rt->allp[i];

		pstatus(rt, pp, _Pgcstop);
		maskset(s->timerpMask, pp->id);
		POINT(rt, "procresize.timers");
		maskclear(s->idlepMask, pp->id);
		POINT(rt, "procresize.made");
	}
	if (rt->m)
		keepOwnP(rt, n);
	for (int32_t i = n; i < old; i++)
		destroy(rt, &rt->allp[i], &rt->allp[0]);
	for (int32_t i = n - 1; i >= 0; i--) {
		struct p *pp = &rt->allp[i];

		if (pp == rt->p)
			continue;
		pstatus(rt, pp, _Pidle);
		if (runqempty(pp)) {
			pidleput(rt, P_INDEX(pp));
		} else {
			store_relaxed(&pp->m, mget(rt)); /* kept here for startTheWorld */
			POINT(rt, "procresize.m");
			store_relaxed(&pp->link, runnable);
			POINT(rt, "procresize.link");
			runnable = P_INDEX(pp);
		}
	}
	store_seq_cst(&s->gomaxprocs, n);
	POINT(rt, "procresize.count");
	return runnable;
}

void wakesysmon(struct gmp *rt)
{
	if (!load_seq_cst(&rt->s->sysmonwait))
		return;
	store_seq_cst(&rt->s->sysmonwait, 0);
	POINT(rt, "wakesysmon.wait");
	notewake(rt, &rt->s->sysmonnote);
}

void startTheWorld(struct gmp *rt)
{
	struct schedt *s = rt->s;
	uint32_t p, m;
	int32_t n;

	lock(rt, &s->lock);
	n = (int32_t)load_relaxed(&s->newprocs);
	store_relaxed(&s->newprocs, 0);
	POINT(rt, "startTheWorld.newprocs");
	lock(rt, &s->allpLock);
	p = procresize(rt, n ? n : load_relaxed(&s->gomaxprocs));
	unlock(rt, &s->allpLock);
	store_seq_cst(&s->gcwaiting, 0);
	POINT(rt, "startTheWorld.open");
	wakesysmon(rt);
	unlock(rt, &s->lock);
	while (p) {
		struct p *pp = P(rt, p);
		uint32_t this = p;

		p = load_relaxed(&pp->link);
		m = load_relaxed(&pp->m);
		store_relaxed(&pp->m, 0);
		POINT(rt, "startTheWorld.m");
		if (m) {
			store_relaxed(&M(rt, m)->nextp, this);
			POINT(rt, "startTheWorld.nextp");
			notewakeup(rt, &M(rt, m)->park);
		} else {
			newm(rt, MSTART_NONE, this);
		}
	}
	if (rt->m)
		event(rt, EV_STW_END, 0, (uint64_t)load_relaxed(&s->gomaxprocs));
	unlock(rt, &s->worldsema);
	wakep(rt);
	if (!rt->p && timeSleepUntil(rt) != INT64_MAX)
		wakeNetPoller(rt, timeSleepUntil(rt)); /* timers of a P that went: no M with a P will come to see them */
	if (!rt->m) { /* the last of all: who hands a P to an M counts as running meanwhile */
		store_relaxed(&s->callerstops, 0); /* no point: the caller */
		incidlelocked(rt, 1);
	}
}
