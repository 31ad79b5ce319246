/*
 * proc.c: the scheduler. (Go 1.25: runtime/proc.go.) This header is the essay; the round itself is below it.
 *
 * Vocabulary
 *   G      a goroutine: something to run. Here its whole continuation lies in its record: a program and a place in it.
 *   M      a machine: an operating-system process that runs Gs. (Threads of one process in the sanitizer builds.) It
 *          keeps its record for life. When it has gone, the next one gets the record, with an id of its own.
 *   P      a processor: the right to run user code, with the resources for it: a run queue, free lists, timers.
 *          gomaxprocs of them exist; an M must hold one to run a G. An M without one is blocked, idle, or about to be.
 *   sched  what belongs to none of them: lists of idle Ms and Ps, the global queue, counts.
 *   spinning M   one that has no work of its own and is looking for other Ps' work; counted in nmspinning.
 *   template     the process that forks Ms and reaps them. Ms do not fork each other: an M may be locked to a G whose
 *          code has changed its process, and a child inherits that. (Go has a template thread, for the same reason.)
 *   sysmon an M without a P, that takes Ps away from Ms which sit in a system call, and the CPU from Gs that run long.
 *
 *            go, channels, timers
 *                   | ready: runqput                        every 61st slice first
 *                   v                                                |
 *      P 0 [runnext|runq]   P 1 [runnext|runq]   ...  global runq <--+-- preempted, yielding, overflow, no P
 *         ^   |  steal half <------+                    |
 *         |   v                                         v
 *        M 2: schedule -> findRunnable -> execute -> the G runs -> blocks, yields, ends, is preempted -> schedule
 *         |
 *         +-- none: releasep, to the idle list, asleep on its note, until somebody hands it a P (nextp) and wakes it
 *
 * The problem. Runnable Gs and Ms that sleep must not be there at the same time (work conservation), and Ms must not
 * burn CPU or wake each other for nothing. The work is spread over per-P queues, so nobody sees all of it.
 *
 * Rejected, by Go's authors first
 *   1. All state in one place, under one lock. Does not scale, and every G changes its cache.
 *   2. Who readies a G hands over its P, wakes another M with it, and goes to look for work itself. Ms thrash: the
 *      readied G may be gone a microsecond later; and the state is on the old CPU.
 *   3. Wake an M with every G that becomes readied, if a P is idle. Ms wake, find nothing, and sleep again.
 *   And for processes:
 *   4. A queue in the kernel (pipe, eventfd as a counter): two system calls a G, 1-2 us each, and no order but its own.
 *   5. A supervisor that deals out Gs: one more process switch for each G, and its death is everybody's.
 *   6. pthread robust mutexes and set_robust_list: the dead holder is told to the next one who asks, who then would have
 *      to repair in the middle of its own work. One repairer, with all others out of the way, is simpler to get right.
 *
 * Chosen. When a G becomes runnable, one more M is woken if there is an idle P and *no M spins*. A spinning M that finds
 * work wakes another before it runs it, so that the number of Ms follows the work, by ones. The price is a race between
 * "work appeared" and "the last one stopped looking", which two mirrored protocols close:
 *
 *   submitter                                        spinning M that gives up (find.c)
 *   1. put the G on a queue                          1. nmspinning--             (seq_cst read-modify-write)
 *   2. -- its store before the load below --         2. -- its store before the loads below --
 *   3. nmspinning == 0? then wake an M (wakep)       3. look at all queues and timers again; work? take a P, spin again
 *
 *   Each side writes its own word and then reads the other's. One total order of these four accesses means that at least
 *   one side sees the other's write: the M finds the G, or the submitter finds that nobody spins. That needs more than
 *   release and acquire: runqput stores the tail seq_cst, wakep loads nmspinning seq_cst; the other side subtracts from
 *   nmspinning and loads in runqempty, all seq_cst. (Go stores the tail with release, which on x86 is a plain store that
 *   the load may overtake.) The global queue needs none of this, because both look at it with sched.lock held.
 *   needspinning closes the rest: an M that wants to spin finds no P because another one is just about to drop its own
 *   without having spun; the flag makes that one look once more in its place.
 *   The same pair appears for: timers (minWhen, then look at lastpoll: 0, the poller is woken, else one more M, which
 *   looks at minWhen / lastpoll = 0, then look at minWhen, as that M), stop the world (gcwaiting, then look at P.status /
 *   P.status = _Psyscall, then look at gcwaiting), semaphores (the count, then look at nwait / nwait, then look at the
 *   count), the gate below (gate, then look at M.where / M.where, then look at the gate). test_gmp_runq has them all.
 *
 * Memory ordering. A G's plain fields belong to the M that holds the G: the one it runs on, or the one that has it in
 * hand. They pass on with it: through the tail of a ring (release) and its CAS (acquire), through sched.lock, through
 * nextp and a note, through a channel's lock. Its status is changed by CAS, as a check, not for ordering.
 *
 * The gate. An M is *outside* the runtime while it runs a G's own code, is in a system call of the G, or sleeps on its
 * note; then it holds no lock (but worldsema, see stw.c), has no G in hand, and its records say all there is to say. It
 * goes in and out by enterRuntime and leaveRuntime. To repair, the template closes the gate and waits until every live M
 * is outside; none can come in: who wants to waits there, M_GATE, and is as much outside as he was before, with a P and a
 * G that runs as it may be. Ms that go from round to round without leaving pass the gate in findRunnable. An observer who
 * wants to see everything at one moment has the template do the same for him: observe.c has that protocol and its
 * invariant.
 *
 * Death. An M can vanish between any two instructions. The words are chosen so that the truth can be found:
 *   - every structure has one store that counts (ring: head or tail; list: its head or the link; channel: sendx, recvx,
 *     sudog.done), everything else is derived from it;
 *   - a G leaves one place before it gets to the next, so it is never in two;
 *   - allgs and allm name everything. Queues, counts and idle lists can be rebuilt from them.
 *   The template (repair.c) notices (SIGCHLD), closes the gate; what the dead one has locked is made consistent, as far
 *   as its own lists go, and unlocked in its name, so that those who wait come through and out. Then, alone:
 *     killed while ...                                   what is found             what is done
 *     running a G's code, in its system call             curg, running or syscall  the G is lost: out of all queues; reported
 *     taking a G from a queue, before execute            runnable, on no queue     to the global queue
 *     putting one on a queue                             the same                  the same
 *     readying a waiting G                               waiting, its sudog done   made runnable
 *     waking it by timer                                 waiting, in no heap       made runnable
 *     creating a G                                       dead, on no free list     freed; or runnable: queued
 *     ending a G                                         dead, on no free list     freed, counted (tally.c)
 *     holding a P, handing it on, taking it              a P nobody has            idle, or started if it has work
 *     spinning, or having counted itself so              nmspinning too high       counted anew
 *     taking an M off the idle list                      parked, on no list        woken with its P, or put back
 *     asking for a new M                                 a record, no process      listed: born with its P; else spare
 *     stopping the world                                 gcwaiting, no stopper     the world is started in its name
 *   Its P's queue stays as it is. Nothing is lost but the G it ran, and one that was locked to it.
 *
 * Stopped at any instruction. Two things stop a G in the middle of its own code: SIGURG, which its M follows (preempt.c),
 * and whoever stops the process itself - SIGSTOP, a debugger, a page that does not come (stopped.c). The invariant: *an M
 * executes its G's code only while its record and its P's name each other.*
 *   - SIGURG is followed where M.where is M_USER, M.locks 0 and a P there: the handler parks the G on the M's own stack,
 *     locked to it, as runnable on the global queue, and sleeps until somebody brings a P. Anywhere else it is noted, and
 *     followed where that ends (enterUser, releasem) or where the code looks by itself (compute). So no lock is ever held
 *     by a parked G.
 *   - Who waits for an M that stands still may take its P, as if it were in a system call. Between looking and taking
 *     the M may be continued, so: mark M.where (M_USER -> M_ROBBED, by CAS, sched.lock held), send SIGURG, look again
 *     that it stands still, then take. An M that goes on meets the handler first, and in it enterRuntime, whose exchange
 *     finds the mark; then it waits for sched.lock, and sees what has become of its P. An M that came into the runtime
 *     before the mark makes the CAS fail. An M that blocks SIGURG would go on without one: it is not taken, but named.
 *   - The taker dies halfway: the two records are what counts. They name each other: nothing was taken. They do not: the
 *     P is one that nobody has, the G in a system call (rebuild.c, mendRobbed; robbed, if the M comes first).
 *   An M that is stopped inside the runtime cannot be helped: it is waited for, and named after a second (gmp_stalled).
 *
 * Files: runtime2.h (the records), runq.c gfree.c (where Gs wait), mheap.c mheap_rebuild.c (blocks), m.c newm.c (Ms and
 * Ps), find.c (findRunnable), stw.c, syscall.c, sysmon.c, time.c, preempt.c, stopped.c (Ms that do not answer), chan.c,
 * chanmake.c, select.c, sema.c, script.c script_check.c parcel.c (what Gs do), template.c, repair.c, rebuild.c, wake.c and lend.c
 * (birth and death of Ms), lock_futex.c, deadlock.c, tally.c, events.c, schedtrace.c, observe.c, cpus.c, gmp.c (the
 * segment; what a caller sees); for tests: checked.c (asserted all the time), invariant.c (asserted after a repair),
 * point.c (where an M is killed).
 */
