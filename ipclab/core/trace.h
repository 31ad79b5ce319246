/*
 * trace.h: the source `trace`: sub-buffers of tracefs' ring buffer as trace_pipe_raw hands them out, decoded.
 *
 * Where the fields of an event are, the kernel says in events/sched/EVENT/format and events/header_page; they are read at
 * run time (states/tracefs.py) and come here as a layout. The buffer's own format is fixed:
 * include/linux/ring_buffer.h, Documentation/trace/ring-buffer-design.rst.
 */
#ifndef IPCLAB_TRACE_H
#define IPCLAB_TRACE_H

#include <stddef.h>
#include <stdint.h>

#include "told.h"

enum traced { TRACED_SWITCH, TRACED_WAKEUP, TRACED_WAKEUP_NEW, TRACED_FORK, TRACED_EXEC, TRACED_EXIT, TRACED_WAIT,
	      TRACED_FREE, TRACED };

/* Of each event its number, and up to three fields' offsets: SWITCH prev_pid prev_state next_pid; FORK parent_pid
 * child_pid; all others pid. */
struct trace_layout {
	int32_t page_bytes;   /* of a sub-buffer, header included */
	int32_t commit_at;    /* offset of the field that says how much of it is used */
	int32_t data_at;
	int32_t common_pid_at;
	struct { int32_t id, at[3]; } event[TRACED];
};

struct tracer;

/* Decodes one sub-buffer. How many events there were, or -EINVAL; *lost grows by those the kernel says it overwrote. */
int trace_page(const struct trace_layout *layout, const uint8_t *page, size_t bytes, int cpu, struct told_queue *queue,
	       uint64_t *lost);
/* What it sleeps in, from prev_state: R when it was preempted. */
char trace_state(int64_t prev_state);

int tracer_open(struct tracer **tracer, const struct trace_layout *layout, const int *fds, const int *cpus, int count);
void tracer_close(struct tracer *tracer);
/* Reads all that is there. 0, or -errno: it broke. */
int tracer_read(struct tracer *tracer, struct told_queue *queue, uint64_t *lost);

#endif
