/* tracker.c: see tracker.h. */
#define _GNU_SOURCE
#include "tracker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "apply.h"
#include "follow.h"
#include "futex.h"
#include "look.h"
#include "poll.h"
#include "reckon.h"

/* A storm of forks elsewhere must not keep us awake: births are heard of at most this often. */
#define HEAR_AGAIN_NS 200000
/* What a ring holds is whole up to the moment it is read, but for what is just being written: so much is waited for it. */
#define HOLD_NS 2000000
#define LAST_WORDS_NS INT64_C(100000000)

static uint64_t ticks_since_boot(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return ((uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec) / (1000000000 / (uint64_t)sysconf(_SC_CLK_TCK));
}

int tracker_open(struct tracker **opened, int64_t period_ns, int follow, int fds_most)
{
	struct tracker *tracker = calloc(1, sizeof *tracker);
	int rc;

	if (!tracker)
		return -ENOMEM;
	rc = followed_open(&tracker->all, fds_most);
	if (rc < 0)
		goto error;
	tracker->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (tracker->wake_fd < 0) {
		rc = -errno;
		followed_close(&tracker->all);
		goto error;
	}
	tracker->events_fd = -1;
	tracker->loadavg_fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
	tracker->period_ns = period_ns;
	tracker->tick_ns = tick_of_the_kernel();
	tracker->begun_ticks = ticks_since_boot();
	tracker->follow = follow;
	tracker->spans.most = MOST_SPANS;
	tracker->numbers.begun_ns = monotonic_ns();
	pthread_mutex_init(&tracker->lock, NULL);
	*opened = tracker;
	return 0;
error:
	free(tracker);
	return rc;
}

void tracker_close(struct tracker *tracker)
{
	if (!tracker)
		return;
	followed_close(&tracker->all);
	switcher_close(tracker->switcher);
	tracer_close(tracker->tracer);
	told_free(&tracker->told);
	if (tracker->events_fd >= 0)
		close(tracker->events_fd);
	free(tracker->spans.span);
	if (tracker->loadavg_fd >= 0)
		close(tracker->loadavg_fd);
	close(tracker->wake_fd);
	pthread_mutex_destroy(&tracker->lock);
	free(tracker);
}

int tracker_use_switch(struct tracker *tracker)
{
	return switcher_open(&tracker->switcher, tracker->follow);
}

int tracker_use_trace(struct tracker *tracker, const struct trace_layout *layout, const int *fds, const int *cpus,
		      int count)
{
	return tracer_open(&tracker->tracer, layout, fds, cpus, count);
}

void tracker_use_events(struct tracker *tracker, int fd)
{
	tracker->events_fd = fd;
}

void tracker_lock(struct tracker *tracker)
{
	atomic_fetch_add(&tracker->waiting, 1);
	pthread_mutex_lock(&tracker->lock);
	atomic_fetch_sub(&tracker->waiting, 1);
}

void tracker_unlock(struct tracker *tracker)
{
	pthread_mutex_unlock(&tracker->lock);
}

int tracker_add(struct tracker *tracker, pid_t pid, uint64_t start_ticks, int named)
{
	struct process *process;
	struct procstat stat;
	int rc;

	if (start_ticks && stat_of(pid, pid, &stat) == 0 && stat.start_ticks != start_ticks)
		return -ESRCH;
	tracker_lock(tracker);
	rc = follow(tracker, pid, NULL);
	process = rc < 0 ? NULL : followed_process(&tracker->all, pid);
	if (process && named)
		process->named = 1;
	tracker_unlock(tracker);
	return rc < 0 ? rc : 0;
}

void tracker_tell_exit(struct tracker *tracker, pid_t pid, int status)
{
	struct process *process;

	tracker_lock(tracker);
	process = followed_process(&tracker->all, pid);
	if (process)
		process->exit_status = status;
	followed_tell_exit(&tracker->all, pid, status);
	tracker_unlock(tracker);
}

/* --- the loop --- */

static void round_of_all(struct tracker *tracker)
{
	int64_t now_ns = monotonic_ns() - (tracker->switcher || tracker->tracer ? HOLD_NS : 0);

	apply_events(tracker, now_ns);
	tracker->applied_ns = now_ns;
	end_vanished(tracker, now_ns);
	poll_round(tracker);
	tracker->numbers.rounds++;
}

void tracker_round(struct tracker *tracker)
{
	tracker_lock(tracker);
	round_of_all(tracker);
	tracker_unlock(tracker);
}

static void nap(int64_t ns)
{
	const struct timespec moment = timespec_of_ns(ns);

	nanosleep(&moment, NULL);
}

/* Where an exact source leads it tells of births itself. */
static int hears(const struct tracker *tracker)
{
	return tracker->events_fd >= 0 && !tracker->switcher && !tracker->tracer;
}

/* Whoever is born between two rounds is met at once: it may not live that long. */
static void hear_of_births(struct tracker *tracker)
{
	int64_t now_ns;

	pthread_mutex_lock(&tracker->lock);
	now_ns = monotonic_ns();
	apply_events(tracker, now_ns);
	tracker->applied_ns = now_ns;
	pthread_mutex_unlock(&tracker->lock);
}

/* Sleeps until `due_ns` or until something wants us; 1: to be stopped. */
static int sleep_until(struct tracker *tracker, int64_t due_ns)
{
	struct pollfd fds[2] = {{.fd = tracker->wake_fd, .events = POLLIN}, {.fd = tracker->events_fd, .events = POLLIN}};
	int64_t left_ns;

	while ((left_ns = due_ns - monotonic_ns()) > 0 && !atomic_load(&tracker->stop)) {
		struct timespec left = timespec_of_ns(left_ns);
		int hear = hears(tracker) && left_ns > 2 * HEAR_AGAIN_NS;

		if (ppoll(fds, hear ? 2 : 1, &left, NULL) > 0 && hear && fds[1].revents) {
			hear_of_births(tracker);
			nap(HEAR_AGAIN_NS);
		}
	}
	return atomic_load(&tracker->stop);
}

/* Someone waits for the lock: the loop steps aside, for a moment at most. */
static void step_aside(struct tracker *tracker)
{
	if (atomic_load(&tracker->waiting))
		nap(50000);
}

static int64_t next_due(struct tracker *tracker, int64_t due_ns)
{
	int64_t now_ns = monotonic_ns();

	due_ns += tracker->period_ns;
	if (due_ns >= now_ns)
		return due_ns;
	tracker->numbers.late++; /* what was missed is missed: no burst of looks at one moment */
	return now_ns;
}

static int64_t thread_cpu_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * NS_PER_S + now.tv_nsec;
}

