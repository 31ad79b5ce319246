/* apply.c: see apply.h. */
#include "apply.h"

#include <errno.h>
#include <string.h>

#include "follow.h"
#include "futex.h"
#include "look.h"
#include "procevent.h"

/* How long after /proc has lost a thread its FREE may still come: a grace period is tens of milliseconds at most. */
#define LAST_WORDS_NS INT64_C(500000000)
/* Less than this an edge may be moved by rule 3 without a word. */
#define LATE_NS 100000

static void cut(struct tracker *tracker, struct thread *thread, const struct told *told, char state, int on_cpu)
{
	const struct edge edge = {
		.at_ns = told->at_ns,
		.state = state ? state : 'S',
		.on_cpu = (int8_t)on_cpu,
		.cpu = state == 'R' ? told->cpu : -1,
		.source = told->source,
		.flags = state ? 0 : SPAN_ASSUMED,
	};

	if (thread->line.open.start_ns - told->at_ns > LATE_NS) {
		tracker->numbers.late_events++;
		timeline_uncover(&thread->line, thread->line.open.start_ns - told->at_ns);
	}
	timeline_cut(&thread->line, &tracker->spans, &edge);
}

/* --- looks that name --- */

void settle_note(struct tracker *tracker, struct thread *thread, int64_t until_ns)
{
	const struct span *open = &thread->line.open;
	int64_t from_ns = thread->note.from_ns;

	if (!from_ns || thread->note.to_ns > until_ns)
		return;
	thread->note.from_ns = 0;
	if (!open->start_ns || open->start_ns > from_ns || !is_sleep(open->state))
		return;
	if (is_sleep(thread->note.state)) {
		timeline_name(&thread->line, thread->note.state, thread->note.wchan, thread->note.syscall);
	} else if (thread->note.state == 'R' && thread->leader == SOURCE_SWITCH) { /* woken: that no event of it tells */
		const struct edge edge = {.at_ns = from_ns, .slack_ns = from_ns - open->start_ns, .state = 'R', .cpu = -1,
					  .source = SOURCE_POLL};

		timeline_cut(&thread->line, &tracker->spans, &edge);
	} else if (thread->note.state == 'Z' || thread->note.state == 'X') {
		const struct edge edge = {.at_ns = from_ns, .slack_ns = from_ns - open->start_ns,
					  .state = thread->note.state, .cpu = -1, .source = SOURCE_POLL};

		timeline_cut(&thread->line, &tracker->spans, &edge);
	}
}

/* --- births --- */

/* One that was born and is gone, between two rounds: only events tell of it. */
static void remember(struct tracker *tracker, const struct told *told)
{
	const struct thread *parent = followed_find(&tracker->all, told->other);
	const struct edge edge = {.at_ns = told->at_ns, .state = 'R', .on_cpu = 0, .cpu = -1, .source = told->source,
				  .flags = told->source < SOURCE_SWITCH ? SPAN_UNCOVERED : 0};
	struct procstat stat = {.pid = told->pid ? told->pid : told->tid, .ppid = told->other};
	struct process *process = followed_process(&tracker->all, stat.pid);
	struct thread *thread;

	if (!process)
		process = followed_add_process(&tracker->all, &stat);
	thread = process ? followed_add_thread(&tracker->all, process, told->tid) : NULL;
	if (!thread)
		return;
	if (parent)
		memcpy(thread->comm, parent->comm, COMM_BYTES);
	thread->leader = told->source;
	thread->last = (struct look){.at_ns = told->at_ns, .state = 'R', .cpu = -1};
	thread->vanished_ns = monotonic_ns();
	tracker->vanished++;
	timeline_begin(&thread->line, process->pid, told->tid, &edge);
	tracker->numbers.unseen += told->source < SOURCE_SWITCH && told->tid == process->pid;
}

static void is_led_by(struct thread *thread, uint8_t source)
{
	if (source <= SOURCE_EVENTS || thread->leader >= source)
		return;
	thread->leader = source;
	thread->counted_begin = 0; /* it was born in the record: its counters began with it */
}

