/*
 * tracker.h: one loop that reads every source and turns what they tell into timelines.
 *
 *   Python's thread A              the loop (thread B, without the GIL)            Python's thread C
 *   tracker_add(pid)    --lock-->  sleep until the next look is due, or until an
 *   tracker_take_spans  <-lock---  event comes; lock; events applied; looks; unlock
 *   tracker_stop        -------->  the eventfd wakes it: one last round            waits for B's end
 *
 * Why a thread of the process that tracks, and not a process of its own. /proc/PID/syscall may be read by an ancestor
 * only, where Yama restricts ptrace(2): the command a user starts is a child of that user's process, and would be the
 * brother of a tracking process. Killed with SIGKILL a thread leaves what a process leaves: nothing, for the kernel closes
 * descriptors, rings and sockets (a tracefs instance is journalled). And the tracker can follow itself: the thread that
 * looks is then one of those it looks at, and always seen running.
 *
 * Guard of all fields but `stop` and `waiting`: `lock`. The loop holds it for one round. A thread that wants it counts
 * itself in `waiting` first; the loop, flat out, then leaves the lock alone until it was had.
 */
#ifndef IPCLAB_TRACKER_H
#define IPCLAB_TRACKER_H

#include <pthread.h>
#include <stdatomic.h>

#include "followed.h"
#include "switch.h"
#include "told.h"
#include "trace.h"

#define FLAT_OUT 0
#define TRACKED_CPUS 1024
#define MOST_SPANS (1u << 20) /* 48 MiB: Python drains 20 times a second, so this is 20 million edges a second */

struct tracker_numbers {
	uint64_t rounds;
	uint64_t late;         /* rounds that began more than a period after they were due */
	uint64_t looks;        /* threads asked: one by one */
	uint64_t stat_reads;
	uint64_t schedstat_reads;
	uint64_t reopened;     /* reads that had to open their file */
	uint64_t spans_cut;
	uint64_t spans_lost;   /* Python did not drain */
	uint64_t events;       /* of the kernel, of all sources */
	uint64_t events_lost;  /* that the kernel says it dropped, or that are missing by sequence number */
	uint64_t missing;      /* of those, known by what came after them: who loses a CPU had got one */
	uint64_t late_events;  /* told when what came after them had been applied: drawn too short, counted as uncovered */
	uint64_t unseen;       /* processes that were born and gone, and no look ever fell into */
	uint64_t unattached;   /* threads `switch` could not be attached to: poll leads there */
	int64_t broke_ns;      /* when the leading source broke; 0 */
	int64_t broke_error;   /* and its errno */
	int64_t attach_error;  /* errno of the first thread that could not be attached to */
	uint64_t named_alive;  /* processes named by the user that still live */
	uint64_t alive;        /* threads */
	int64_t cpu_ns;        /* used by the loop's thread */
	int64_t begun_ns;
	int64_t now_ns;
};

struct tracker {
	pthread_mutex_t lock;
	_Atomic int waiting;
	_Atomic int stop;
	int wake_fd;
	int loadavg_fd;
	int follow;
	int64_t period_ns; /* FLAT_OUT */
	uint64_t begun_ticks; /* clock ticks since boot, as start times are told; a process older than this lived before the record */
	int64_t tick_ns;   /* how often the kernel books the time of what runs */
	int64_t round_ns;  /* when the last round began; 0: none has */
	int64_t applied_ns; /* events up to this moment have been applied */
	long last_pid;     /* of /proc/loadavg: it moves when anybody forks */
	int births;        /* it moved */
	struct told_queue told;
	struct switcher *switcher;
	struct tracer *tracer;
	int events_fd;     /* the proc connector's socket; -1 */
	uint32_t sequence[TRACKED_CPUS]; /* of the process events: next of each CPU */
	uint8_t sequence_known[TRACKED_CPUS];
	size_t vanished;   /* threads that wait for their last events */
	size_t taken;      /* zombies whose parent, blocked in wait, takes them when it is on a CPU again */
	size_t recheck;    /* where the look for the woken goes on */
	struct spans spans;
	struct followed all;
	struct tracker_numbers numbers;
};

/* `period_ns` between looks, or FLAT_OUT; `fds_most`: descriptors it may keep open. */
int tracker_open(struct tracker **tracker, int64_t period_ns, int follow, int fds_most);
void tracker_close(struct tracker *tracker);
/* The source `switch` leads from now on; before anything is added. 0, or what switcher_open says. */
int tracker_use_switch(struct tracker *tracker);
/* The source `trace` leads: raw per-CPU files of instances that are set up. The descriptors are the tracker's then. */
int tracker_use_trace(struct tracker *tracker, const struct trace_layout *layout, const int *fds, const int *cpus, int count);
/* Process events from a socket of procevent.h. The descriptor is the tracker's then. */
void tracker_use_events(struct tracker *tracker, int fd);
/*
 * Begins to follow a process and its threads. `start_ticks` 0: whoever has the pid; else -ESRCH for another one. `named`:
 * the record is over when all of these have ended; others were their children already when it began.
 */
int tracker_add(struct tracker *tracker, pid_t pid, uint64_t start_ticks, int named);
/* How it ended, for who had it from waitpid. */
void tracker_tell_exit(struct tracker *tracker, pid_t pid, int status);
/* Rounds until tracker_stop or the deadline (CLOCK_MONOTONIC, negative: none). */
int tracker_run(struct tracker *tracker, int64_t deadline_ns);
/* One round at once, by the calling thread. */
void tracker_round(struct tracker *tracker);
/* The end of the record: what is open is closed, counters are read a last time. No round after it. */
void tracker_finish(struct tracker *tracker);
void tracker_stop(struct tracker *tracker);
void tracker_lock(struct tracker *tracker);
void tracker_unlock(struct tracker *tracker);
/* The spans cut since the last call, now the caller's: free() them. */
struct span *tracker_take_spans(struct tracker *tracker, size_t *count);
/* Facts of all threads alive now, and of those that are gone since the last call; free() them. NULL: no memory. */
struct facts *tracker_take_facts(struct tracker *tracker, size_t *count);
/* The intervals open now, cut off at this moment; free() them. */
struct span *tracker_copy_open(struct tracker *tracker, size_t *count);
void tracker_count(struct tracker *tracker, struct tracker_numbers *numbers);

#endif