#define _GNU_SOURCE
#include "proc.h"

#include "checked.h"
#include "events.h"
#include "lock_futex.h"
#include "point.h"
#include "runq.h"

#define GATE_LOOK_NS INT64_C(10000000)

void casgstatus(struct gmp *rt, uint32_t g, uint32_t from, uint32_t to)
{
	if (!cas_seq_cst(&G(rt, g)->atomicstatus, &from, to))
		throw(rt, "casgstatus: bad incoming value");
	POINT(rt, "casgstatus.to");
}

/* A G's statistics: how long it was runnable before it ran. In ticks. */
static void becameRunnable(struct gmp *rt, struct g *gp)
{
	if (rt->s->tracking)
		gp->runnablesince = (int64_t)cputicks();
}

/* A gate that is closed when the run ends stays so: an M is ended there, but the caller goes on. */
static bool callerIsLeft(struct gmp *rt)
{
	return !rt->m && isOver(rt);
}

void gatewait(struct gmp *rt)
{
	struct schedt *s = rt->s;

	do {
		store_seq_cst(rt->where, M_GATE);
		POINT(rt, "gatewait.outside");
		while (load_seq_cst(&s->gate) && !callerIsLeft(rt))
			futex_wait_until(&s->gate, 1, monotonic_ns() + GATE_LOOK_NS);
		rt->eventticks = 0;
		store_seq_cst(rt->where, M_RUNTIME);
		POINT(rt, "gatewait.inside");
	} while (load_seq_cst(&s->gate) && !callerIsLeft(rt));
}

