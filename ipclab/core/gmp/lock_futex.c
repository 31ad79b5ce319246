/* lock_futex.c: see lock_futex.h. */
#define _GNU_SOURCE
#include "lock_futex.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>

#include "core/futex.h"
#include "proc.h"
#include "stopped.h"
#include "template.h"

#define ACTIVE_SPIN 4 /* rounds of ACTIVE_SPIN_COUNT pauses before the CPU is given away; Go's figures */
#define ACTIVE_SPIN_COUNT 30
#define HOLDER_LOOK_NS INT64_C(1000000)

/* To the caller: nobody will release it any more. All are dead with the template, or the run has ended and the holder with it. */
static bool isLeftLocked(struct gmp *rt, pid_t holder)
{
	if (rt->s->threads || !isOver(rt))
		return false;
	return templateLook(rt) < 0 || (kill(holder, 0) < 0 && errno == ESRCH);
}

/*
 * One sleep for a lock. The template alone can find out that the holder is dead, also while it waits for him; and the
 * caller, when there is no run any more. Everybody looks once a second whether he stands still (SIGSTOP): then he is
 * named, for nothing else would tell why we hang.
 */
static void sleepFor(struct gmp *rt, struct mutex *l, uint32_t seen, int64_t since, uint32_t *named)
{
	int64_t now = monotonic_ns();

	futex_wait_until(&l->key, seen | SLEEPERS, now + (rt->m ? STALLED_NS : HOLDER_LOOK_NS));
	if (!rt->where)
		templateLockLook(rt);
	else if (!rt->m && isLeftLocked(rt, (pid_t)(seen & ~SLEEPERS)))
		lockrelease(l, seen & ~SLEEPERS);
	if (*named)
		unname(rt, *named);
	*named = 0;
	if (monotonic_ns() - since >= STALLED_NS)
		*named = nameHolder(rt, seen & ~SLEEPERS);
}

void lockslow(struct gmp *rt, struct mutex *l)
{
	uint32_t seen, held = rt->tid, named = 0;
	int64_t since = 0;
	int spins = rt->s->ncpu > 1 ? ACTIVE_SPIN : 0;

	for (;;) {
		for (int i = 0; i <= spins; i++) {
			seen = 0;
			if (load_relaxed(&l->key) == 0 && cas_seq_cst(&l->key, &seen, held)) {
				if (named)
					unname(rt, named);
				return;
			}
			for (int j = 0; i < spins && j < ACTIVE_SPIN_COUNT; j++)
				cpu_relax();
		}
		sched_yield(); /* Go's passive spin: the holder may want this CPU */
		seen = load_relaxed(&l->key);
		if (seen == 0)
			continue;
		if (!(seen & SLEEPERS) && !cas_seq_cst(&l->key, &seen, seen | SLEEPERS))
			continue;
		POINT(rt, "lock.sleepers");
		since = since ? since : monotonic_ns();
		sleepFor(rt, l, seen, since, &named);
		held = rt->tid | SLEEPERS;
	}
}

void unlockslow(struct mutex *l)
{
	futex_wake(&l->key, 1);
}

/* no point: the template alone */
int lockrelease(struct mutex *l, uint32_t tid)
{
	uint32_t seen = load_seq_cst(&l->key);
	int was = 0;

	while ((seen & ~SLEEPERS) == tid && !was)
		was = cas_seq_cst(&l->key, &seen, 0);
	futex_wake(&l->key, INT_MAX);
	return was;
}

/* --- notes (core/note.h), with a point where a waker dies between his two halves --- */

bool notewake(struct gmp *rt, struct note *note)
{
	uint32_t before = note_set(note);

	POINT(rt, "notewake.set");
	if (before == NOTE_SLEEP)
		futex_wake(&note->word, 1);
	return before != NOTE_SET;
}

void notewakeup(struct gmp *rt, struct note *note)
{
	if (!notewake(rt, note) && !load_seq_cst(&rt->s->exiting))
		throw(rt, "notewakeup - double wakeup");
}
