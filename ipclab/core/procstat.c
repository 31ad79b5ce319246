/* procstat.c: see procstat.h. */
#define _GNU_SOURCE
#include "procstat.h"

#include <errno.h>
#include <string.h>

#define KERNEL_THREAD 0x00200000 /* PF_KTHREAD, include/linux/sched.h */

int64_t parse_number(const char **at, const char *end)
{
	const char *p = *at;
	int64_t value = 0;

	while (p < end && (*p == ' ' || *p == '\t'))
		p++;
	if (p == end || *p < '0' || *p > '9')
		return -1;
	while (p < end && *p >= '0' && *p <= '9' && value < INT64_MAX / 16)
		value = value * 10 + (*p++ - '0');
	*at = p;
	return value;
}

static int skip_fields(const char **at, const char *end, int count)
{
	const char *p = *at;

	for (; count > 0; count--) {
		while (p < end && *p == ' ')
			p++;
		while (p < end && *p != ' ')
			p++;
	}
	*at = p;
	return p < end ? 0 : -EINVAL;
}

static const char *last_bracket(const char *text, size_t length)
{
	while (length-- > 0)
		if (text[length] == ')')
			return text + length;
	return NULL;
}

/* The name may itself hold blanks and brackets: it ends at the last bracket. */
static const char *parse_comm(const char *text, size_t length, struct procstat *stat)
{
	const char *open = memchr(text, '(', length), *close = last_bracket(text, length);
	size_t size;

	if (!open || !close || close < open)
		return NULL;
	size = (size_t)(close - open - 1);
	if (size > COMM_BYTES - 1)
		size = COMM_BYTES - 1;
	memset(stat->comm, 0, COMM_BYTES);
	memcpy(stat->comm, open + 1, size);
	return close + 1;
}

int procstat_parse(const char *text, size_t length, struct procstat *stat)
{
	const char *end = text + length, *at = text;
	int64_t ppid, flags, threads, start, cpu;

	stat->pid = (pid_t)parse_number(&at, end);
	at = parse_comm(text, length, stat);
	if (stat->pid < 0 || !at || end - at < 4)
		return -EINVAL;
	stat->state = at[1] == 'x' ? 'X' : at[1];
	at += 2;
	ppid = parse_number(&at, end);        /* field 4 */
	if (skip_fields(&at, end, 4) < 0)     /* 5 to 8; tpgid may be -1 */
		return -EINVAL;
	flags = parse_number(&at, end);       /* 9 */
	if (skip_fields(&at, end, 10) < 0)    /* 10 to 19; nice may be negative */
		return -EINVAL;
	threads = parse_number(&at, end);     /* 20 */
	if (skip_fields(&at, end, 1) < 0)     /* 21 */
		return -EINVAL;
	start = parse_number(&at, end);       /* 22 */
	if (skip_fields(&at, end, 16) < 0)    /* 23 to 38 */
		return -EINVAL;
	cpu = parse_number(&at, end);         /* 39 */
	if (ppid < 0 || flags < 0 || threads < 0 || start < 0 || cpu < 0)
		return -EINVAL;
	stat->ppid = (pid_t)ppid;
	stat->kernel = (flags & KERNEL_THREAD) != 0;
	stat->threads = (int)threads;
	stat->start_ticks = (uint64_t)start;
	stat->cpu = (int)cpu;
	return 0;
}

int schedstat_parse(const char *text, size_t length, struct schedstat *stat)
{
	const char *at = text, *end = text + length;
	int64_t run = parse_number(&at, end), wait = parse_number(&at, end), slices = parse_number(&at, end);

	if (run < 0 || wait < 0 || slices < 0)
		return -EINVAL;
	stat->run_ns = (uint64_t)run;
	stat->wait_ns = (uint64_t)wait;
	stat->slices = (uint64_t)slices;
	return 0;
}

static int64_t labelled(const char *text, size_t length, const char *label)
{
	const char *at = memmem(text, length, label, strlen(label)), *end = text + length;

	if (!at)
		return -EINVAL;
	at += strlen(label);
	return parse_number(&at, end);
}

int64_t status_switches(const char *text, size_t length)
{
	int64_t voluntary = labelled(text, length, "\nvoluntary_ctxt_switches:");
	int64_t involuntary = labelled(text, length, "\nnonvoluntary_ctxt_switches:");

	return voluntary < 0 || involuntary < 0 ? -EINVAL : voluntary + involuntary;
}
