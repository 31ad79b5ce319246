/* trace.c: see trace.h. */
#include "trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "timeline.h"

#define MISSED UINT64_C(0x80000000)        /* RB_MISSED_EVENTS: something was overwritten before this page */
#define MISSED_STORED UINT64_C(0x40000000) /* and how much stands behind the data */
#define USED UINT64_C(0x3fffffff)
#define LONGEST_DATA 28 /* type_len up to this is the length in words */
#define PADDING 29
#define TIME_EXTEND 30
#define TIME_STAMP 31
#define DELTA_BITS 27

struct cursor {
	const struct trace_layout *layout;
	const uint8_t *data;
	size_t used;
	size_t at;
	uint64_t now_ns;
	int cpu;
	struct told_queue *queue;
};

static uint32_t word_at(const uint8_t *at)
{
	uint32_t word;

	memcpy(&word, at, sizeof word);
	return word;
}

static int32_t number_at(const uint8_t *event, size_t bytes, int32_t at)
{
	return at >= 0 && (size_t)at + 4 <= bytes ? (int32_t)word_at(event + at) : -1;
}

char trace_state(int64_t prev_state)
{
	static const char letters[] = "SDTtXZPI";

	for (int bit = 0; bit < 8; bit++)
		if (prev_state >> bit & 1)
			return letters[bit];
	return 'R';
}

static void tell_switch(const struct cursor *cursor, const uint8_t *event, size_t bytes, struct told *told)
{
	const int32_t *at = cursor->layout->event[TRACED_SWITCH].at;

	told->kind = TOLD_OFF;
	told->tid = number_at(event, bytes, at[0]);
	told->state = trace_state(number_at(event, bytes, at[1])); /* its low word has all the bits */
	if (told->tid > 0)
		told_push(cursor->queue, told);
	told->kind = TOLD_ON;
	told->state = 'R';
	told->tid = number_at(event, bytes, at[2]);
	if (told->tid > 0)
		told_push(cursor->queue, told);
}

static void tell_other(const struct cursor *cursor, enum traced which, const uint8_t *event, size_t bytes,
		       struct told *told)
{
	static const uint8_t kinds[TRACED] = {
		[TRACED_WAKEUP] = TOLD_WAKE, [TRACED_WAKEUP_NEW] = TOLD_WAKE, [TRACED_FORK] = TOLD_FORK,
		[TRACED_EXEC] = TOLD_EXEC,   [TRACED_EXIT] = TOLD_EXIT,       [TRACED_WAIT] = TOLD_WAIT,
		[TRACED_FREE] = TOLD_FREE,
	};
	const int32_t *at = cursor->layout->event[which].at;

	told->kind = kinds[which];
	told->tid = number_at(event, bytes, at[0]);
	told->value = -1;
	if (which == TRACED_FORK) {
		told->other = told->tid;
		told->tid = number_at(event, bytes, at[1]);
	} else if (which == TRACED_WAIT) {
		told->other = told->tid;
		told->tid = number_at(event, bytes, cursor->layout->common_pid_at);
	}
	if (told->tid > 0)
		told_push(cursor->queue, told);
}

static void tell(const struct cursor *cursor, const uint8_t *event, size_t bytes)
{
	struct told told = {.at_ns = (int64_t)cursor->now_ns, .cpu = (int16_t)cursor->cpu, .source = SOURCE_TRACE};
	uint16_t id;

	if (bytes < 2)
		return;
	memcpy(&id, event, sizeof id); /* common_type is the first field of every event */
	if (id == cursor->layout->event[TRACED_SWITCH].id) {
		tell_switch(cursor, event, bytes, &told);
		return;
	}
	for (int which = TRACED_WAKEUP; which < TRACED; which++)
		if (id == cursor->layout->event[which].id)
			tell_other(cursor, (enum traced)which, event, bytes, &told);
}