/* --- making runnable ------------------------------------------------------------------------------------------------ */

void ready(struct gmp *rt, uint32_t g, bool next)
{
	struct g *gp = G(rt, g);

	becameRunnable(rt, gp);
	casgstatus(rt, g, _Gwaiting, _Grunnable);
	POINT(rt, "ready.runnable");
	event(rt, EV_GO_UNBLOCK, load_relaxed(&gp->goid), 0);
	runqput(rt, rt->p, g, next);
	wakep(rt);
}

/* Each into runnext, as Go's goready: the last one runs next, those before it went to the tail. */
void readylist(struct gmp *rt, struct gQueue *list)
{
	for (uint32_t g; (g = queuePop(rt, list));)
		ready(rt, g, true);
}

/* no point: it is dead, and on no list */
static void newg(struct gmp *rt, struct g *gp, uint32_t program, uint32_t parent)
{
	store_relaxed(&gp->m, 0);
	store_relaxed(&gp->lockedm, 0);
	store_relaxed(&gp->waitreason, waitReasonZero);
	store_relaxed(&gp->preempt, 0);
	store_relaxed(&gp->waitsince, 0);
	store_relaxed(&gp->selectDone, 0);
	store_relaxed(&gp->param, 0);
	store_relaxed(&gp->timerp, 0);
	gp->parentGoid = parent ? load_relaxed(&G(rt, parent)->goid) : 0;
	gp->gopc = parent ? (uint64_t)G(rt, parent)->startpc << 32 | G(rt, parent)->pc : 0;
	gp->startpc = program;
	gp->pc = gp->resume = gp->lockedExt = gp->waiting = gp->nwaiting = 0;
	gp->left = gp->since = gp->when = gp->waited = gp->started = 0;
	gp->acc = 0;
	for (int i = 0; i < 4; i++)
		gp->count[i] = 0;
	gp->created = rt->s->tracking ? (int64_t)cputicks() : 0;
	gp->runnablesince = gp->created;
}

