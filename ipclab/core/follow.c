/* follow.c: see follow.h. */
#define _GNU_SOURCE
#include "follow.h"

#include <errno.h>
#include <stdlib.h>

#include "futex.h"
#include "look.h"

#define MOST_THREADS 65536

/* Before the first look: what happens between the two is told, and known to be of before the record. */
static void attach(struct tracker *tracker, struct thread *thread, int late)
{
	int rc = 0, rings = 0;

	if (tracker->tracer) {
		thread->leader = late ? SOURCE_POLL : SOURCE_TRACE; /* its id stands in set_event_pid already, or never will */
	} else if (tracker->switcher) {
		switcher_ring_bytes(tracker->switcher, &rings);
		/* One descriptor per CPU: half of all there are, the others are for looks, which every thread needs. */
		rc = tracker->all.fds_events + rings > tracker->all.fds_most / 2 ? -EMFILE
										  : switcher_add(tracker->switcher, thread->tid);
		if (rc == 0) {
			thread->leader = SOURCE_SWITCH;
			tracker->all.fds_events += rings;
		}
	}
	if (rc < 0 && rc != -ESRCH && !tracker->numbers.unattached++)
		tracker->numbers.attach_error = -rc;
}

/* One that lived before the record: it begins with what it is in now. `late`: it has come to us while we looked. */
static int begin_living(struct tracker *tracker, struct thread *thread, int late)
{
	struct edge edge = {.on_cpu = ON_CPU_UNKNOWN, .cpu = -1, .source = SOURCE_POLL};
	struct look *look = &thread->last;
	struct procstat stat;
	int rc;

	attach(tracker, thread, late);
	/* Counters first: one that falls asleep between the two then has other counters at the next look, and is asked again. */
	thread->counterless = read_counters(tracker, thread, &look->counters) < 0;
	rc = read_stat(tracker, thread, &stat);
	if (rc < 0)
		return rc;
	if (thread->leader >= SOURCE_SWITCH)
		read_switches(tracker, thread, 0);
	look->state = edge.state = stat.state;
	if (stat.state == 'R') /* whether it has a CPU the next ticks tell */
		look->cpu = edge.cpu = (int16_t)stat.cpu;
	thread->slices_begin = look->counters.slices;
	look->at_ns = edge.at_ns = thread->progress_ns = monotonic_ns();
	timeline_begin(&thread->line, thread->process->pid, thread->tid, &edge);
	return 0;
}

/*
 * One that was born while we looked: it begins runnable, with all counters 0. When no event told the birth it is taken for
 * as late as its counters allow, and no earlier than the round before.
 */
static int begin_born(struct tracker *tracker, struct thread *thread, const struct birth *birth)
{
	struct edge edge = {.at_ns = birth->at_ns, .state = 'R', .on_cpu = 0, .cpu = -1, .source = birth->source};
	struct schedstat counters = {0};
	struct procstat stat;
	int64_t spent_ns;

	thread->counterless = read_counters(tracker, thread, &counters) < 0;
	spent_ns = monotonic_ns() - (int64_t)(counters.run_ns + counters.wait_ns);
	if (birth->source == SOURCE_POLL && spent_ns > edge.at_ns) {
		edge.slack_ns = spent_ns - edge.at_ns;
		edge.at_ns = spent_ns;
	}
	if (birth->source >= SOURCE_SWITCH) {
		thread->leader = birth->source;
		thread->counted_begin = 0; /* its counters begin with it */
	}
	thread->last = (struct look){.at_ns = edge.at_ns, .state = 'R', .cpu = -1};
	timeline_begin(&thread->line, thread->process->pid, thread->tid, &edge);
	return look_at(tracker, thread, 1, &stat);
}

/* A child that poll meets need not be a new one: an orphan comes to a subreaper at any age. */
static int is_older(const struct tracker *tracker, const struct process *process, pid_t tid, const struct birth *birth)
{
	struct procstat stat;

	return birth->source == SOURCE_POLL && stat_of(process->pid, tid, &stat) == 0 &&
	       stat.start_ticks < tracker->begun_ticks;
}

int add_one_thread(struct tracker *tracker, struct process *process, pid_t tid, const struct birth *birth)
{
	struct thread *thread = followed_add_thread(&tracker->all, process, tid);
	int rc;

	if (!thread)
		return -ENOMEM;
	if (!birth || is_older(tracker, process, tid, birth))
		rc = begin_living(tracker, thread, birth != NULL);
	else
		rc = begin_born(tracker, thread, birth);
	if (rc < 0) {
		tracker->numbers.unseen += birth && tid == process->pid && thread->leader < SOURCE_SWITCH;
		thread_gone(tracker, thread, monotonic_ns());
	}
	return rc;
}

int add_threads(struct tracker *tracker, struct process *process, const struct birth *birth)
{
	pid_t some[64], *tids = some;
	int count = list_threads(process->pid, some, 64), added = 0;

	if (count > 64) {
		tids = calloc(MOST_THREADS, sizeof *tids);
		count = tids ? list_threads(process->pid, tids, MOST_THREADS) : -ENOMEM;
		count = count > MOST_THREADS ? MOST_THREADS : count;
	}
	for (int i = 0; i < count; i++) {
		struct thread *known = followed_find(&tracker->all, tids[i]);

		if (!known || known->process != process)
			added += add_one_thread(tracker, process, tids[i], birth) == 0;
	}
	if (tids != some)
		free(tids);
	return count < 0 ? count : added;
}

int drop_gone(struct tracker *tracker, struct process *process)
{
	struct thread *thread = process->threads, *next;

	for (; thread; thread = next) {
		next = thread->next;
		if (thread->gone && followed_drop_thread(&tracker->all, thread))
			return 1;
	}
	return 0;
}

int follow(struct tracker *tracker, pid_t pid, const struct birth *birth)
{
	struct process *process = followed_process(&tracker->all, pid);
	struct procstat stat;
	int rc;

	if (process)
		return 1;
	rc = stat_of(pid, pid, &stat);
	if (rc < 0)
		return rc == -ENOENT ? -ESRCH : rc;
	process = followed_add_process(&tracker->all, &stat);
	if (!process)
		return -ENOMEM;
	rc = add_threads(tracker, process, birth);
	process->looked_ns = monotonic_ns();
	if (!process->threads)
		followed_drop_process(&tracker->all, process);
	else if (!drop_gone(tracker, process))
		return 0;
	return rc < 0 && rc != -ENOENT ? rc : -ESRCH;
}

/* Children of one thread, from the text of its `children`. */
void follow_children(struct tracker *tracker, struct thread *thread)
{
	char text[PROC_TEXT];
	ssize_t got = thread_read(&tracker->all, thread, FILE_CHILDREN, text);
	const struct birth birth = {.at_ns = tracker->round_ns, .source = SOURCE_POLL};
	const char *at = text;
	int64_t pid;

	while (got > 0 && (pid = parse_number(&at, text + got)) > 0)
		if (!followed_find(&tracker->all, (pid_t)pid))
			follow(tracker, (pid_t)pid, &birth);
}

