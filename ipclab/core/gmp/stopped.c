/*
 * stopped.c: Ms that do not answer: stopped (T), traced (t), in uninterruptible sleep (D), or deaf to SIGURG. Seen from
 * whoever waits for them: the stopper of the world, the repairer at the gate, who waits for a lock, sysmon.
 *
 * In a G's own code such an M counts as stopped: its P is taken. Inside the runtime it is waited for, and after a second
 * it is named in its record, for anybody to read (gmp_stalled). The invariant is in the essay in proc.c.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "events.h"
#include "lock_futex.h"
#include "point.h"
#include "proc.h"
#include "stopped.h"
#include "template.h"

#define STATUS_BYTES 4096 /* /proc/PID/status is half of it */

/* --- what the kernel says of it -------------------------------------------------------------------------------------- */

static uint64_t maskIn(const char *text, const char *name)
{
	const char *at = strstr(text, name);

	return at ? strtoull(at + strlen(name), NULL, 16) : 0;
}

/* Its state's letter, as proc_pid_status(5) has it; '?': nothing there. *deaf: SIGURG would not get to a handler. */
static char stateOf(int32_t pid, bool *deaf)
{
	char path[32], text[STATUS_BYTES];
	uint64_t urg = UINT64_C(1) << (SIGURG - 1);
	const char *at;
	ssize_t size;
	int fd;

	*deaf = true;
	snprintf(path, sizeof path, "/proc/%d/status", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return '?';
	size = read(fd, text, sizeof text - 1);
	close(fd);
	text[size > 0 ? size : 0] = '\0';
	at = strstr(text, "\nState:\t");
	if (!at)
		return '?';
	*deaf = maskIn(text, "\nSigBlk:\t") & urg || !(maskIn(text, "\nSigCgt:\t") & urg);
	return at[8];
}

static bool isStopped(char state)
{
	return state == 'T' || state == 't' || state == 'D';
}

/* Executes nothing, and SIGURG's handler will be the first thing it executes. */
static bool standsStill(int32_t pid)
{
	bool deaf;

	return isStopped(stateOf(pid, &deaf)) && !deaf;
}

/* --- taking its P ---------------------------------------------------------------------------------------------------- */

/* sched.lock. What entersyscall would have done, in the order in which rebuild.c can tell how far it got. */
static void takeP(struct gmp *rt, struct m *mp, struct p *pp)
{
	casgstatus(rt, load_relaxed(&mp->curg), _Grunning, _Gsyscall);
	POINT(rt, "take.status");
	store_relaxed(&pp->m, 0);
	POINT(rt, "take.unwired");
	store_relaxed(&mp->oldp, P_INDEX(pp));
	POINT(rt, "take.oldp");
	store_relaxed(&mp->p, 0);
	POINT(rt, "take.p");
	pstatus(rt, pp, _Psyscall);
	POINT(rt, "take.syscall");
	add_relaxed(&rt->s->taken, 1);
}

static bool inOwnCode(struct gmp *rt, struct m *mp, struct p *pp)
{
	uint32_t where = load_seq_cst(&mp->where);

	return (where == M_USER || where == M_ROBBED) && load_relaxed(&mp->p) == P_INDEX(pp) &&
	       load_relaxed(&pp->m) == M_INDEX(rt, mp) && load_relaxed(&mp->locks) == 0;
}

bool takeFromStopped(struct gmp *rt, struct p *pp)
{
	uint32_t m = load_acquire(&pp->m), user = M_USER, marked = M_ROBBED;
	struct m *mp = M(rt, m);
	int32_t pid = m ? load_acquire(&mp->procid) : 0;
	bool taken;

	if (rt->s->threads || pid <= 0 || mp == rt->m || !inOwnCode(rt, mp, pp) || !standsStill(pid))
		return false;
	lock(rt, &rt->s->lock);
	(void)cas_seq_cst(&mp->where, &user, M_ROBBED);
	POINT(rt, "take.marked");
	signalM(pid);
	/* In this order: where it stands is looked at after it was seen standing, with the signal before it. */
	taken = load_relaxed(&pp->status) == _Prunning && standsStill(pid) && load_seq_cst(&mp->where) == M_ROBBED &&
		inOwnCode(rt, mp, pp);
	if (taken)
		takeP(rt, mp, pp);
	else
		(void)cas_seq_cst(&mp->where, &marked, M_USER); /* no point: as if it had never been marked */
	unlock(rt, &rt->s->lock);
	return taken;
}

/* --- naming ---------------------------------------------------------------------------------------------------------- */

static void name(struct gmp *rt, struct m *mp, enum stall why, char state)
{
	uint32_t now = (uint32_t)why << 8 | (unsigned char)state;

	if (load_relaxed(&mp->stalled) == 0)
		add_relaxed(&rt->s->stalls, 1);
	store_seq_cst(&mp->stalled, now);
}

void nameLate(struct gmp *rt, uint32_t m)
{
	struct m *mp = M(rt, m);
	uint32_t where = load_seq_cst(&mp->where);
	bool deaf, inside = where == M_RUNTIME || load_relaxed(&mp->locks) > 0;
	char state;

	if (rt->s->threads || !mLives(rt, m) || mp == rt->m)
		return;
	if (!inside && !(where == M_USER && load_relaxed(&mp->p)))
		return;
	state = stateOf(load_relaxed(&mp->procid), &deaf);
	if (!inside)
		name(rt, mp, STALL_DEAF, state);
	else if (isStopped(state))
		name(rt, mp, STALL_INSIDE, state);
}

void nameAll(struct gmp *rt)
{
	for (uint32_t m = 1; !rt->s->threads && m <= mLast(rt); m++)
		nameLate(rt, m);
}

void nameInside(struct gmp *rt, uint32_t m)
{
	bool deaf;

	name(rt, M(rt, m), STALL_INSIDE, stateOf(load_relaxed(&M(rt, m)->procid), &deaf));
}

uint32_t nameHolder(struct gmp *rt, uint32_t tid)
{
	bool deaf;

	for (uint32_t m = 1; !rt->s->threads && m <= mLast(rt); m++) {
		char state;

		if ((uint32_t)load_relaxed(&M(rt, m)->procid) != tid || !mLives(rt, m))
			continue;
		state = stateOf((int32_t)tid, &deaf);
		if (!isStopped(state))
			return 0;
		name(rt, M(rt, m), STALL_INSIDE, state);
		return m;
	}
	return 0;
}

void unname(struct gmp *rt, uint32_t m)
{
	if (load_relaxed(&M(rt, m)->stalled))
		store_seq_cst(&M(rt, m)->stalled, 0);
}

void unnameAll(struct gmp *rt)
{
	for (uint32_t m = 1; m <= mLast(rt); m++)
		unname(rt, m);
}
