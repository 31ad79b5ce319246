/*
 * proc.h: what the scheduler's files call of each other. The essay is in proc.c. (Go: runtime/proc.go.)
 *
 * "On an M" below: by an M in the runtime. Everything else may also be called by sysmon, the template or the caller,
 * which have no P. Nothing here returns errors: what cannot go on ends the run by fatal() or throw().
 */
#ifndef IPCLAB_GMP_PROC_H
#define IPCLAB_GMP_PROC_H

#include "core/futex.h"
#include "point.h"
#include "runtime2.h"

/* proc.c: one round */
_Noreturn void mstart(struct gmp *rt); /* the life of an M; ends with the process or thread */
void execute(struct gmp *rt, uint32_t g, bool inheritTime);
uint32_t schedule(struct gmp *rt);
void ready(struct gmp *rt, uint32_t g, bool next); /* on an M; g is _Gwaiting and nobody else may wake it */
void readylist(struct gmp *rt, struct gQueue *list);
uint32_t newproc(struct gmp *rt, uint32_t program, uint32_t parent, bool next); /* 0: the segment is full */
void goexit0(struct gmp *rt, uint32_t g);
void gosched(struct gmp *rt, uint32_t g, bool preempted);
void goyield(struct gmp *rt, uint32_t g);
/* Before gopark the G is on the queue it waits in, whose lock is held. After it the G may run elsewhere already. */
void gopark(struct gmp *rt, uint32_t g, enum wait_reason reason);
void casgstatus(struct gmp *rt, uint32_t g, uint32_t from, uint32_t to);
void dropg(struct gmp *rt);

/* find.c */
uint32_t findRunnable(struct gmp *rt, bool *inheritTime);
void becomeSpinning(struct gmp *rt);
void wakeNetPoller(struct gmp *rt, int64_t when);
void netpollBreak(struct gmp *rt);

/* m.c: Ms and Ps, bound and unbound */
void acquirep(struct gmp *rt, uint32_t p);
void wirep(struct gmp *rt, uint32_t p);
uint32_t releasep(struct gmp *rt);
/* Every change of a P's status, so that the event log has them all. pcas: true if it was `from`. */
void pstatus(struct gmp *rt, struct p *pp, uint32_t to);
bool pcas(struct gmp *rt, struct p *pp, uint32_t from, uint32_t to);
void pidleput(struct gmp *rt, uint32_t p); /* sched.lock; the run queue is empty */
uint32_t pidleget(struct gmp *rt);         /* sched.lock */
uint32_t pidlegetSpinning(struct gmp *rt); /* sched.lock */
void mput(struct gmp *rt, uint32_t m);     /* sched.lock */
uint32_t mget(struct gmp *rt);             /* sched.lock */
int64_t mcount(struct gmp *rt);
void mPark(struct gmp *rt);
void stopm(struct gmp *rt);
void startm(struct gmp *rt, uint32_t p, bool spinning, bool lockheld);
void handoffp(struct gmp *rt, uint32_t p);
void wakep(struct gmp *rt);
void stoplockedm(struct gmp *rt);
void startlockedm(struct gmp *rt, uint32_t g);
void incidlelocked(struct gmp *rt, int32_t delta);
bool maskread(_Atomic uint32_t *mask, uint32_t id);
void maskset(_Atomic uint32_t *mask, uint32_t id);
void maskclear(_Atomic uint32_t *mask, uint32_t id);

/* newm.c */
uint32_t mReserve(struct gmp *rt); /* sched.lock; a record and an id, or 0 */
void newmReserved(struct gmp *rt, enum mstartfn fn, uint32_t p, uint32_t m);
void newm(struct gmp *rt, enum mstartfn fn, uint32_t p);

/* lock_futex.c */
bool notewake(struct gmp *rt, struct note *note);   /* note_wakeup; false: it was awake already */
void notewakeup(struct gmp *rt, struct note *note); /* the same, where that is an error */

/* stw.c */
bool tryStopTheWorld(struct gmp *rt); /* on an M: false when another one stops it; let the G give way, and try again */
bool stopTheWorld(struct gmp *rt);    /* by the caller: waits. False: the run has ended meanwhile */
void startTheWorld(struct gmp *rt);
void gcstopm(struct gmp *rt);
uint32_t procresize(struct gmp *rt, int32_t n); /* sched.lock, world stopped; the Ps with work, by link */
void preemptall(struct gmp *rt);
void preemptone(struct gmp *rt, struct p *pp);
void worldstopped(struct gmp *rt, struct p *pp); /* sched.lock: this P stops */
void uncountStopped(struct gmp *rt);            /* sched.lock: one P less to stop */

/* preempt.c */
void preemptSignal(struct gmp *rt); /* the handler of SIGURG, on an M that is a process */
void preemptTake(struct gmp *rt);   /* in a G's own code, between two instructions of it: gives way if that is asked for */
void robbed(struct gmp *rt);        /* out of a G's own code: it may have lost its P there; has one again after it */

/* syscall.c */
void entersyscall(struct gmp *rt);
void entersyscallblock(struct gmp *rt);
bool exitsyscall(struct gmp *rt); /* false: the G has been queued, this M has no P and must stop */
bool regainP(struct gmp *rt);     /* the same, by somebody who is in the runtime already */

