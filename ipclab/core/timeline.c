/* timeline.c: see timeline.h. */
#include "timeline.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_ROOM 256

int is_sleep(char state)
{
	return state && strchr("SDTtIP", state) != NULL;
}

static enum share share_of(const struct span *span)
{
	switch (span->state) {
	case 'R':
		return span->on_cpu == 1 ? SHARE_RUNNING : span->on_cpu == 0 ? SHARE_RUNNABLE : SHARE_R;
	case 'D':
		return SHARE_D;
	case 'T':
		return SHARE_T;
	case 't':
		return SHARE_TRACED;
	case 'Z':
		return SHARE_Z;
	case 'X':
		return SHARE_X;
	case 'I':
		return SHARE_I;
	case 'P':
		return SHARE_P;
	default:
		return SHARE_S;
	}
}

static struct span *add_span(struct spans *out)
{
	size_t room = out->room ? out->room * 2 : FIRST_ROOM;
	struct span *larger;

	if (out->count == out->room && out->room < out->most) {
		larger = realloc(out->span, room * sizeof *larger);
		if (larger) {
			out->span = larger;
			out->room = room;
		}
	}
	return out->count < out->room ? &out->span[out->count++] : NULL;
}

static void emit(struct timeline *line, struct spans *out, int64_t end_ns)
{
	struct span *span;

	if (end_ns <= line->open.start_ns)
		return;
	line->open.end_ns = end_ns;
	line->share_ns[share_of(&line->open)] += end_ns - line->open.start_ns;
	if (line->open.flags & SPAN_UNCOVERED)
		line->uncovered_ns += end_ns - line->open.start_ns;
	out->cut++;
	span = add_span(out);
	if (span)
		*span = line->open;
	else
		out->lost++;
}

static void open_at(struct timeline *line, const struct edge *edge, int64_t at_ns)
{
	line->open.start_ns = at_ns;
	line->open.slack_ns = edge->slack_ns < 0 ? 0 : edge->slack_ns;
	line->open.state = edge->state;
	line->open.on_cpu = edge->state == 'R' ? edge->on_cpu : ON_CPU_UNKNOWN;
	line->open.cpu = edge->cpu;
	line->open.source = edge->source;
	line->open.flags = edge->flags;
	line->open.wchan = NO_NAME;
	line->open.syscall = NO_SYSCALL;
}

void timeline_begin(struct timeline *line, int32_t pid, int32_t tid, const struct edge *edge)
{
	memset(line, 0, sizeof *line);
	line->open.pid = pid;
	line->open.tid = tid;
	line->first_ns = edge->at_ns;
	line->began_running = edge->state == 'R' && edge->on_cpu == 1;
	open_at(line, edge, edge->at_ns);
}

void timeline_cut(struct timeline *line, struct spans *out, const struct edge *edge)
{
	const struct span *open = &line->open;
	int64_t at_ns = edge->at_ns > open->start_ns ? edge->at_ns : open->start_ns;
	int was_running = open->state == 'R' && open->on_cpu == 1;
	int8_t on_cpu = edge->state == 'R' ? edge->on_cpu : ON_CPU_UNKNOWN;

	if (!timeline_is_open(line))
		return;
	if (was_running && !(edge->state == 'R' && on_cpu == 1))
		line->switches++;
	if (open->state == edge->state && open->on_cpu == on_cpu && open->flags == edge->flags) {
		if (on_cpu == 1 && edge->cpu >= 0 && open->cpu >= 0 && open->cpu != edge->cpu)
			emit(line, out, at_ns), open_at(line, edge, at_ns); /* it migrated while it was not looked at */
		return;
	}
	emit(line, out, at_ns);
	open_at(line, edge, at_ns);
}

void timeline_name(struct timeline *line, char state, uint16_t wchan, int16_t syscall)
{
	if (state && is_sleep(line->open.state)) {
		line->open.state = state;
		line->open.flags &= (uint8_t)~SPAN_ASSUMED;
	}
	if (wchan != NO_NAME)
		line->open.wchan = wchan;
	if (syscall != NO_SYSCALL)
		line->open.syscall = syscall;
}

void timeline_blur(struct timeline *line)
{
	line->open.on_cpu = ON_CPU_UNKNOWN;
	line->switches++; /* its end is told: that is in the record */
}

void timeline_doubt(struct timeline *line)
{
	line->open.flags |= SPAN_UNCOVERED;
}

void timeline_uncover(struct timeline *line, int64_t ns)
{
	if (ns > 0)
		line->uncovered_ns += ns;
}

void timeline_end(struct timeline *line, struct spans *out, int64_t at_ns, int died)
{
	if (!timeline_is_open(line))
		return;
	if (at_ns < line->open.start_ns)
		at_ns = line->open.start_ns;
	if (died && line->open.state == 'R' && line->open.on_cpu == 1)
		line->switches++;
	emit(line, out, at_ns);
	line->last_ns = at_ns;
	line->open.start_ns = 0;
}

void timeline_shares(const struct timeline *line, int64_t now_ns, int64_t share_ns[SHARES])
{
	memcpy(share_ns, line->share_ns, sizeof line->share_ns);
	if (timeline_is_open(line) && now_ns > line->open.start_ns)
		share_ns[share_of(&line->open)] += now_ns - line->open.start_ns;
}

int timeline_is_open(const struct timeline *line)
{
	return line->open.start_ns != 0;
}
