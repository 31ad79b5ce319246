/*
 * observe.c: a consistent look at the whole scheduler, by an observer that has it mapped read-only and may die anywhere.
 *
 * The problem. Words that belong together (a status and a queue, a count and its list) change together; who copies them
 * while Ms work gets halves. The observer cannot take a lock, because it cannot write, and must not: it may be killed
 * with it. So somebody else makes the scheduler stand still, for a bounded time, on the observer's word alone.
 *
 * Rejected. Stop the world (stw.c): then every P is _Pgcstop and every preempted G on the global queue; what is seen is
 * the stop, not the work. A seqlock in every structure: every store of the fast path would pay for a look once a day.
 *
 * Chosen: the gate (proc.c). While it is closed and all Ms are outside the runtime, the records say all there is to say,
 * and nothing but a G's own code goes on: Ps stay _Prunning, queues stay as they are. The template closes and opens it
 * for repairs anyhow.
 *
 *   observer                                        template
 *   1. sigqueue(OBSERVE_HOLD, its token) -------->  1. gate = 1; waits until no M is inside
 *                                                   2. snapfor = token; snapseq++ (odd)
 *   2. waits until snapseq is odd for its token     3. waits: for the word to go on, for the observer's death (pidfd),
 *   3. copies                                          for the end of the run, or 200 ms
 *   4. snapseq still the same? else again at 1      4. snapseq++ (even)
 *   5. sigqueue(OBSERVE_RELEASE) ---------------->  5. gate = 0; wakes; looks for a deadlock that nobody saw meanwhile
 *
 * Invariant: while snapseq is odd no word of the scheduler changes, but where an M says it is and the notes Ms sleep on.
 * snapseq is made odd after the last M has gone outside and even before the first may come in, both seq_cst: a copy
 * between two loads of the same odd number is a copy of one moment.
 *
 * An M that dies while it is outside tears nothing; it is reaped when the gate is open. One that dies inside is repaired
 * first (templateReap), and then the hold is tried again. One that stands still inside for a second, or does not come out
 * for ten, is named: the hold is refused, and the gate opened. An observer that dies holds everybody up for as long as the template needs to see it.
 * Who may send the signal could also kill: the same uid, or root.
 *
 * no point: all stores but the observer's own are the template's, who is not killed alone: then all is over.
 */
#define _GNU_SOURCE
#include "observe.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/futex.h"
#include "core/procstat.h"
#include "core/sys.h"
#include "gmp.h"
#include "lock_futex.h"
#include "proc.h"
#include "template.h"

#define HOLD_NS INT64_C(200000000)
#define HOLD_LOOK_NS INT64_C(1000000)
#define GATE_LOOK_NS INT64_C(50000)
#define REFUSE_NS NS_PER_S          /* one that is stopped is waited for so long ... */
#define PATIENCE_NS (10 * NS_PER_S) /* ... one that only waits for a CPU, on a full machine, longer */
#define ASK_AGAIN_NS INT64_C(300000000) /* two observers at once: one of the questions may be lost */
#define ASK_LOOK_US 50

static inline int observeSignal(void)
{
	return SIGRTMIN + 5;
}

/* Whether a process stands still: stopped, traced, in an uninterruptible sleep, dead; not, if that cannot be read. */
static bool standsStill(pid_t pid)
{
	char text[1024], path[32];
	struct procstat stat;
	ssize_t size = -1;
	int fd;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		size = read(fd, text, sizeof text);
		close(fd);
	}
	return size > 0 && procstat_parse(text, (size_t)size, &stat) == 0 && strchr("TtDZX", stat.state);
}

/* --- the template's side --- */

static struct note *templatenote; /* of this process; set before the handler is installed */
static _Atomic int32_t askedtoken, askedpid, releasedtoken;
static bool lookOwed; /* for a deadlock; see lookForDeadlock */

static void onWish(int signo, siginfo_t *info, void *context)
{
	int32_t value = info->si_value.sival_int, token = value & ~1;
	int saved = errno;

	(void)signo, (void)context;
	if (info->si_code != SI_QUEUE || !token)
		return;
	if ((value & 1) == OBSERVE_RELEASE) {
		store_seq_cst(&releasedtoken, token);
	} else {
		store_seq_cst(&askedpid, info->si_pid);
		store_seq_cst(&askedtoken, token);
	}
	note_poke(templatenote);
	errno = saved;
}