static void tell_birth(struct tracker *tracker, const struct told *told)
{
	const struct birth birth = {.at_ns = told->at_ns, .source = told->source};
	struct thread *parent = followed_find(&tracker->all, told->other);
	struct thread *thread = followed_find(&tracker->all, told->tid);
	struct process *process = parent ? parent->process : followed_process(&tracker->all, told->other);
	int is_thread = told->state == 't' ||
			(told->source == SOURCE_TRACE && process && thread_exists(process->pid, told->tid));
	int rc = 0;

	if (!process || (!tracker->follow && !is_thread))
		return;
	if (parent && parent->leader > told->source)
		return; /* its leader tells, too */
	if (!thread && followed_recently(&tracker->all, told->tid, told->at_ns))
		return; /* a look was quicker, and has seen its end too */
	process->ran = 1;
	if (!thread)
		rc = is_thread ? add_one_thread(tracker, process, told->tid, &birth)
			       : follow(tracker, told->tid, &birth);
	thread = followed_find(&tracker->all, told->tid);
	if (thread)
		is_led_by(thread, told->source);
	else if (rc == -ESRCH && !followed_recently(&tracker->all, told->tid, told->at_ns))
		remember(tracker, told);
}

/* --- on and off --- */

static void count_off(struct thread *thread, int64_t at_ns)
{
	thread->off_count++;
	for (int i = 0; i < 2; i++) {
		if (at_ns < thread->read_begin_ns[i])
			thread->inside_begin[i] = thread->off_count;
		if (!thread->read_end_ns[i] || at_ns < thread->read_end_ns[i])
			thread->inside_end[i] = thread->off_count;
	}
}

static int fits(pid_t waits_for, const struct thread *child)
{
	return waits_for <= 0 || waits_for == child->process->pid; /* -1 and below: any, or a group */
}

static void parent_may_wait(struct tracker *tracker, struct thread *child)
{
	struct process *parent = followed_process(&tracker->all, child->process->ppid);

	if (child->tid != child->process->pid || !parent)
		return;
	for (struct thread *thread = parent->threads; thread && !child->is_taken; thread = thread->next)
		if (thread->waits_ns && fits(thread->waits_for, child)) {
			child->is_taken = 1;
			tracker->taken++;
		}
}

/* Some kernels do not tell every event, and do not say so: seen when a CPU leaves idle. */
static void note_missing(struct tracker *tracker)
{
	tracker->numbers.missing++;
	tracker->numbers.events_lost++;
}

static int has_no_cpu(const struct thread *thread, const struct told *told)
{
	const struct span *open = &thread->line.open;

	/* What a look has opened may be a little out of date. */
	return open->source == told->source && open->start_ns < told->at_ns &&
	       (is_sleep(open->state) || (open->state == 'R' && open->on_cpu == 0));
}

static void tell_off(struct tracker *tracker, struct thread *thread, const struct told *told)
{
	char state = told->state;

	if (has_no_cpu(thread, told)) {
		note_missing(tracker);
		if (is_sleep(thread->line.open.state)) { /* nor was its wake-up told: a switch that is not in the record */
			timeline_doubt(&thread->line);
			cut(tracker, thread, told, state, 0);
			return;
		}
		timeline_blur(&thread->line);
	}
	count_off(thread, told->at_ns);
	cut(tracker, thread, told, state, 0);
	if (state == 'X')
		thread->reaped_ns = told->at_ns;
	else if (state == 'Z')
		parent_may_wait(tracker, thread);
}

/* A parent that had waited before its child died is on a CPU again: it takes the child now. */
static void takes_children(struct tracker *tracker, struct thread *parent, int64_t at_ns)
{
	for (size_t i = 0; tracker->taken && i < tracker->all.count; i++) {
		struct thread *child = followed_find(&tracker->all, tracker->all.process[i]->pid);

		if (!child || !child->is_taken || child->process->ppid != parent->process->pid)
			continue;
		child->is_taken = 0;
		child->reaped_ns = at_ns;
		parent->waits_ns = 0;
		tracker->taken--;
	}
}