/* sysmon.c */
_Noreturn void sysmon(struct gmp *rt);
void wakesysmon(struct gmp *rt); /* sched.lock */

/* deadlock.c */
#define DEADLOCK_TEXT "all goroutines are asleep - deadlock!"
void checkdead(struct gmp *rt); /* sched.lock */
void fatal(struct gmp *rt, enum fatal why, uint64_t arg, const char *text);
/* Why the run ends, once that can be read; FATAL_NONE before. */
static inline uint32_t fatalSaid(struct gmp *rt)
{
	uint32_t why = load_seq_cst(&rt->s->fatal);

	return why & FATAL_SAYING ? FATAL_NONE : why;
}
/* The run has ended, or (asked by the caller) the template has died: nobody will come whom one could wait for. */
bool isOver(struct gmp *rt);
_Noreturn void throw(struct gmp *rt, const char *text);
_Noreturn void mexit(struct gmp *rt); /* thread or process ends here */

/* time.c: timers of Ps */
void timeSleep(struct gmp *rt, uint32_t g, int64_t ns); /* gopark and the timer */
int64_t timersCheck(struct gmp *rt, struct p *pp, int64_t now, bool *ran); /* on an M; the next one, or 0 */
int64_t timeSleepUntil(struct gmp *rt); /* INT64_MAX: none */
void timersTake(struct gmp *rt, struct p *to, struct p *from); /* world stopped */
void timersRebuild(struct gmp *rt, struct p *pp); /* repair: one heap, from allgs; NULL: all, nobody else is inside */

/* script.c */
void scriptRun(struct gmp *rt, uint32_t g); /* until it blocks, yields, is preempted or ends */

/* tally.c: births and ends, counted so that a kill in between does not miscount */
#define LOG_BIRTH UINT32_C(0x80000000)
void tallyBirth(struct gmp *rt, uint32_t g); /* dead -> runnable */
void tallyEnd(struct gmp *rt, uint32_t g);   /* running -> dead */
void tallyRedo(struct gmp *rt, uint32_t m);  /* repair: what M was at */
struct tally *talliesOf(struct gmp *rt, uint32_t m);

/* The gate (proc.c): an M is in the runtime from enterRuntime to leaveRuntime. */
void gatewait(struct gmp *rt);
static inline void enterRuntime(struct gmp *rt)
{
	uint32_t before = swap_seq_cst(rt->where, M_RUNTIME);

	POINT(rt, "enterRuntime.where");
	if (load_seq_cst(&rt->s->gate))
		gatewait(rt);
	if (__builtin_expect(before == M_ROBBED, 0))
		robbed(rt);
}
static inline void leaveRuntime(struct gmp *rt, enum m_where where)
{
	store_release(rt->where, where);
	POINT(rt, "leaveRuntime.where");
}

/* Nothing of anybody's in hand: a good moment to let a repairer, or an observer, by. */
static inline void passGate(struct gmp *rt)
{
	if (load_relaxed(&rt->s->gate)) {
		leaveRuntime(rt, M_GATE);
		enterRuntime(rt);
	}
}

/* To a G's own code: from here on SIGURG parks the M with it. One that came while we were inside is followed now. */
static inline void enterUser(struct gmp *rt)
{
	leaveRuntime(rt, M_USER);
	if (rt->preempted)
		preemptTake(rt);
}

/* Between the two a G's own code is not parked, and its P is not taken: it is about to change shared memory, or to be
 * captured. They nest. Not for long: whoever wants the world stopped waits. */
static inline void acquirem(struct gmp *rt)
{
	store_relaxed(&rt->m->locks, load_relaxed(&rt->m->locks) + 1);
	atomic_signal_fence(memory_order_seq_cst); /* for the handler in this thread: nothing moves up across it */
}
static inline void releasem(struct gmp *rt)
{
	int32_t depth = load_relaxed(&rt->m->locks) - 1;

	atomic_signal_fence(memory_order_seq_cst);
	store_relaxed(&rt->m->locks, depth);
	atomic_signal_fence(memory_order_seq_cst);
	if (depth == 0 && rt->preempted && load_relaxed(rt->where) != M_RUNTIME)
		preemptTake(rt);
}

static inline int64_t nanotime(void)
{
	return monotonic_ns();
}

/* In so many ns; as late as can be when that is later than any time there is. */
static inline int64_t nanotimeIn(int64_t ns)
{
	int64_t now = nanotime();

	return ns < INT64_MAX - now ? now + ns : INT64_MAX;
}

static inline uint32_t cheaprand(struct gmp *rt)
{
	rt->rng = rt->rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(rt->rng >> 32);
}
static inline uint32_t cheaprandn(struct gmp *rt, uint32_t n)
{
	return (uint32_t)((uint64_t)cheaprand(rt) * n >> 32);
}
static inline void shuffle(struct gmp *rt, uint32_t *items, uint32_t n)
{
	for (uint32_t i = 1; i < n; i++) {
		uint32_t j = cheaprandn(rt, i + 1), other = items[i];

		items[i] = items[j];
		items[j] = other;
	}
}

#endif