void observeInstall(struct gmp *rt)
{
	struct sigaction action;

	templatenote = &rt->s->templatenote;
	memset(&action, 0, sizeof action);
	action.sa_sigaction = onWish;
	action.sa_flags = SA_SIGINFO | SA_RESTART;
	sigaction(observeSignal(), &action, NULL);
}

void observeForget(void)
{
	struct sigaction action;

	memset(&action, 0, sizeof action);
	action.sa_handler = SIG_DFL;
	sigaction(observeSignal(), &action, NULL);
}

/* An M that is inside; UINT32_MAX: the caller; 0: nobody. */
static uint32_t someoneInside(struct gmp *rt)
{
	for (uint32_t m = 1; m <= mLast(rt); m++)
		if (load_seq_cst(&M(rt, m)->where) == M_RUNTIME)
			return m;
	return load_seq_cst(&rt->s->callerwhere) == M_RUNTIME ? UINT32_MAX : 0;
}

/* Of those inside the one that stands still: the others may only wait for a lock of his. 0: none does. */
static uint32_t standsInside(struct gmp *rt)
{
	for (uint32_t m = 1; m <= mLast(rt); m++)
		if (load_seq_cst(&M(rt, m)->where) == M_RUNTIME && standsStill(load_relaxed(&M(rt, m)->procid)))
			return m;
	return load_seq_cst(&rt->s->callerwhere) == M_RUNTIME && standsStill(rt->s->callerpid) ? UINT32_MAX : 0;
}

/* Who does not come out; 0: nobody of whom that can be said yet. */
static uint32_t doesNotComeOut(struct gmp *rt, uint32_t inside, int64_t waited_ns)
{
	uint32_t m = waited_ns > REFUSE_NS ? standsInside(rt) : 0;

	return m || waited_ns <= PATIENCE_NS ? m : inside;
}

/*
 * Who went idle with the gate closed did not look for a deadlock. The lock may be held by one who stands still: then it is
 * for the next time we come by, for whoever asks meanwhile must be answered.
 */
static void lookForDeadlock(struct gmp *rt)
{
	uint32_t unlocked = 0;

	lookOwed = !cas_seq_cst(&rt->s->lock.key, &unlocked, rt->tid);
	if (lookOwed)
		return;
	checkdead(rt);
	unlock(rt, &rt->s->lock);
}

static void openGate(struct gmp *rt)
{
	store_seq_cst(&rt->s->gate, 0);
	futex_wake(&rt->s->gate, INT_MAX);
	lookForDeadlock(rt);
}

/* 1: all are outside, the gate is closed. 0: it is open again. -1: somebody died, to be repaired first; it is closed. */
static int closeGate(struct gmp *rt, int32_t token)
{
	struct schedt *s = rt->s;
	int64_t began = nanotime();
	uint32_t m, late;
	bool died;

	store_seq_cst(&s->gate, 1);
	while ((m = someoneInside(rt))) {
		templateReap(rt, &died);
		if (died)
			return -1;
		late = doesNotComeOut(rt, m, nanotime() - began);
		if (load_seq_cst(&s->exiting) || late) {
			store_seq_cst(&s->snapinside, late ? late : m);
			store_seq_cst(&s->snaprefused, token);
			openGate(rt);
			return 0;
		}
		futex_wait_until(&s->gate, 1, nanotime() + GATE_LOOK_NS);
	}
	return 1;
}

/* Until the observer is done or dead, at most HOLD_NS. */
static void hold(struct gmp *rt, int32_t token, int32_t pid)
{
	int64_t until = nanotime() + HOLD_NS;
	int pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	bool gone = pid > 0 && pidfd < 0 && errno == ESRCH;
	struct pollfd death = {.fd = pidfd, .events = POLLIN};

	while (!gone && load_seq_cst(&releasedtoken) != token && nanotime() < until && !load_seq_cst(&rt->s->exiting)) {
		gone = pidfd >= 0 && poll(&death, 1, 0) > 0;
		futex_wait_until(&rt->s->gate, 1, nanotime() + HOLD_LOOK_NS);
	}
	if (pidfd >= 0)
		close(pidfd);
}