/* --- deaths --- */

static void tell_exit(struct tracker *tracker, struct thread *thread, const struct told *told)
{
	struct process *process = thread->process;

	if (told->source == SOURCE_SWITCH && thread->leader == SOURCE_SWITCH) {
		count_off(thread, told->at_ns); /* events are taken from it before its last switch, which surely follows */
		cut(tracker, thread, told, 'Z', 0);
	}
	thread->dying = 1;
	if (thread->tid == process->pid) {
		process->exit_ns = told->at_ns;
		if (told->value >= 0)
			process->exit_status = told->value;
	}
	if (thread->leader == SOURCE_EVENTS && told->source == SOURCE_EVENTS) {
		timeline_end(&thread->line, &tracker->spans, told->at_ns, 1);
		thread->reaped_ns = told->at_ns;
	}
}

static void tell_wait(struct tracker *tracker, const struct told *told)
{
	struct thread *waiter = followed_find(&tracker->all, told->tid);
	pid_t parent = waiter ? waiter->process->pid : told->tid;

	if (waiter) {
		waiter->waits_ns = told->at_ns;
		waiter->waits_for = told->other;
	}
	for (size_t i = 0; i < tracker->all.count; i++) {
		struct thread *child = followed_find(&tracker->all, tracker->all.process[i]->pid);

		if (!child || child->leader != SOURCE_TRACE || child->line.open.state != 'Z' || child->reaped_ns ||
		    child->process->ppid != parent || !fits(told->other, child))
			continue;
		child->reaped_ns = told->at_ns; /* it lies there already: the wait returns with it */
		if (waiter)
			waiter->waits_ns = 0;
		return;
	}
}

static void tell_free(struct tracker *tracker, struct thread *thread, const struct told *told)
{
	const struct span *open = &thread->line.open;
	int64_t reaped_ns = thread->reaped_ns ? thread->reaped_ns : thread->vanished_ns;
	const struct edge edge = {.at_ns = reaped_ns && reaped_ns < told->at_ns ? reaped_ns : told->at_ns,
				  .state = 'X', .cpu = -1, .source = told->source,
				  .slack_ns = thread->reaped_ns ? 0 : reaped_ns - thread->last.at_ns};

	if (thread->leader != SOURCE_TRACE || !timeline_is_open(&thread->line) || !(open->state == 'Z' || open->state == 'X'))
		return;
	timeline_cut(&thread->line, &tracker->spans, &edge);
	timeline_end(&thread->line, &tracker->spans, told->at_ns, 1);
	thread->gone = 1;
}

/* --- one by one --- */

static void tell_thread(struct tracker *tracker, struct thread *thread, const struct told *told)
{
	int leads = thread->leader == told->source;

	if (told->at_ns < thread->line.first_ns && told->kind != TOLD_OFF)
		return; /* of before the record, or of one that had the number before */
	if (leads)
		settle_note(tracker, thread, told->at_ns);
	if (told->kind == TOLD_EXIT) {
		tell_exit(tracker, thread, told);
	} else if (told->kind == TOLD_FREE) {
		tell_free(tracker, thread, told);
	} else if (told->kind == TOLD_OFF && leads) {
		if (told->at_ns >= thread->line.first_ns)
			tell_off(tracker, thread, told);
		else
			count_off(thread, told->at_ns);
	} else if (told->kind == TOLD_ON && leads) {
		if (thread->line.open.on_cpu == 1 && thread->line.open.source == told->source) {
			note_missing(tracker);
			timeline_doubt(&thread->line);
		}
		cut(tracker, thread, told, 'R', 1);
		takes_children(tracker, thread, told->at_ns);
	} else if (told->kind == TOLD_WAKE && leads && is_sleep(thread->line.open.state)) {
		cut(tracker, thread, told, 'R', 0);
	}
}

