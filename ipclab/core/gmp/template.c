/*
 * template.c: the template: makes a process (or thread) for every M that is asked for, reaps the dead.
 *
 *   newm (an M)               template                                   the new process
 *   record on sched.newm      takes it off
 *   note_poke(templatenote)   every signal blocked; fork --------------> parent-death signal; its parent looked up
 *                             procid                                     SIGURG handler, signal mask as it was
 *                                                                        mstart
 *   dies                      SIGCHLD: note_poke; waitpid: repair
 *
 * It has one thread and runs no user code, so a fork of it is always a fork of the same clean state.
 *
 * no point: the template alone; if that is killed, all Ms are.
 */
#define _GNU_SOURCE
#include "template.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/futex.h"
#include "core/procstat.h"
#include "core/sys.h"
#include "events.h"
#include "lock_futex.h"
#include "observe.h"
#include "point.h"
#include "proc.h"

#define TEMPLATE_LOOK_NS INT64_C(500000000)
#define STOP_WAIT_NS (10 * NS_PER_S)

static void becomeM(struct gmp *rt, uint32_t m)
{
	rt->m = M(rt, m);
	rt->where = &rt->m->where;
	rt->p = NULL;
	rt->tid = (uint32_t)gettid();
	rt->tallies = talliesOf(rt, m);
	rt->events = rt->s->eventslots ? (struct event *)(rt->tallies + rt->s->maxprograms) : NULL;
	rt->eventmask = rt->s->eventslots - 1;
	rt->eventticks = 0;
	rt->told = false;
	eventWho(rt);
	rt->rng = (rt->s->seed + 1) * UINT64_C(0x9e3779b97f4a7c15) ^
		  (uint64_t)(load_relaxed(&rt->m->id) + 1) * UINT64_C(0xbf58476d1ce4e5b9);
	rt->preempted = rt->polls = 0;
}

/* The next M to be born, from the list; 0. */
static uint32_t takeNewm(struct gmp *rt)
{
	struct schedt *s = rt->s;
	uint32_t m;

	if (!load_seq_cst(&s->newm))
		return 0;
	lock(rt, &s->newmlock);
	m = load_relaxed(&s->newm);
	if (m)
		store_relaxed(&s->newm, load_relaxed(&M(rt, m)->schedlink));
	unlock(rt, &s->newmlock);
	return m;
}

/* --- Ms as processes --- */

static struct gmp *ofThisProcess; /* for the handlers; set before they are installed */

static void onSigurg(int signo)
{
	(void)signo;
	preemptSignal(ofThisProcess);
}

static void onSigchld(int signo)
{
	int saved = errno;

	(void)signo;
	note_poke(&ofThisProcess->s->templatenote);
	errno = saved;
}

static void handle(int signo, void (*handler)(int), int flags)
{
	struct sigaction action;

	memset(&action, 0, sizeof action);
	action.sa_handler = handler;
	action.sa_flags = flags;
	sigaction(signo, &action, NULL);
}

/*
 * While an M is parked in its handler no other handler of its G's code may run: the G has no P. Faults are ours. SIGURG
 * itself stays open: an M that was stopped in its handler must meet it again, before all else, when its P was taken.
 */
static void handleSigurg(void)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};
	struct sigaction action;

	memset(&action, 0, sizeof action);
	action.sa_handler = onSigurg;
	action.sa_flags = SA_RESTART | SA_NODEFER;
	sigfillset(&action.sa_mask);
	sigdelset(&action.sa_mask, SIGURG);
	for (uint32_t i = 0; i < sizeof faults / sizeof *faults; i++)
		sigdelset(&action.sa_mask, faults[i]);
	sigaction(SIGURG, &action, NULL);
}

/* What ps(1) and a record of states call it: who is who among twenty processes of one program. */
static void nameProcess(struct gmp *rt)
{
	char name[16] = "gmp-template";

	if (rt->m && load_relaxed(&rt->m->mstartfn) == MSTART_SYSMON)
		snprintf(name, sizeof name, "gmp-sysmon");
	else if (rt->m)
		snprintf(name, sizeof name, "gmp-M%lld", (long long)load_relaxed(&rt->m->id));
	prctl(PR_SET_NAME, name);
}

/* In a new process whose parent was `parent`: dies with it, also if it is dead already. */
static void dieWith(struct gmp *rt, pid_t parent)
{
	sys_set_pdeathsig(SIGKILL);
	if (getppid() != parent)
		rt->hooks.end(1);
}