bool observeServe(struct gmp *rt)
{
	struct schedt *s = rt->s;
	int32_t token = load_seq_cst(&askedtoken), pid = load_seq_cst(&askedpid), asked = token;
	int closed;

	if (lookOwed && !load_seq_cst(&s->exiting))
		lookForDeadlock(rt);
	if (!token || load_seq_cst(&s->exiting))
		return false;
	if (rt->deaths) /* the gate is closed for a repair, which comes first */
		return true;
	closed = closeGate(rt, token);
	if (closed < 0)
		return true; /* it stays asked */
	(void)cas_seq_cst(&askedtoken, &asked, 0); /* another one may have asked meanwhile */
	if (!closed)
		return true;
	store_seq_cst(&s->snapfor, token);
	add_seq_cst(&s->snapseq, 1);
	hold(rt, token, pid);
	add_seq_cst(&s->snapseq, 1);
	openGate(rt);
	return true;
}

/* --- the observer's side --- */

static int32_t newToken(void)
{
	static _Atomic uint32_t counter;
	uint64_t mixed = ((uint64_t)getpid() << 32 ^ (uint64_t)nanotime()) * UINT64_C(0x9e3779b97f4a7c15);

	return (int32_t)((mixed >> 34 ^ (uint64_t)add_seq_cst(&counter, 2) << 1) & 0x7ffffffe) | 2;
}

/* The odd number for our token; 0: told says why not. */
static uint32_t askToHold(const struct gmp *from, int32_t token, int64_t deadline_ns, struct observed *told)
{
	struct schedt *s = from->s;
	pid_t template = load_seq_cst(&s->templatepid);
	int64_t began = nanotime(), again = 0;

	while (nanotime() < deadline_ns && !(nanotime() - began > REFUSE_NS && standsStill(template))) {
		uint32_t seq = load_seq_cst(&s->snapseq);

		if (seq % 2 == 1 && load_seq_cst(&s->snapfor) == token)
			return seq;
		if (load_seq_cst(&s->snaprefused) == token) {
			told->inside = load_seq_cst(&s->snapinside);
			return 0;
		}
		if (nanotime() >= again) {
			told->error = template > 0 ? sys_sigqueue(template, observeSignal(), token | OBSERVE_HOLD) : -ESRCH;
			if (told->error)
				return 0;
			again = nanotime() + ASK_AGAIN_NS;
		}
		if (usleep(ASK_LOOK_US) < 0) {
			told->error = -EINTR;
			return 0;
		}
	}
	told->error = -ETIMEDOUT;
	return 0;
}

int gmp_observe(struct gmp *copy, const struct gmp *from, uint32_t most, int64_t deadline_ns, struct observed *told)
{
	struct schedt *s = from->s;
	uint32_t ended = load_seq_cst(&s->fatal);
	int rc;

	memset(told, 0, sizeof *told);
	while (ended != FATAL_DONE && ended != FATAL_DEADLOCK) {
		int32_t token = newToken();
		uint32_t seq = askToHold(from, token, deadline_ns, told);
		int64_t began = nanotime();

		if (told->error == -EINTR || told->error == -ETIMEDOUT) /* it may be held for us yet */
			sys_sigqueue(load_seq_cst(&s->templatepid), observeSignal(), token | OBSERVE_RELEASE);
		if (told->error == -EINTR)
			return -EINTR;
		if (!seq)
			break;
		rc = gmp_copy(copy, from, most);
		told->held = told->consistent = rc >= 0 && load_seq_cst(&s->snapseq) == seq;
		told->stopped_ns = nanotime() - began;
		sys_sigqueue(load_seq_cst(&s->templatepid), observeSignal(), token | OBSERVE_RELEASE);
		if (rc < 0 || told->consistent)
			return rc;
		gmp_destroy(copy); /* it took longer than we were given */
		ended = load_seq_cst(&s->fatal);
	}
	told->consistent = ended == FATAL_DONE || ended == FATAL_DEADLOCK; /* nobody is left who would change anything */
	return gmp_copy(copy, from, most);
}