/* The caller, before the start, has no P: its one G goes to the global queue. */
uint32_t newproc(struct gmp *rt, uint32_t program, uint32_t parent, bool next)
{
	int error = 0;
	uint32_t g = rt->p ? gfget(rt, rt->p) : 0;

	if (!g)
		g = malg(rt, &error);
	if (!g) {
		fatal(rt, FATAL_MEMORY, (uint64_t)-error, "no room for another G");
		return 0;
	}
	newg(rt, G(rt, g), program, parent);
	POINT(rt, "newproc.filled");
	/* Without a P: the caller's. no point: it is no M */
	store_relaxed(&G(rt, g)->goid, rt->p ? newgoid(rt, rt->p) : add_seq_cst(&rt->s->goidgen, 1) + 1);
	POINT(rt, "newproc.goid");
	tallyBirth(rt, g);
	POINT(rt, "newproc.runnable");
	event(rt, EV_GO_CREATE, load_relaxed(&G(rt, g)->goid), G(rt, g)->parentGoid);
	if (!rt->p) {
		globrunqput(rt, g);
		return g;
	}
	runqput(rt, rt->p, g, next);
	wakep(rt);
	return g;
}

/* --- one round ------------------------------------------------------------------------------------------------------ */

void execute(struct gmp *rt, uint32_t g, bool inheritTime)
{
	struct g *gp = G(rt, g);

	store_relaxed(&rt->m->curg, g);
	POINT(rt, "execute.m");
	store_relaxed(&gp->m, M_INDEX(rt, rt->m));
	POINT(rt, "execute.curg");
	casgstatus(rt, g, _Grunnable, _Grunning);
	POINT(rt, "execute.running");
	checkRuns(rt, g);
	store_relaxed(&gp->waitsince, 0);
	store_relaxed(&gp->preempt, 0);
	if (!inheritTime)
		count_up(&rt->p->schedtick);
	count_up(&rt->m->switches);
	if (rt->s->tracking) {
		uint64_t now = cputicks();

		gp->waited += (int64_t)now - gp->runnablesince;
		gp->started = gp->started ? gp->started : (int64_t)now;
		eventAt(rt, now, EV_GO_START, load_relaxed(&gp->goid), inheritTime);
	} else if (rt->events) {
		eventAt(rt, eventNext(rt), EV_GO_START, load_relaxed(&gp->goid), inheritTime);
	}
	rt->told = false;
	rt->eventticks = 0;
}

/* "Spinning off", then look whether another one is needed in our place: we have found work, there may be more. */
static void resetspinning(struct gmp *rt)
{
	store_relaxed(&rt->m->spinning, 0);
	event(rt, EV_SPIN, 0, 0);
	POINT(rt, "resetspinning.off");
	if (add_seq_cst(&rt->s->nmspinning, -1) < 1 && !load_relaxed(&rt->s->gate))
		throw(rt, "resetspinning: negative nmspinning");
	POINT(rt, "resetspinning.uncounted");
	wakep(rt);
}

uint32_t schedule(struct gmp *rt)
{
	struct m *mp = rt->m;
	bool inheritTime;
	uint32_t g;

	if (load_relaxed(&mp->locks) != 0)
		throw(rt, "schedule: holding locks");
	checkSelf(rt);
	if (load_relaxed(&mp->lockedg)) {
		stoplockedm(rt);
		g = load_relaxed(&mp->lockedg);
		execute(rt, g, false);
		return g;
	}
	for (;;) {
		struct p *pp = rt->p;

		if (load_relaxed(&pp->preempt))
			store_relaxed(&pp->preempt, 0);
		if (load_relaxed(&mp->spinning) && !runqempty(pp))
			throw(rt, "schedule: spinning with local work");
		g = findRunnable(rt, &inheritTime);
		if (load_relaxed(&mp->spinning))
			resetspinning(rt);
		if (load_relaxed(&G(rt, g)->lockedm) == 0)
			break;
		startlockedm(rt, g);
	}
	execute(rt, g, inheritTime);
	return g;
}