static _Noreturn void processOfM(struct gmp *rt, uint32_t m, pid_t parent, const sigset_t *mask)
{
	sigset_t its;

	dieWith(rt, parent);
	becomeM(rt, m);
	nameProcess(rt);
	ofThisProcess = rt;
	handle(SIGCHLD, SIG_DFL, 0);
	observeForget();
	handleSigurg();
	madvise(rt->segment.base, rt->segment.mapped_bytes, MADV_DONTFORK); /* a child of user code can do no harm */
	its = *mask;
	sigdelset(&its, SIGURG);
	sigprocmask(SIG_SETMASK, &its, NULL);
	mstart(rt);
}

static void newosproc(struct gmp *rt, uint32_t m)
{
	sigset_t all, before;
	pid_t self = getpid(), pid;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	/* Outside until its first step, which comes through the gate: a repair need not wait for the kernel to start it. */
	store_seq_cst(&M(rt, m)->where, M_PARKED);
	pid = rt->hooks.fork();
	if (pid == 0)
		processOfM(rt, m, self, &before);
	if (pid < 0) {
		store_seq_cst(&M(rt, m)->where, M_GONE);
		fatal(rt, FATAL_NEWPROC, (uint64_t)errno, "failed to create new OS process");
	} else {
		store_seq_cst(&M(rt, m)->procid, pid);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
}

static uint32_t mOfPid(struct gmp *rt, pid_t pid)
{
	for (uint32_t m = 1; m <= mLast(rt); m++)
		if (load_relaxed(&M(rt, m)->procid) == pid && load_relaxed(&M(rt, m)->dead) == M_ALIVE)
			return m;
	return 0;
}

/* What a process that has ended, and is not reaped, had waited for a CPU: the kernel tells it once it is on the books. */
static void addQueued(struct gmp *rt, pid_t pid)
{
	char text[64], path[32];
	struct schedstat stat;
	ssize_t size;
	int fd;

	snprintf(path, sizeof path, "/proc/%d/schedstat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	size = read(fd, text, sizeof text);
	close(fd);
	if (size <= 0 || schedstat_parse(text, (size_t)size, &stat) != 0)
		return;
	add_relaxed(&rt->s->queuens, stat.wait_ns);
	add_relaxed(&rt->s->queuedms, 1);
}

/* As waitpid of any: every child is, or was to be, an M. */
static pid_t reapNext(struct gmp *rt, int options)
{
	siginfo_t info;

	memset(&info, 0, sizeof info);
	if (waitid(P_ALL, 0, &info, WEXITED | WNOWAIT | options) < 0)
		return -1;
	if (info.si_pid == 0)
		return 0;
	addQueued(rt, info.si_pid);
	return waitpid(info.si_pid, NULL, 0);
}

bool templateReap(struct gmp *rt, bool *died)
{
	bool any = false;
	pid_t pid;

	*died = false;
	while ((pid = reapNext(rt, WNOHANG)) > 0) {
		uint32_t m = mOfPid(rt, pid);

		any = true;
		if (!m)
			continue;
		store_seq_cst(&M(rt, m)->where, M_GONE);
		if (load_relaxed(&M(rt, m)->exiting)) {
			store_seq_cst(&M(rt, m)->dead, M_REPAIRED);
			add_seq_cst(&rt->s->nmspare, 1);
		} else {
			store_seq_cst(&M(rt, m)->dead, M_DIED);
			*died = true;
			rt->deaths = 1;
		}
	}
	return any;
}

static bool reap(struct gmp *rt)
{
	bool died, any = templateReap(rt, &died);

	if (rt->deaths && !load_seq_cst(&rt->s->exiting) && !fatalSaid(rt))
		repair(rt);
	return any;
}

static void killAll(struct gmp *rt)
{
	for (uint32_t m = 1; m <= mLast(rt); m++)
		if (load_relaxed(&M(rt, m)->procid) > 0 && load_relaxed(&M(rt, m)->dead) == M_ALIVE)
			kill(load_relaxed(&M(rt, m)->procid), SIGKILL);
	while (reapNext(rt, 0) > 0 || errno == EINTR)
		;
}

static _Noreturn void processOfTemplate(struct gmp *rt, pid_t parent)
{
	struct schedt *s = rt->s;
	sigset_t none;

	dieWith(rt, parent);
	rt->tid = (uint32_t)gettid();
	rt->where = NULL;
	nameProcess(rt);
	ofThisProcess = rt;
	handle(SIGCHLD, onSigchld, SA_RESTART | SA_NOCLDSTOP);
	observeInstall(rt);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	while (!load_seq_cst(&s->exiting)) {
		bool busy = false;

		note_arm(&s->templatenote);
		busy = reap(rt);
		for (uint32_t m; (m = takeNewm(rt));) {
			newosproc(rt, m);
			busy = true;
		}
		busy |= observeServe(rt);
		if (!busy && !load_seq_cst(&s->exiting))
			note_park(&s->templatenote, nanotime() + TEMPLATE_LOOK_NS);
		note_disarm(&s->templatenote);
	}
	killAll(rt);
	rt->hooks.end(0);
	__builtin_unreachable();
}

/* --- Ms as threads --- */

static void *threadOfM(void *argument)
{
	struct gmp *rt = argument;

	pthread_cleanup_push(free, rt);
	rt->tid = (uint32_t)gettid();
	mstart(rt);
	pthread_cleanup_pop(0);
	return NULL;
}

/* Everybody who may be asleep, so that he sees that it is over. */
static void wakeAll(struct gmp *rt)
{
	for (uint32_t m = 1; m <= mLast(rt); m++)
		note_wakeup(&M(rt, m)->park);
	note_wakeup(&rt->s->pollnote);
	note_wakeup(&rt->s->sysmonnote);
	note_wakeup(&rt->s->stopnote);
	futex_wake(&rt->s->exiting, INT_MAX);
}

static void *threadOfTemplate(void *argument)
{
	struct gmp *rt = argument;
	struct schedt *s = rt->s;
	pthread_t *threads = calloc(s->maxmcount, sizeof *threads);
	uint32_t made = 0;

	rt->tid = (uint32_t)gettid();
	while (threads && !load_seq_cst(&s->exiting)) {
		note_arm(&s->templatenote);
		for (uint32_t m; (m = takeNewm(rt));) {
			struct gmp *its = malloc(sizeof *its);

			if (its) {
				*its = *rt;
				becomeM(its, m);
			}
			if (!its || pthread_create(&threads[made], NULL, threadOfM, its) != 0)
				fatal(rt, FATAL_NEWPROC, EAGAIN, "failed to create new OS thread");
			else
				made++;
		}
		if (!load_seq_cst(&s->exiting) && !load_seq_cst(&s->newm))
			note_park(&s->templatenote, nanotime() + TEMPLATE_LOOK_NS);
		note_disarm(&s->templatenote);
	}
	wakeAll(rt);
	while (made > 0)
		pthread_join(threads[--made], NULL);
	free(threads);
	free(rt);
	return NULL;
}

/* --- the caller's side --- */

/* As waitpid; what the template and all its Ms have used is kept when it has gone. */
static pid_t waitTemplate(struct gmp *rt, pid_t pid)
{
	return wait4(pid, NULL, WNOHANG, &rt->usage);
}

static int startThread(struct gmp *rt)
{
	struct gmp *its = malloc(sizeof *its);
	pthread_t thread;
	int rc;

	if (!its)
		return -ENOMEM;
	*its = *rt;
	rc = pthread_create(&thread, NULL, threadOfTemplate, its);
	if (rc) {
		free(its);
		return -rc;
	}
	rt->team = (uint64_t)thread;
	return 0;
}

int templateStart(struct gmp *rt)
{
	sigset_t all, before;
	pid_t self = getpid(), pid;
	int rc;

	if (rt->s->threads)
		return startThread(rt);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid = rt->hooks.fork();
	if (pid == 0)
		processOfTemplate(rt, self);
	rc = pid < 0 ? -errno : 0;
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (!rc) {
		rt->template = pid;
		store_seq_cst(&rt->s->templatepid, pid);
	}
	return rc;
}

int templateLook(struct gmp *rt)
{
	pid_t pid = rt->template; /* read once: while one thread of the caller waits, another one may change the number of Ps */

	if (rt->s->threads)
		return 0;
	if (pid && waitTemplate(rt, pid) == 0)
		return 0;
	rt->template = 0;
	return -ECHILD;
}

static void endTemplate(struct gmp *rt)
{
	int64_t deadline = nanotime() + STOP_WAIT_NS;
	pid_t pid = rt->template;

	note_poke(&rt->s->templatenote);
	kill(pid, SIGCONT); /* stopped, perhaps, by Ctrl-Z: it is to end its Ms and tell what they have used */
	while (waitTemplate(rt, pid) == 0) {
		if (nanotime() > deadline) /* traced, perhaps: its Ms die with it */
			kill(pid, SIGKILL);
		futex_wait_until(&rt->s->exiting, 1, nanotime() + 200000);
	}
	rt->template = 0;
}

void templateStop(struct gmp *rt)
{
	if (!rt->template && !rt->team)
		return;
	store_seq_cst(&rt->s->exiting, 1);
	note_poke(&rt->s->templatenote);
	if (rt->team)
		pthread_join((pthread_t)rt->team, NULL);
	rt->team = 0;
	if (rt->template)
		endTemplate(rt);
}
