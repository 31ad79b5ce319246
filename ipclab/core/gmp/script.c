/* script.c: runs script Gs. See script.h. */
#define _GNU_SOURCE
#include "script.h"

#include <sched.h>
#include <time.h>

#include "chan.h"
#include "events.h"
#include "gmp.h"
#include "lock_futex.h"
#include "parcel.h"
#include "point.h"
#include "proc.h"

#define COMPUTE_ROUNDS 200 /* pauses between two looks at the clock and at preempt; some microseconds */

/* How a step ends. LEFT: the G is not ours any more. */
enum how { NEXT, LEFT };

static const char *const reasons[waitReasonCount] = {
	[waitReasonZero] = "",
	[waitReasonChanReceive] = "chan receive",
	[waitReasonChanSend] = "chan send",
	[waitReasonSelect] = "select",
	[waitReasonSleep] = "sleep",
	[waitReasonSemacquire] = "semacquire",
	[waitReasonSyncMutexLock] = "sync.Mutex.Lock",
	[waitReasonSyncWaitGroupWait] = "sync.WaitGroup.Wait",
	[waitReasonPanicWait] = "panicwait",
};

const char *waitReasonString(enum wait_reason reason)
{
	return reason < waitReasonCount ? reasons[reason] : "unknown wait reason";
}

/* Ends the run. The G has not ended, it waits for that: what it was to do it has not done. */
static enum how misuse(struct gmp *rt, uint32_t g, enum misuse what, const char *text)
{
	fatal(rt, FATAL_USE, (uint64_t)what << 32 | load_relaxed(&G(rt, g)->goid), text);
	gopark(rt, g, waitReasonPanicWait);
	return LEFT;
}

/* --- time --- */

