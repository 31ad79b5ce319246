/* poll.c: see poll.h. */
#define _GNU_SOURCE
#include "poll.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "follow.h"
#include "futex.h"
#include "look.h"

#define RECHECK_NS INT64_C(50000000)     /* a sleeper whose clock stands still has its stat read this often, or ... */
#define RECHECK_SHARE 200                /* ... as often as 1/200 of the time at 4 us each allows */
#define STAT_NS 4000

/* New threads and children of such a process are told of. */
static int led_by_events(const struct process *process)
{
	return process->threads && process->threads->leader >= SOURCE_SWITCH;
}

/* 1: a thread of it is gone. */
static int look_at_threads(struct tracker *tracker, struct process *process, int64_t now_ns, struct procstat *stat)
{
	int gone = 0, rc;

	for (struct thread *thread = process->threads; thread; thread = thread->next) {
		uint64_t slices = thread->last.counters.slices;

		if (thread->gone || thread->vanished_ns)
			continue;
		rc = look_at(tracker, thread, thread->last.state == 'Z' || (tracker->births && thread->last.state == 'R'), stat);
		if (rc == -ESRCH) {
			thread_gone(tracker, thread, monotonic_ns());
			gone = 1;
		} else if (wants_names(thread, now_ns)) {
			ask_names(tracker, thread);
		}
		process->ran |= thread->last.state == 'R' || thread->last.counters.slices != slices;
	}
	return gone;
}

static void look_at_process(struct tracker *tracker, struct process *process)
{
	const struct birth birth = {.at_ns = process->looked_ns, .source = SOURCE_POLL};
	struct procstat stat = {.threads = 0};
	int64_t now_ns = monotonic_ns();
	int gone = look_at_threads(tracker, process, now_ns, &stat);

	process->looked_ns = now_ns;
	if (stat.threads > process->thread_count && !led_by_events(process))
		gone |= add_threads(tracker, process, &birth) != 0;
	if (gone)
		drop_gone(tracker, process);
}

/* Whether anybody forked since the last round; true also when it cannot be read. */
static int anybody_forked(struct tracker *tracker)
{
	char text[128];
	ssize_t got = tracker->loadavg_fd < 0 ? -1 : pread(tracker->loadavg_fd, text, sizeof text - 1, 0);
	const char *at;
	long last;

	if (got <= 0)
		return 1;
	text[got] = 0;
	at = strrchr(text, ' ');
	last = at ? atol(at + 1) : -1;
	if (last == tracker->last_pid)
		return 0;
	tracker->last_pid = last;
	return 1;
}

/* Asleep by their clock, woken and waiting by their stat: a few of them in turn. */
static void look_for_the_woken(struct tracker *tracker, int64_t now_ns)
{
	int64_t passed = tracker->round_ns ? now_ns - tracker->round_ns : 0;
	size_t most = 1 + (size_t)(passed / STAT_NS / RECHECK_SHARE), count = tracker->all.count;
	struct procstat stat;

	for (size_t seen = 0; most && seen < count; seen++) {
		struct process *process;

		tracker->recheck = (tracker->recheck + 1) % count;
		process = tracker->all.process[tracker->recheck];
		for (struct thread *thread = process->threads; thread && most; thread = thread->next) {
			if (!is_sleep(thread->last.state) || now_ns - thread->stat_ns < RECHECK_NS)
				continue;
			most--;
			look_at(tracker, thread, 1, &stat);
		}
	}
}

static void look_for_children(struct tracker *tracker)
{
	for (size_t i = 0; i < tracker->all.count; i++) {
		struct process *process = tracker->all.process[i];

		if (!process->ran || process->kernel || led_by_events(process))
			continue;
		process->ran = 0;
		for (struct thread *thread = process->threads; thread; thread = thread->next)
			follow_children(tracker, thread);
	}
}

void poll_round(struct tracker *tracker)
{
	int64_t now_ns = monotonic_ns();

	tracker->births = anybody_forked(tracker);
	if (tracker->births && tracker->follow)
		look_for_children(tracker);
	for (size_t i = tracker->all.count; i-- > 0;) /* one that goes is replaced by the last, which was looked at */
		if (i < tracker->all.count)
			look_at_process(tracker, tracker->all.process[i]);
	look_for_the_woken(tracker, now_ns);
	tracker->round_ns = now_ns;
}
