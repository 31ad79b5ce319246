/*
 * syscall.c: a G that goes into the kernel and may stay there. The P stays behind in _Psyscall, unowned: the M takes it
 * back by CAS when it returns, sysmon takes it by the same CAS if that lasts too long.
 */
#define _GNU_SOURCE
#include "checked.h"
#include "events.h"
#include "lock_futex.h"
#include "point.h"
#include "proc.h"
#include "runq.h"

/* Stop the world may have looked at our P just before it was _Psyscall: then we stop it ourselves. */
static void entersyscall_gcwait(struct gmp *rt, struct p *pp)
{
	lock(rt, &rt->s->lock);
	if (load_relaxed(&rt->s->stopwait) > 0 && pcas(rt, pp, _Psyscall, _Pgcstop)) {
		count_up(&pp->syscalltick);
		uncountStopped(rt);
	}
	unlock(rt, &rt->s->lock);
}

void entersyscall(struct gmp *rt)
{
	struct schedt *s = rt->s;
	struct m *mp = rt->m;
	struct p *pp = rt->p;
	uint32_t g = load_relaxed(&mp->curg);

	checkRuns(rt, g);
	event(rt, EV_SYSCALL, load_relaxed(&G(rt, g)->goid), 0);
	casgstatus(rt, g, _Grunning, _Gsyscall);
	POINT(rt, "entersyscall.status");
	if (load_seq_cst(&s->sysmonwait)) {
		lock(rt, &s->lock);
		wakesysmon(rt);
		unlock(rt, &s->lock);
	}
	mp->syscalltick = load_relaxed(&pp->syscalltick);
	store_relaxed(&pp->m, 0);
	POINT(rt, "entersyscall.m");
	store_relaxed(&mp->oldp, P_INDEX(pp));
	POINT(rt, "entersyscall.oldp");
	store_relaxed(&mp->p, 0);
	rt->p = NULL;
	eventWho(rt);
	POINT(rt, "entersyscall.unwired");
	pstatus(rt, pp, _Psyscall);
	if (load_seq_cst(&s->gcwaiting))
		entersyscall_gcwait(rt, pp);
	leaveRuntime(rt, M_USER);
}

void entersyscallblock(struct gmp *rt)
{
	struct m *mp = rt->m;
	uint32_t g = load_relaxed(&mp->curg);

	event(rt, EV_SYSCALL, load_relaxed(&G(rt, g)->goid), 1);
	mp->syscalltick = load_relaxed(&rt->p->syscalltick);
	count_up(&rt->p->syscalltick);
	casgstatus(rt, g, _Grunning, _Gsyscall);
	POINT(rt, "entersyscallblock.status");
	store_relaxed(&mp->oldp, 0);
	POINT(rt, "entersyscallblock.oldp");
	event(rt, EV_SYSBLOCK, load_relaxed(&G(rt, g)->goid), rt->p->id);
	handoffp(rt, releasep(rt));
	leaveRuntime(rt, M_USER);
}

/* 0: the old P again, 1: another one, -1: none */
static int exitsyscallfast(struct gmp *rt, uint32_t oldp)
{
	struct schedt *s = rt->s;
	uint32_t p;

	if (oldp && pcas(rt, P(rt, oldp), _Psyscall, _Pidle)) {
		POINT(rt, "exitsyscall.reacquired");
		wirep(rt, oldp);
		return 0;
	}
	if (!load_relaxed(&s->pidle))
		return -1;
	lock(rt, &s->lock);
	p = pidleget(rt);
	if (p)
		wakesysmon(rt);
	unlock(rt, &s->lock);
	POINT(rt, "exitsyscall.pidle");
	if (!p)
		return -1;
	acquirep(rt, p);
	return 1;
}

/* No P: the G goes to the global queue, where any M finds it; a locked one waits with its M. */
static bool exitsyscall0(struct gmp *rt, uint32_t g)
{
	struct schedt *s = rt->s;
	struct g *gp = G(rt, g);
	bool isLocked = false;
	uint32_t p;

	if (s->tracking)
		gp->runnablesince = (int64_t)cputicks();
	casgstatus(rt, g, _Gsyscall, _Grunnable);
	POINT(rt, "exitsyscall0.runnable");
	dropg(rt);
	lock(rt, &s->lock);
	p = pidleget(rt);
	if (!p) {
		globrunqput(rt, g);
		isLocked = load_relaxed(&gp->lockedm) != 0;
	} else {
		wakesysmon(rt);
	}
	unlock(rt, &s->lock);
	if (p) {
		acquirep(rt, p);
		execute(rt, g, false);
		return true;
	}
	if (isLocked) {
		stoplockedm(rt);
		execute(rt, g, false);
		return true;
	}
	stopm(rt);
	return false;
}

bool exitsyscall(struct gmp *rt)
{
	enterRuntime(rt);
	return regainP(rt);
}

bool regainP(struct gmp *rt)
{
	struct m *mp = rt->m;
	uint32_t g = load_relaxed(&mp->curg), oldp;
	int how;

	oldp = load_relaxed(&mp->oldp);
	store_relaxed(&mp->oldp, 0);
	POINT(rt, "exitsyscall.oldp");
	how = exitsyscallfast(rt, oldp);
	event(rt, EV_SYSEXIT, load_relaxed(&G(rt, g)->goid), how < 0 ? 2 : (uint64_t)how);
	if (how < 0) {
		if (!exitsyscall0(rt, g))
			return false;
		count_up(&rt->p->syscalltick);
		return true;
	}
	count_up(&rt->p->syscalltick);
	casgstatus(rt, g, _Gsyscall, _Grunning);
	return true;
}
