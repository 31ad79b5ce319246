/*
 * sysmon.c: an M without a P that looks at all Ps, every 20 us while there is something to do, down to every 10 ms when
 * there is not, and not at all when everything is idle.
 */
#define _GNU_SOURCE
#include "events.h"
#include "lock_futex.h"
#include "point.h"
#include "proc.h"
#include "runq.h"
#include "stopped.h"

#define FIRST_DELAY_US 20
#define LAST_DELAY_US 10000
#define IDLE_ROUNDS 50 /* before the delay begins to double */
#define LONGEST_SLEEP_NS (60 * NS_PER_S)

/* Takes the P out of a system call. allpLock is not held. True when we, not the returning M, have got it. */
static bool retakeSyscall(struct gmp *rt, struct p *pp)
{
	bool got;

	/* One more M counts as running, from before the CAS: else the M whose P is taken could return, find no work, and
	 * report a deadlock while we still hold the P in our hands. */
	incidlelocked(rt, -1);
	POINT(rt, "retake.counted");
	got = pcas(rt, pp, _Psyscall, _Pidle);
	if (got) {
		POINT(rt, "retake.taken");
		event(rt, EV_RETAKE, 0, pp->id);
		event(rt, EV_SYSBLOCK, 0, pp->id);
		add_relaxed(&rt->s->retakes, 1);
		count_up(&pp->syscalltick);
		handoffp(rt, P_INDEX(pp));
	}
	incidlelocked(rt, 1);
	return got;
}

/* The rules of one P: preempted after 10 ms in one time slice, retaken after a whole tick in one system call. */
static bool retakeOne(struct gmp *rt, struct p *pp, int64_t now, bool *insyscall)
{
	struct sysmontick *pd = &pp->sysmontick;
	uint32_t status = load_seq_cst(&pp->status), tick = load_relaxed(&pp->schedtick);
	bool sysretake = false;

	*insyscall = false;
	if (status != _Prunning && status != _Psyscall)
		return false;
	if (pd->schedtick != tick) {
		pd->schedtick = tick;
		pd->schedwhen = now;
		if (pd->named)
			unname(rt, pd->named);
		pd->named = 0;
	} else if (!rt->s->nopreempt && pd->schedwhen + FORCE_PREEMPT_NS <= now) {
		preemptone(rt, pp);
		if (status == _Prunning && pd->schedwhen + STALLED_NS <= now && load_relaxed(&pp->m)) {
			pd->named = load_relaxed(&pp->m);
			nameLate(rt, pd->named);
		}
		sysretake = true; /* if it is in a system call there is no M to preempt */
	}
	if (status != _Psyscall)
		return false;
	tick = load_relaxed(&pp->syscalltick);
	if (!sysretake && pd->syscalltick != tick) {
		pd->syscalltick = tick;
		pd->syscallwhen = now;
		return false;
	}
	if (runqempty(pp) && load_seq_cst(&rt->s->nmspinning) + load_seq_cst(&rt->s->npidle) > 0 &&
	    pd->syscallwhen + FORCE_PREEMPT_NS > now)
		return false;
	*insyscall = true;
	return true;
}

static uint32_t retake(struct gmp *rt, int64_t now)
{
	struct schedt *s = rt->s;
	uint32_t taken = 0;

	lock(rt, &s->allpLock);
	for (int32_t i = 0; i < load_relaxed(&s->gomaxprocs); i++) {
		bool insyscall;

		if (!retakeOne(rt, &rt->allp[i], now, &insyscall) || !insyscall)
			continue;
		unlock(rt, &s->allpLock);
		taken += retakeSyscall(rt, &rt->allp[i]);
		lock(rt, &s->allpLock);
	}
	unlock(rt, &s->allpLock);
	return taken;
}

static void sleepOutside(struct gmp *rt, int64_t until)
{
	if (load_seq_cst(&rt->s->exiting)) /* after the note was cleared: the wake-up may have been cleared with it */
		mexit(rt);
	leaveRuntime(rt, M_PARKED);
	/* no point: interrupted, the note is again as it was */
	while (note_sleep(&rt->s->sysmonnote, until, 0) == -EINTR)
		;
	POINT(rt, "sysmon.slept");
	enterRuntime(rt);
	if (load_seq_cst(&rt->s->exiting))
		mexit(rt);
}

/* Everything idle or stopped: sleeps until somebody comes out of a system call, or the next timer. 1: the former. */
static bool deepSleep(struct gmp *rt)
{
	struct schedt *s = rt->s;
	int64_t now = nanotime(), next;
	bool woken = false;

	lock(rt, &s->lock);
	next = timeSleepUntil(rt);
	if ((load_seq_cst(&s->gcwaiting) || load_seq_cst(&s->npidle) == load_relaxed(&s->gomaxprocs)) && next > now) {
		note_clear(&s->sysmonnote);
		POINT(rt, "deepSleep.note");
		store_seq_cst(&s->sysmonwait, 1);
		POINT(rt, "deepSleep.wait");
		unlock(rt, &s->lock);
		sleepOutside(rt, next - now < LONGEST_SLEEP_NS ? next : now + LONGEST_SLEEP_NS);
		lock(rt, &s->lock);
		woken = !load_seq_cst(&s->sysmonwait);
		store_seq_cst(&s->sysmonwait, 0);
		POINT(rt, "deepSleep.nowait");
		note_clear(&s->sysmonnote);
		POINT(rt, "deepSleep.over");
	}
	unlock(rt, &s->lock);
	return woken;
}

void sysmon(struct gmp *rt)
{
	struct schedt *s = rt->s;
	int64_t delay = 0;
	int idle = 0;

	lock(rt, &s->lock);
	store_relaxed(&s->nmsys, 1); /* not + 1: a repair before our first step has counted us */
	POINT(rt, "sysmon.counted");
	checkdead(rt); /* until now we counted as running */
	unlock(rt, &s->lock);
	for (;;) {
		if (idle == 0)
			delay = FIRST_DELAY_US;
		else if (idle > IDLE_ROUNDS)
			delay *= 2;
		if (delay > LAST_DELAY_US)
			delay = LAST_DELAY_US;
		sleepOutside(rt, nanotime() + delay * 1000);
		if ((load_seq_cst(&s->gcwaiting) || load_seq_cst(&s->npidle) == load_relaxed(&s->gomaxprocs)) &&
		    deepSleep(rt)) {
			idle = 0;
			delay = FIRST_DELAY_US;
		}
		idle = retake(rt, nanotime()) ? 0 : idle + 1;
	}
}
