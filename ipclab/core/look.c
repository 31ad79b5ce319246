/* look.c: see look.h. */
#define _GNU_SOURCE
#include "look.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "apply.h"
#include "futex.h"
#include "reckon.h"

#define NAME_AFTER_NS INT64_C(2000000) /* a sleep is asked for its wchan when it lasts this long */

int read_counters(struct tracker *tracker, struct thread *thread, struct schedstat *counters)
{
	char text[PROC_TEXT];
	ssize_t got = thread_read(&tracker->all, thread, FILE_SCHEDSTAT, text);

	tracker->numbers.schedstat_reads++;
	return got < 0 ? (int)got : schedstat_parse(text, (size_t)got, counters);
}

int read_stat(struct tracker *tracker, struct thread *thread, struct procstat *stat)
{
	char text[PROC_TEXT];
	ssize_t got = thread_read(&tracker->all, thread, FILE_STAT, text);
	int rc;

	tracker->numbers.stat_reads++;
	if (got < 0)
		return (int)got;
	rc = procstat_parse(text, (size_t)got, stat);
	if (rc == 0) {
		thread->stat_ns = monotonic_ns();
		thread->start_ticks = stat->start_ticks;
		memcpy(thread->comm, stat->comm, COMM_BYTES);
		thread->process->ppid = stat->ppid;
	}
	return rc;
}

void read_switches(struct tracker *tracker, struct thread *thread, int at_end)
{
	char text[PROC_TEXT];
	int64_t *moments = at_end ? thread->read_end_ns : thread->read_begin_ns, counted;
	ssize_t got;

	moments[0] = monotonic_ns();
	got = thread_read(&tracker->all, thread, FILE_STATUS, text);
	moments[1] = monotonic_ns();
	counted = got < 0 ? NOT_COUNTED : status_switches(text, (size_t)got);
	if (thread->fds[FILE_STATUS] >= 0) { /* twice in a life: not worth a descriptor */
		close(thread->fds[FILE_STATUS]);
		thread->fds[FILE_STATUS] = CLOSED;
		tracker->all.fds_open--;
	}
	if (counted < 0) {
		moments[0] = moments[1] = 0;
		return;
	}
	*(at_end ? &thread->counted_end : &thread->counted_begin) = counted;
}

/* --- a look at one thread --- */

void thread_gone(struct tracker *tracker, struct thread *thread, int64_t at_ns)
{
	int64_t exit_ns = thread->process->exit_ns;

	if (thread->leader != SOURCE_POLL) {
		if (!thread->vanished_ns)
			tracker->vanished++;
		thread->vanished_ns = at_ns; /* events may have more to say */
		return;
	}
	if (thread->line.open.state == 'R') {
		if (exit_ns >= thread->last.at_ns && exit_ns < at_ns && thread->tid == thread->process->pid)
			at_ns = exit_ns;
		timeline_uncover(&thread->line, at_ns - thread->last.at_ns);
	}
	timeline_end(&thread->line, &tracker->spans, at_ns, 1);
	thread->gone = 1;
}

static void take_look(struct tracker *tracker, struct thread *thread, const struct look *look)
{
	if (thread->leader == SOURCE_POLL) {
		reckon(thread, &tracker->spans, look, tracker->tick_ns);
		return;
	}
	settle_note(tracker, thread, tracker->applied_ns);
	thread->last = *look;
	if (thread->note.from_ns && thread->note.wchan != NO_NAME)
		return; /* it waits until the events up to its end are applied, and says more than this look */
	thread->note.from_ns = thread->note.to_ns = look->at_ns;
	thread->note.state = look->state;
	thread->note.wchan = NO_NAME;
	thread->note.syscall = NO_SYSCALL;
}

/* Nothing was booked and no CPU given: what it was in at the last look it is in now (reckon.h). */
static int nothing_happened(const struct thread *thread, const struct schedstat *counters)
{
	return counters->slices == thread->last.counters.slices && counters->run_ns == thread->last.counters.run_ns;
}

static int look_closer(struct tracker *tracker, struct thread *thread, struct look *look, struct procstat *stat)
{
	int rc = read_stat(tracker, thread, stat);

	if (rc < 0)
		return rc == -ENOENT ? -ESRCH : rc;
	look->at_ns = thread->stat_ns;
	look->state = stat->state;
	look->cpu = (int16_t)stat->cpu;
	take_look(tracker, thread, look);
	if (look->state == 'Z' && !thread->counted_at_death) {
		read_switches(tracker, thread, 1);
		thread->counted_at_death = 1;
	}
	return 0;
}

int look_at(struct tracker *tracker, struct thread *thread, int must_stat, struct procstat *stat)
{
	struct look look = thread->last;
	int rc = thread->counterless ? 0 : read_counters(tracker, thread, &look.counters);

	tracker->numbers.looks++;
	if (rc == -ESRCH)
		return rc;
	if (rc < 0 || must_stat || thread->counterless || !nothing_happened(thread, &look.counters))
		return look_closer(tracker, thread, &look, stat);
	look.at_ns = monotonic_ns();
	if (thread->last.state == 'R')
		take_look(tracker, thread, &look); /* longer than a tick without a booking: it waits */
	thread->last.at_ns = look.at_ns;
	return 0;
}

/* --- what a sleeper sleeps in --- */

static void keep_names(struct tracker *tracker, struct thread *thread, const char *wchan, ssize_t length, int call)
{
	uint16_t index = NO_NAME;

	if (length > 1 || (length == 1 && wchan[0] != '0'))
		index = name_index(&tracker->all, wchan, (size_t)length);
	if (thread->leader == SOURCE_POLL) {
		timeline_name(&thread->line, 0, index, (int16_t)call);
		return;
	}
	settle_note(tracker, thread, tracker->applied_ns);
	thread->note.wchan = index;
	thread->note.syscall = (int16_t)call;
	thread->note.state = thread->last.state;
}

/* It must not have run meanwhile: else what was read is of two sleeps. */
void ask_names(struct tracker *tracker, struct thread *thread)
{
	char wchan[PROC_TEXT], text[PROC_TEXT];
	struct schedstat counters;
	const char *at = text;
	int64_t from_ns = monotonic_ns();
	ssize_t length = thread_read(&tracker->all, thread, FILE_WCHAN, wchan);
	/* A kernel thread is in no system call; its file says 0, which is read(2). */
	ssize_t got = thread->process->kernel ? 0 : thread_read(&tracker->all, thread, FILE_SYSCALL, text);
	int64_t call = got > 0 ? parse_number(&at, text + got) : -1;

	if (read_counters(tracker, thread, &counters) < 0 || !nothing_happened(thread, &counters))
		return;
	thread->named_start_ns = thread->line.open.start_ns;
	keep_names(tracker, thread, wchan, length < 0 ? 0 : length, call > INT16_MAX ? NO_SYSCALL : (int)call);
	thread->note.from_ns = from_ns;
	thread->note.to_ns = monotonic_ns();
}

int wants_names(const struct thread *thread, int64_t now_ns)
{
	const struct span *open = &thread->line.open;

	return open->start_ns && is_sleep(open->state) && thread->named_start_ns != open->start_ns &&
	       now_ns - open->start_ns >= NAME_AFTER_NS;
}