/* One entry; 1: an event, 0: something else, -EINVAL: it does not fit, -ENODATA: the rest is empty. */
static int step(struct cursor *cursor)
{
	const uint8_t *entry = cursor->data + cursor->at;
	size_t left = cursor->used - cursor->at, length, header = 4;
	uint32_t head, type, delta, first;

	if (left < 4)
		return -EINVAL;
	head = word_at(entry);
	type = head & 0x1f;
	delta = head >> 5;
	if (type == PADDING && delta == 0)
		return -ENODATA;
	first = left >= 8 ? word_at(entry + 4) : 0;
	if (type == 0 || type > LONGEST_DATA) {
		if (left < 8)
			return -EINVAL;
		header = 8;
	}
	length = type == 0 || type == PADDING ? 4 + (size_t)first : type <= LONGEST_DATA ? 4 + 4 * (size_t)type : 8;
	if (length < header || length > left)
		return -EINVAL;
	cursor->at += length;
	if (type == TIME_STAMP) /* absolute, but for the topmost bits */
		cursor->now_ns = (cursor->now_ns & ~((UINT64_C(1) << 59) - 1)) | ((uint64_t)first << DELTA_BITS) | delta;
	else if (type == TIME_EXTEND)
		cursor->now_ns += ((uint64_t)first << DELTA_BITS) + delta;
	else
		cursor->now_ns += delta;
	if (type > LONGEST_DATA)
		return 0;
	tell(cursor, entry + header, length - header);
	return 1;
}

int trace_page(const struct trace_layout *layout, const uint8_t *page, size_t bytes, int cpu, struct told_queue *queue,
	       uint64_t *lost)
{
	struct cursor cursor = {.layout = layout, .data = page + layout->data_at, .cpu = cpu, .queue = queue};
	uint64_t commit, missed = 0;
	int events = 0, rc = 0;

	if (bytes < (size_t)layout->data_at || (size_t)layout->commit_at + 8 > bytes)
		return -EINVAL;
	memcpy(&cursor.now_ns, page, sizeof cursor.now_ns);
	memcpy(&commit, page + layout->commit_at, sizeof commit);
	cursor.used = commit & USED;
	if (cursor.used > bytes - (size_t)layout->data_at)
		return -EINVAL;
	if (commit & MISSED) {
		if (commit & MISSED_STORED && cursor.used + 8 <= bytes - (size_t)layout->data_at)
			memcpy(&missed, cursor.data + cursor.used, sizeof missed);
		*lost += missed ? missed : 1;
	}
	while (cursor.at < cursor.used && (rc = step(&cursor)) >= 0)
		events += rc;
	return rc == -EINVAL ? rc : events;
}

/* --- the files --- */

struct tracer {
	struct trace_layout layout;
	int count;
	int *fds;
	int *cpus;
	uint8_t *page;
};

int tracer_open(struct tracer **opened, const struct trace_layout *layout, const int *fds, const int *cpus, int count)
{
	struct tracer *tracer = calloc(1, sizeof *tracer);

	if (!tracer)
		return -ENOMEM;
	tracer->layout = *layout;
	tracer->fds = calloc((size_t)count + 1, sizeof *tracer->fds);
	tracer->cpus = calloc((size_t)count + 1, sizeof *tracer->cpus);
	tracer->page = malloc((size_t)layout->page_bytes);
	if (!tracer->fds || !tracer->cpus || !tracer->page) {
		tracer_close(tracer);
		return -ENOMEM;
	}
	memcpy(tracer->fds, fds, (size_t)count * sizeof *fds);
	memcpy(tracer->cpus, cpus, (size_t)count * sizeof *cpus);
	tracer->count = count;
	*opened = tracer;
	return 0;
}

void tracer_close(struct tracer *tracer)
{
	if (!tracer)
		return;
	for (int i = 0; i < tracer->count; i++)
		close(tracer->fds[i]);
	free(tracer->fds);
	free(tracer->cpus);
	free(tracer->page);
	free(tracer);
}

static int read_cpu(struct tracer *tracer, int index, struct told_queue *queue, uint64_t *lost)
{
	ssize_t got;
	int rc;

	for (;;) {
		got = read(tracer->fds[index], tracer->page, (size_t)tracer->layout.page_bytes);
		if (got < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		if (got == 0)
			return 0; /* not an end: what was there was overwritten just now */
		rc = trace_page(&tracer->layout, tracer->page, (size_t)got, tracer->cpus[index], queue, lost);
		if (rc < 0)
			return rc;
	}
}

int tracer_read(struct tracer *tracer, struct told_queue *queue, uint64_t *lost)
{
	int rc = 0;

	for (int i = 0; i < tracer->count && rc == 0; i++)
		rc = read_cpu(tracer, i, queue, lost);
	return rc;
}