static int64_t cputime(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* SIGURG says that sysmon wants the CPU; between threads there is no signal, and the word itself is looked at. */
static bool preemptWanted(struct gmp *rt, struct g *gp)
{
	if (!rt->s->threads && !rt->preempted)
		return load_relaxed(&rt->s->gcwaiting) && load_relaxed(&gp->preempt);
	rt->preempted = 0;
	return load_relaxed(&gp->preempt);
}

static enum how compute(struct gmp *rt, uint32_t g)
{
	struct g *gp = G(rt, g);
	int64_t start = cputime(), used = 0;
	bool wanted = false;

	rt->polls = 1;
	leaveRuntime(rt, M_USER);
	while (used < gp->left && !wanted && !load_relaxed(&rt->s->exiting)) {
		for (int i = 0; i < COMPUTE_ROUNDS; i++)
			cpu_relax();
		used = cputime() - start;
		wanted = preemptWanted(rt, gp);
	}
	enterRuntime(rt);
	rt->polls = 0;
	gp->left -= used;
	if (gp->left <= 0) {
		gp->left = 0;
		gp->resume = OP_EXIT;
		if (!wanted)
			return NEXT;
	}
	gosched(rt, g, true);
	return LEFT;
}

uint64_t crunch(int64_t rounds)
{
	uint64_t sum = 1;

	for (; rounds > 0; rounds--)
		sum = sum * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return sum >> 32;
}

/* A G's own code, which knows nothing of us: it is parked where it is, and gives way once more at its end. */
static enum how ownCode(struct gmp *rt, uint32_t g, const struct step *step)
{
	struct g *gp = G(rt, g);
	uint64_t result;

	enterUser(rt);
	result = step->op == OP_CRUNCH ? crunch(step->b) : rt->hooks.user(step->a, step->b);
	enterRuntime(rt);
	gp->acc += result;
	if (!load_relaxed(&gp->preempt))
		return NEXT;
	gosched(rt, g, true);
	return LEFT;
}

/* A system call that takes its time. Between threads it can be cut short, by the end of the run. */
static void blockInKernel(struct gmp *rt, int64_t ns)
{
	int64_t until = nanotimeIn(ns);
	struct timespec at = timespec_of_ns(until);

	if (!rt->s->threads) {
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
			;
		return;
	}
	while (nanotime() < until && !load_seq_cst(&rt->s->exiting))
		futex_wait_until(&rt->s->exiting, 0, until);
}

static enum how block(struct gmp *rt, const struct step *step)
{
	if (rt->s->model == GMP_MANY_TO_1) { /* one M: who blocks blocks all */
		leaveRuntime(rt, M_USER);
		blockInKernel(rt, step->b);
		enterRuntime(rt);
		return NEXT;
	}
	if (step->op == OP_BLOCK)
		entersyscall(rt);
	else
		entersyscallblock(rt);
	blockInKernel(rt, step->b);
	return exitsyscall(rt) ? NEXT : LEFT;
}

/* --- channels --- */

static enum how sent(struct gmp *rt, uint32_t g, enum waited how)
{
	if (how == WAIT_CLOSED)
		return misuse(rt, g, MISUSE_SEND_CLOSED, "send on closed channel");
	return how == WAIT_PARKED ? LEFT : NEXT;
}

static enum how doSend(struct gmp *rt, uint32_t g, const struct step *step)
{
	G(rt, g)->resume = OP_SEND;
	return sent(rt, g, chansend(rt, g, step->a, (uint64_t)step->b, true));
}

static enum how doRecv(struct gmp *rt, uint32_t g, const struct step *step)
{
	uint64_t value = 0;

	G(rt, g)->resume = OP_RECV;
	if (chanrecv(rt, g, step->a, &value, true) == WAIT_PARKED)
		return LEFT;
	G(rt, g)->acc += value;
	return NEXT;
}

static enum how doGive(struct gmp *rt, uint32_t g, const struct step *step)
{
	int error;
	uint64_t word = parcelMake(rt, (uint64_t)step->b, &error);

	if (!word) {
		fatal(rt, FATAL_MEMORY, (uint64_t)-error, "no room for another block");
		return LEFT;
	}
	G(rt, g)->resume = OP_SEND;
	return sent(rt, g, chansend(rt, g, step->a, word, true));
}

static enum how doChurn(struct gmp *rt, uint32_t g, const struct step *step)
{
	int error = 0;

	for (int64_t i = 0; i < step->b && !error; i++) {
		int c = makechan(rt, step->a), s = makesema(rt, 0);

		error = c < 0 ? c : s < 0 ? s : 0;
		for (uint32_t j = 0; !error && j < step->a; j++) {
			uint64_t word = parcelMake(rt, 100, &error);

			if (word && chansend(rt, g, (uint32_t)c, word, false) != WAIT_DONE)
				throw(rt, "a channel has no room for what it is made for");
		}
		if (c >= 0)
			freechan(rt, (uint32_t)c);
		if (s >= 0)
			freesema(rt, (uint32_t)s);
	}
	if (error)
		fatal(rt, FATAL_MEMORY, (uint64_t)-error, "no room for another channel");
	return error ? LEFT : NEXT;
}

static enum how took(struct gmp *rt, uint32_t g, uint64_t word)
{
	G(rt, g)->acc += word ? parcelOpen(rt, word) : 0; /* 0: closed */
	return NEXT;
}

static enum how doTake(struct gmp *rt, uint32_t g, const struct step *step)
{
	uint64_t word = 0;

	G(rt, g)->resume = OP_TAKE;
	if (chanrecv(rt, g, step->a, &word, true) == WAIT_PARKED)
		return LEFT;
	return took(rt, g, word);
}

static void casesOf(const struct step *steps, uint32_t n, struct scase *cases)
{
	for (uint32_t i = 0; i < n; i++)
		cases[i] = (struct scase){.c = steps[i].a, .sending = steps[i].op == OP_SEND, .elem = (uint64_t)steps[i].b};
}

static enum how selected(struct gmp *rt, uint32_t g, enum waited how, const struct scase *scase)
{
	if (how == WAIT_CLOSED && scase->sending)
		return misuse(rt, g, MISUSE_SEND_CLOSED, "send on closed channel");
	if (how == WAIT_DONE && !scase->sending)
		G(rt, g)->acc += scase->elem;
	return NEXT;
}

static enum how doSelect(struct gmp *rt, uint32_t g, const struct step *step)
{
	struct scase cases[SELECT_MOST];
	enum waited how;
	uint32_t chosen = 0;

	casesOf(step + 1, step->a, cases);
	G(rt, g)->pc += step->a;
	G(rt, g)->resume = OP_SELECT;
	how = selectgo(rt, g, cases, step->a, step->b == 0, &chosen);
	return how == WAIT_PARKED ? LEFT : selected(rt, g, how, &cases[chosen]);
}

static enum how resumeSelect(struct gmp *rt, uint32_t g, const struct step *step)
{
	struct scase cases[SELECT_MOST];
	enum waited how;
	uint32_t chosen;

	casesOf(step + 1, step->a, cases);
	how = selectgoResume(rt, g, cases, step->a, &chosen);
	return selected(rt, g, how, &cases[chosen]);
}

/* --- the rest --- */

static enum how giveWay(struct gmp *rt, uint32_t g)
{
	G(rt, g)->resume = OP_EXIT;
	goyield(rt, g);
	return LEFT;
}

static enum how doUnlock(struct gmp *rt, uint32_t g, const struct step *step)
{
	int rc = mutexUnlock(rt, &rt->semas[step->a]);

	if (rc < 0)
		return misuse(rt, g, MISUSE_UNLOCK_UNLOCKED, "unlock of unlocked mutex");
	return rc ? giveWay(rt, g) : NEXT;
}

/* As a loop of go statements: it can be preempted after each of them, or there may be a million without a pause. */
static enum how doSpawn(struct gmp *rt, uint32_t g, const struct step *step, int64_t left)
{
	struct g *gp = G(rt, g);

	while (left-- > 0) {
		if (!newproc(rt, step->a, g, true))
			break;
		passGate(rt);
		if (left > 0 && load_relaxed(&gp->preempt)) {
			gp->left = left;
			gp->resume = OP_SPAWN;
			gosched(rt, g, true);
			return LEFT;
		}
	}
	return NEXT;
}

static enum how doLoop(struct gmp *rt, uint32_t g, const struct step *step)
{
	struct g *gp = G(rt, g);
	uint32_t *count = &gp->count[COUNTER(step->a)];

	if (++*count < step->b)
		gp->pc = TARGET(step->a);
	else
		*count = 0;
	passGate(rt); /* it may go round for ever without waiting; and sysmon, who would preempt it, may be the one who died */
	if (!load_relaxed(&gp->preempt) && !load_relaxed(&rt->s->exiting)) /* a thread must see the end by itself */
		return NEXT;
	gosched(rt, g, true);
	return LEFT;
}

static enum how doLockM(struct gmp *rt, uint32_t g, bool lock)
{
	struct g *gp = G(rt, g);

	if (rt->s->model == GMP_MANY_TO_1) /* there is one M: a P handed on would ask for another */
		return NEXT;
	if (lock) {
		gp->lockedExt++;
		store_relaxed(&gp->lockedm, M_INDEX(rt, rt->m));
		POINT(rt, "lockOSThread.lockedm");
		store_relaxed(&rt->m->lockedg, g);
		POINT(rt, "lockOSThread.lockedg");
	} else if (gp->lockedExt && --gp->lockedExt == 0) {
		store_relaxed(&gp->lockedm, 0);
		POINT(rt, "unlockOSThread.lockedm");
		store_relaxed(&rt->m->lockedg, 0);
		POINT(rt, "unlockOSThread.lockedg");
	}
	return NEXT;
}

static enum how doStopWorld(struct gmp *rt, uint32_t g, const struct step *step)
{
	int64_t until;

	if (!tryStopTheWorld(rt)) { /* somebody else stops it, and waits for us */
		G(rt, g)->pc--;
		gosched(rt, g, false);
		return LEFT;
	}
	/* The task is the G's own code, however long: whoever looks at the scheduler, or repairs it, need not wait for its
	 * end. Nobody takes its P, nor parks it: M.locks counts worldsema. */
	leaveRuntime(rt, M_USER);
	for (until = nanotimeIn(step->b); nanotime() < until && !load_relaxed(&rt->s->exiting);)
		cpu_relax();
	enterRuntime(rt);
	if (step->a)
		store_relaxed(&rt->s->newprocs, step->a);
	POINT(rt, "stopworld.newprocs");
	startTheWorld(rt);
	return NEXT;
}

static enum how waits(enum waited how)
{
	return how == WAIT_PARKED ? LEFT : NEXT;
}

/* One step; pc is behind it already, so that whoever goes on with the G finds it in order. */
static enum how perform(struct gmp *rt, uint32_t g, const struct step *step)
{
	struct g *gp = G(rt, g);

	switch (step->op) {
	case OP_COMPUTE:
		gp->left = step->b;
		gp->resume = OP_COMPUTE;
		return compute(rt, g);
	case OP_CRUNCH:
	case OP_USER:
		return ownCode(rt, g, step);
	case OP_SLEEP:
		timeSleep(rt, g, step->b);
		return LEFT;
	case OP_BLOCK:
	case OP_BLOCKING:
		return block(rt, step);
	case OP_SEND:
		return doSend(rt, g, step);
	case OP_RECV:
		return doRecv(rt, g, step);
	case OP_GIVE:
		return doGive(rt, g, step);
	case OP_CHURN:
		return doChurn(rt, g, step);
	case OP_TAKE:
		return doTake(rt, g, step);
	case OP_CLOSE:
		return closechan(rt, step->a) ? NEXT : misuse(rt, g, MISUSE_CLOSE_CLOSED, "close of closed channel");
	case OP_SELECT:
		return doSelect(rt, g, step);
	case OP_LOCK:
		gp->resume = OP_LOCK;
		return waits(mutexLock(rt, g, &rt->semas[step->a]));
	case OP_UNLOCK:
		return doUnlock(rt, g, step);
	case OP_ACQUIRE:
		gp->resume = OP_ACQUIRE;
		return waits(semacquire(rt, g, &rt->semas[step->a]));
	case OP_RELEASE:
		return semrelease(rt, &rt->semas[step->a], false) ? giveWay(rt, g) : NEXT;
	case OP_WG_ADD:
		return waitgroupAdd(rt, &rt->semas[step->a], (int32_t)step->b)
			       ? NEXT
			       : misuse(rt, g, MISUSE_NEGATIVE_WAITGROUP, "negative WaitGroup counter");
	case OP_WG_WAIT:
		return waits(waitgroupWait(rt, g, &rt->semas[step->a]));
	case OP_SPAWN:
		return doSpawn(rt, g, step, step->b);
	case OP_YIELD:
		gosched(rt, g, false);
		return LEFT;
	case OP_LOOP:
		return doLoop(rt, g, step);
	case OP_LOCKM:
		return doLockM(rt, g, true);
	case OP_UNLOCKM:
		return doLockM(rt, g, false);
	case OP_STOPWORLD:
		return doStopWorld(rt, g, step);
	default:
		goexit0(rt, g);
		return LEFT;
	}
}

/* What the step before pc has left to do, now that the G runs again. */
static enum how resume(struct gmp *rt, uint32_t g, const struct step *steps)
{
	struct g *gp = G(rt, g);
	const struct step *step = &steps[gp->pc - 1];
	uint64_t value = 0;
	enum how how = NEXT;

	switch (gp->resume) {
	case OP_COMPUTE:
		return compute(rt, g);
	case OP_SPAWN:
		return doSpawn(rt, g, step, gp->left);
	case OP_SEND:
		how = sent(rt, g, chansendResume(rt, g));
		break;
	case OP_RECV:
		chanrecvResume(rt, g, &value);
		gp->acc += value;
		break;
	case OP_TAKE:
		chanrecvResume(rt, g, &value);
		how = took(rt, g, value);
		break;
	case OP_SELECT:
		while (step->op != OP_SELECT)
			step--;
		how = resumeSelect(rt, g, step);
		break;
	case OP_LOCK:
		how = waits(mutexLockResume(rt, g, &rt->semas[step->a]));
		break;
	case OP_ACQUIRE:
		how = waits(semacquireResume(rt, g, &rt->semas[step->a]));
		break;
	default:
		break;
	}
	return how;
}

static void scriptSteps(struct gmp *rt, uint32_t g, struct g *gp)
{
	const struct program *program = &rt->programs[gp->startpc];
	const struct step *steps = &rt->steps[program->first];
	static const struct step end = {.op = OP_EXIT};
	enum how how = NEXT;

	if (gp->resume != OP_EXIT)
		how = resume(rt, g, steps);
	while (how == NEXT) {
		const struct step *step = gp->pc < program->count ? &steps[gp->pc] : &end;

		gp->resume = OP_EXIT;
		gp->pc++;
		how = perform(rt, g, step);
	}
}

void scriptRun(struct gmp *rt, uint32_t g)
{
	struct g *gp = G(rt, g);

	if (rt->s->model == GMP_1_TO_1 && gp->pc == 0 && !gp->lockedExt)
		doLockM(rt, g, true); /* this M is its own from here to its end, and ends with it */
	scriptSteps(rt, g, gp);
}