static void apply(struct tracker *tracker, const struct told *told)
{
	struct thread *thread;

	if (told->kind == TOLD_FORK) {
		tell_birth(tracker, told);
		return;
	}
	if (told->kind == TOLD_WAIT) {
		tell_wait(tracker, told);
		return;
	}
	thread = followed_find(&tracker->all, told->tid);
	if (thread && !thread->gone)
		tell_thread(tracker, thread, told);
	else if (!thread && told->kind == TOLD_EXIT && told->value >= 0)
		followed_tell_exit(&tracker->all, told->tid, told->value);
}

static void read_sources(struct tracker *tracker)
{
	struct told_queue *queue = &tracker->told;
	uint64_t *lost = &tracker->numbers.events_lost;
	const struct event_sequence sequence = {tracker->sequence, tracker->sequence_known, TRACKED_CPUS};
	size_t before = queue->count;
	int rc = 0;

	if (tracker->events_fd >= 0)
		procevents_read(tracker->events_fd, &sequence, queue, lost);
	if (tracker->switcher)
		rc = switcher_read(tracker->switcher, queue, lost);
	if (tracker->tracer)
		rc = tracer_read(tracker->tracer, queue, lost);
	tracker->numbers.events += queue->count - before;
	*lost += queue->lost;
	queue->lost = 0;
	if (rc < 0)
		demote_all(tracker, rc);
}

void apply_events(struct tracker *tracker, int64_t until_ns)
{
	size_t ready;

	read_sources(tracker);
	ready = told_sort(&tracker->told, until_ns);
	for (size_t i = 0; i < ready; i++)
		apply(tracker, &tracker->told.told[i]);
	told_drop(&tracker->told, ready);
}

/* --- ends --- */

static int has_said_all(const struct thread *thread, int64_t now_ns)
{
	if (!timeline_is_open(&thread->line))
		return 1;
	if (thread->leader == SOURCE_TRACE) /* FREE ends it */
		return now_ns - thread->vanished_ns > LAST_WORDS_NS;
	/* Every event before it vanished is applied by the round that begins after it. */
	return now_ns > thread->vanished_ns;
}

static int64_t end_of(const struct thread *thread)
{
	const struct span *open = &thread->line.open;

	if (!thread->start_ticks && (open->state == 'Z' || open->state == 'X')) /* /proc never had it for us */
		return open->start_ns;
	return thread->vanished_ns;
}

void end_vanished(struct tracker *tracker, int64_t now_ns)
{
	for (size_t i = tracker->all.count; tracker->vanished && i-- > 0;) {
		struct process *process = tracker->all.process[i];

		for (struct thread *thread = process->threads; thread; thread = thread->next) {
			if (!thread->vanished_ns || (!thread->gone && !has_said_all(thread, now_ns)))
				continue;
			timeline_end(&thread->line, &tracker->spans, end_of(thread), 1);
			thread->gone = 1;
			tracker->vanished--;
		}
		drop_gone(tracker, process);
	}
}

static void demote(struct tracker *tracker, struct thread *thread, int64_t now_ns)
{
	struct edge edge = {.at_ns = now_ns, .state = thread->line.open.state, .on_cpu = thread->line.open.on_cpu, .cpu = -1,
			    .source = SOURCE_POLL, .flags = SPAN_UNCOVERED};

	if (thread->leader < SOURCE_SWITCH)
		return;
	timeline_cut(&thread->line, &tracker->spans, &edge);
	thread->leader = SOURCE_POLL;
	thread->fresh = 1;
	thread->counted_begin = thread->counted_end = NOT_COUNTED; /* both ends of the count must be one source's */
}

void demote_all(struct tracker *tracker, int error)
{
	int64_t now_ns = monotonic_ns();

	tracker->numbers.broke_ns = now_ns;
	tracker->numbers.broke_error = -error;
	switcher_close(tracker->switcher);
	tracer_close(tracker->tracer);
	tracker->switcher = NULL;
	tracker->tracer = NULL;
	for (size_t i = 0; i < tracker->all.count; i++) {
		for (struct thread *thread = tracker->all.process[i]->threads; thread; thread = thread->next)
			demote(tracker, thread, now_ns);
	}
}