static void run_rounds(struct tracker *tracker, int64_t deadline_ns)
{
	int64_t due_ns = monotonic_ns(), begun_cpu_ns = thread_cpu_ns() - tracker->numbers.cpu_ns;

	while (!sleep_until(tracker, due_ns) && (deadline_ns < 0 || monotonic_ns() < deadline_ns)) {
		pthread_mutex_lock(&tracker->lock);
		round_of_all(tracker);
		tracker->numbers.cpu_ns = thread_cpu_ns() - begun_cpu_ns;
		pthread_mutex_unlock(&tracker->lock);
		step_aside(tracker);
		due_ns = tracker->period_ns == FLAT_OUT ? 0 : next_due(tracker, due_ns);
	}
}

int tracker_run(struct tracker *tracker, int64_t deadline_ns)
{
	sigset_t all, former;

	sigfillset(&all); /* signals are for the threads that run Python */
	pthread_sigmask(SIG_BLOCK, &all, &former);
	prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); /* this thread's: else every sleep is up to 50 us too long */
	run_rounds(tracker, deadline_ns);
	pthread_sigmask(SIG_SETMASK, &former, NULL);
	return 0;
}

void tracker_stop(struct tracker *tracker)
{
	const uint64_t one = 1;
	ssize_t written;

	atomic_store(&tracker->stop, 1);
	written = write(tracker->wake_fd, &one, sizeof one);
	(void)written; /* full: it is awake already */
}

static void read_last_counters(struct followed *all, struct tracker *tracker)
{
	for (size_t i = 0; i < all->count; i++)
		for (struct thread *thread = all->process[i]->threads; thread; thread = thread->next)
			if (thread->leader >= SOURCE_SWITCH && !thread->vanished_ns && !thread->counted_at_death)
				read_switches(tracker, thread, 1);
}