void dropg(struct gmp *rt)
{
	uint32_t g = load_relaxed(&rt->m->curg);

	ALWAYS(rt, g && load_relaxed(&G(rt, g)->m) == M_INDEX(rt, rt->m), "M to G: g.m is not its M");
	store_relaxed(&G(rt, g)->m, 0);
	POINT(rt, "dropg.m");
	store_relaxed(&rt->m->curg, 0);
	POINT(rt, "dropg.curg");
}

void gopark(struct gmp *rt, uint32_t g, enum wait_reason reason)
{
	struct g *gp = G(rt, g);
	uint64_t now = rt->s->tracking || rt->events ? cputicks() : 0;

	eventAt(rt, now, EV_GO_BLOCK, load_relaxed(&gp->goid), reason);
	store_relaxed(&gp->waitsince, (int64_t)now);
	store_relaxed(&gp->waitreason, reason);
	POINT(rt, "gopark.reason");
	dropg(rt);
	POINT(rt, "gopark.dropped");
	casgstatus(rt, g, _Grunning, _Gwaiting);
	POINT(rt, "gopark.waiting");
}

void gosched(struct gmp *rt, uint32_t g, bool preempted)
{
	struct g *gp = G(rt, g);

	event(rt, preempted ? EV_GO_PREEMPT : EV_GO_SCHED, load_relaxed(&gp->goid), 0);
	if (preempted)
		add_relaxed(&rt->s->preempts, 1);
	becameRunnable(rt, gp);
	dropg(rt);
	casgstatus(rt, g, _Grunning, _Grunnable);
	POINT(rt, "gosched.runnable");
	lock(rt, &rt->s->lock);
	globrunqput(rt, g);
	unlock(rt, &rt->s->lock);
	wakep(rt);
}

/* As gosched, but to the local queue: for handing a semaphore over. */
void goyield(struct gmp *rt, uint32_t g)
{
	struct g *gp = G(rt, g);

	event(rt, EV_GO_PREEMPT, load_relaxed(&gp->goid), 1);
	becameRunnable(rt, gp);
	dropg(rt);
	casgstatus(rt, g, _Grunning, _Grunnable);
	POINT(rt, "goyield.runnable");
	runqput(rt, rt->p, g, false);
}

void goexit0(struct gmp *rt, uint32_t g)
{
	struct g *gp = G(rt, g);
	bool wasLocked = load_relaxed(&gp->lockedm) != 0, ends = rt->s->mainends && load_relaxed(&gp->goid) == 1;

	event(rt, EV_GO_END, load_relaxed(&gp->goid), 0);
	tallyEnd(rt, g);
	store_relaxed(&gp->lockedm, 0);
	POINT(rt, "goexit.lockedm");
	store_relaxed(&rt->m->lockedg, 0);
	POINT(rt, "goexit.lockedg");
	dropg(rt);
	gfput(rt, rt->p, g);
	if (ends)
		fatal(rt, FATAL_DONE, 0, "main has ended");
	if (wasLocked) { /* its code may have changed the process in ways nobody knows: the M goes with it */
		handoffp(rt, releasep(rt));
		mexit(rt);
	}
}

/* --- the life of an M ----------------------------------------------------------------------------------------------- */

void mstart(struct gmp *rt)
{
	struct m *mp = rt->m;

	store_release(&mp->procid, (int32_t)rt->tid);
	POINT(rt, "mstart.procid");
	enterRuntime(rt);
	checkBirth(rt);
	event(rt, EV_MSTART, 0, 0);
	if (load_relaxed(&mp->mstartfn) == MSTART_SYSMON)
		sysmon(rt);
	if (load_relaxed(&mp->mstartfn) == MSTART_SPINNING) {
		store_relaxed(&mp->mstartfn, MSTART_NONE);
		POINT(rt, "mstart.fn");
		store_relaxed(&mp->spinning, 1); /* the one who made us has counted us */
	}
	POINT(rt, "mstart.spinning");
	acquirep(rt, load_acquire(&mp->nextp));
	store_relaxed(&mp->nextp, 0);
	POINT(rt, "mstart.taken");
	for (;;)
		scriptRun(rt, schedule(rt));
}
