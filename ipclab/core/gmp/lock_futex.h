/*
 * lock_futex.h: the runtime's own lock. (Go: runtime/lock_futex.go; notes are core/note.h.)
 *
 * The word is 0 (free) or the holder's thread id, with the top bit set if somebody may sleep on it:
 *
 *   lock     CAS 0 -> tid. Else spin a little, then set SLEEPERS and sleep while the word is unchanged. Whoever has
 *            slept takes the lock with SLEEPERS set, because others may sleep beside him.
 *   unlock   swap 0; if SLEEPERS was set, wake one.
 *
 * It is not a pthread mutex: those cost 20 ns more a pair, and their owner cannot be read before the lock is asked for.
 * The holder's id is there so that a dead holder is found by anybody who can look it up (the template): it repairs what
 * the lock guards, then releases it in the dead one's name. A holder killed between the swap and the wake leaves a
 * sleeper with a free lock, and so does a sleeper killed after it was woken; the template wakes all sleepers of all
 * locks after every death.
 *
 * Several locks are never waited for while the gate (proc.c) is being waited for: who holds one is in the runtime. All
 * but worldsema, whose holder goes outside to wait for the others: nobody waits for it inside (stw.c).
 */
#ifndef IPCLAB_GMP_LOCK_FUTEX_H
#define IPCLAB_GMP_LOCK_FUTEX_H

#include "point.h"
#include "runtime2.h"

#define SLEEPERS UINT32_C(0x80000000)

void lockslow(struct gmp *rt, struct mutex *l);
void unlockslow(struct mutex *l);
/* For the template: 1 if it was held by tid and is free now; sleepers are woken in any case. */
int lockrelease(struct mutex *l, uint32_t tid);

static inline void lock(struct gmp *rt, struct mutex *l)
{
	uint32_t unlocked = 0;

	if (rt->m)
		store_relaxed(&rt->m->locks, load_relaxed(&rt->m->locks) + 1);
	if (!cas_seq_cst(&l->key, &unlocked, rt->tid))
		lockslow(rt, l);
	POINT(rt, "lock.taken");
}

static inline void unlock(struct gmp *rt, struct mutex *l)
{
	bool sleepers = swap_seq_cst(&l->key, 0) & SLEEPERS;

	POINT(rt, "unlock.free");
	if (sleepers)
		unlockslow(l);
	if (rt->m)
		store_relaxed(&rt->m->locks, load_relaxed(&rt->m->locks) - 1);
}

static inline bool locked(struct gmp *rt, struct mutex *l)
{
	return (load_relaxed(&l->key) & ~SLEEPERS) == rt->tid;
}

#endif