/* What vanished is gone, at the moment it vanished; everything else lives on, and its record ends here. */
static void end_record(struct tracker *tracker, struct thread *thread, int64_t now_ns)
{
	int died = thread->vanished_ns != 0;

	timeline_end(&thread->line, &tracker->spans, died ? thread->vanished_ns : now_ns, died);
	thread->gone |= (uint8_t)died;
}

/* `trace` tells some milliseconds late that nothing is left of one that died. */
static void wait_for_last_words(struct tracker *tracker)
{
	int64_t until_ns = monotonic_ns() + LAST_WORDS_NS;
	int waits = tracker->tracer != NULL;

	while (waits && monotonic_ns() < until_ns) {
		tracker_lock(tracker);
		round_of_all(tracker);
		waits = tracker->vanished > 0 && tracker->tracer;
		tracker_unlock(tracker);
		if (waits)
			nap(5000000);
	}
}

void tracker_finish(struct tracker *tracker)
{
	struct followed *all = &tracker->all;

	int64_t now_ns;

	wait_for_last_words(tracker);
	tracker_lock(tracker);
	round_of_all(tracker);
	read_last_counters(all, tracker);
	now_ns = monotonic_ns();
	apply_events(tracker, INT64_MAX);
	tracker->applied_ns = INT64_MAX;
	for (size_t i = 0; i < all->count; i++)
		for (struct thread *thread = all->process[i]->threads; thread; thread = thread->next) {
			settle_note(tracker, thread, INT64_MAX);
			end_record(tracker, thread, now_ns);
		}
	tracker_unlock(tracker);
}

/* --- what Python takes --- */

struct span *tracker_take_spans(struct tracker *tracker, size_t *count)
{
	struct span *span;

	tracker_lock(tracker);
	span = tracker->spans.span;
	*count = tracker->spans.count;
	tracker->spans.span = NULL;
	tracker->spans.count = tracker->spans.room = 0;
	tracker_unlock(tracker);
	return span;
}

struct facts *tracker_take_facts(struct tracker *tracker, size_t *count)
{
	struct followed *all = &tracker->all;
	struct facts *facts;
	int64_t now_ns;
	size_t n = 0;

	tracker_lock(tracker);
	now_ns = monotonic_ns();
	facts = calloc(all->thread_count + all->departed_count + 1, sizeof *facts);
	if (facts) {
		for (; n < all->departed_count; n++)
			facts[n] = all->departed[n];
		all->departed_count = 0;
		for (size_t i = 0; i < all->count; i++)
			for (struct thread *thread = all->process[i]->threads; thread; thread = thread->next)
				facts_of(thread, now_ns, &facts[n++]);
	}
	*count = n;
	tracker_unlock(tracker);
	return facts;
}

struct span *tracker_copy_open(struct tracker *tracker, size_t *count)
{
	struct followed *all = &tracker->all;
	struct span *span;
	int64_t now_ns;
	size_t n = 0;

	tracker_lock(tracker);
	now_ns = monotonic_ns();
	span = calloc(all->thread_count + 1, sizeof *span);
	for (size_t i = 0; span && i < all->count; i++)
		for (struct thread *thread = all->process[i]->threads; thread; thread = thread->next)
			if (timeline_is_open(&thread->line) && thread->line.open.start_ns < now_ns) {
				span[n] = thread->line.open;
				span[n++].end_ns = now_ns;
			}
	*count = n;
	tracker_unlock(tracker);
	return span;
}

void tracker_count(struct tracker *tracker, struct tracker_numbers *numbers)
{
	struct followed *all = &tracker->all;

	tracker_lock(tracker);
	*numbers = tracker->numbers;
	numbers->spans_cut = tracker->spans.cut;
	numbers->spans_lost = tracker->spans.lost;
	numbers->reopened = all->reopened;
	numbers->alive = all->thread_count;
	numbers->named_alive = 0;
	for (size_t i = 0; i < all->count; i++)
		numbers->named_alive += all->process[i]->named;
	numbers->now_ns = monotonic_ns();
	tracker_unlock(tracker);
}
