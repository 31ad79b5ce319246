/*
 * followed.h: the processes and threads a tracker follows, the descriptors it keeps on them, and how it finds new ones.
 *
 * A descriptor on /proc/PID/task/TID/stat belongs to that thread and never to a later one of the same number: once it is
 * gone, reading says ESRCH. So who keeps descriptors needs no look at start times. Only where there are not enough of
 * them (RLIMIT_NOFILE) is a thread read by opening its file anew each time, and its start time compared.
 *
 * Guard of everything here: the tracker's lock.
 */
#ifndef IPCLAB_FOLLOWED_H
#define IPCLAB_FOLLOWED_H

#include <stdint.h>
#include <sys/types.h>

#include "procstat.h"
#include "timeline.h"

#define FILE_STAT 0
#define FILE_SCHEDSTAT 1
#define FILE_WCHAN 2
#define FILE_SYSCALL 3
#define FILE_CHILDREN 4
#define FILE_STATUS 5
#define FILES 6
#define PROC_TEXT 4096   /* the longest text read here; status is the longest of all */
#define CLOSED (-1)
#define REFUSED (-2)     /* it cannot be opened at all: errno is in refused[] */
#define NOT_COUNTED (-1)
#define RECENT 256

/* What a look found. */
struct look {
	int64_t at_ns;
	struct schedstat counters;
	char state;
	int16_t cpu;
};

struct thread {
	struct thread *next;          /* of its process */
	struct thread *next_in_table;
	struct process *process;
	uint64_t serial;              /* unique in the tracker's life */
	pid_t tid;
	uint64_t start_ticks;
	char comm[COMM_BYTES];
	int fds[FILES];               /* CLOSED, REFUSED */
	int16_t refused[FILES];       /* errno of the last refusal, 0 */
	uint8_t leader;               /* enum source: who cuts */
	uint8_t gone;
	uint8_t counted_at_death;
	uint8_t fresh;                /* its leader broke: the next look says what it is in, and nothing of before */
	uint8_t dying;                /* an event told its exit: what it does next is die */
	int64_t vanished_ns;          /* /proc has it no more; events may still tell of it */
	int64_t reaped_ns;            /* Z, and somebody waited for it: X begins */
	int64_t waits_ns;             /* since when it waits for a child; 0: it does not */
	pid_t waits_for;              /* which, 0: any */
	uint8_t is_taken;             /* Z, and its parent waits already */
	uint64_t off_count;           /* ends of slices that events told, ever */
	struct timeline line;
	struct look last;
	int64_t booked_to_ns;         /* of a slice under way: up to here its time on the CPU is booked (reckon.h) */
	int64_t progress_ns;          /* the last look that found something booked */
	int64_t stat_ns;              /* when its stat was read last */
	int64_t named_start_ns;       /* start of the interval that was named last */
	/* A look that waits until the events up to its end have been applied (rule 5 in timeline.h). */
	struct { int64_t from_ns, to_ns; char state; uint16_t wchan; int16_t syscall; } note;
	uint64_t slices_begin;        /* schedstat's count when the record began */
	uint8_t counterless;          /* its schedstat cannot be read */
	int64_t counted_begin;        /* switches that status counted when the record began; NOT_COUNTED */
	int64_t counted_end;
	int64_t read_begin_ns[2];     /* between these two moments it was read */
	int64_t read_end_ns[2];
	uint64_t inside_begin[2];     /* switches before the first and before the second of these moments */
	uint64_t inside_end[2];
};

struct process {
	pid_t pid;
	pid_t ppid;
	uint64_t start_ticks;
	int64_t looked_ns;
	struct thread *threads;
	int thread_count;     /* of `threads` */
	uint8_t kernel;
	uint8_t ran;          /* since children were looked for */
	uint8_t named;        /* the user named it, or it is the command */
	int32_t exit_status;  /* as waitpid has it; -1: nobody told */
	int64_t exit_ns;      /* the event's; 0 */
};

/* What becomes of a thread, for Python: see records/states.py, Tracked. "<2Q9q5i4B16s11q" */
struct facts {
	uint64_t serial;
	uint64_t start_ticks;
	int64_t first_ns;
	int64_t last_ns;
	int64_t uncovered_ns;
	int64_t switches;
	int64_t counted;        /* NOT_COUNTED */
	int64_t checked_least;  /* switches between the readings of the counter, of which are certain */
	int64_t checked_most;   /* and with those that fell into a reading */
	int64_t wait_ns;
	int64_t run_ns;
	int32_t pid;
	int32_t tid;
	int32_t ppid;
	int32_t exit_status;
	int32_t refused;        /* errno of wchan << 16 | errno of syscall */
	uint8_t gone;
	uint8_t kernel;
	uint8_t leader;
	uint8_t named;
	char comm[COMM_BYTES];
	int64_t share_ns[SHARES];
};

struct followed {
	struct process **process; /* in no order */
	size_t count;
	size_t room;
	struct thread **table;    /* by tid */
	size_t table_size;        /* a power of two */
	size_t thread_count;
	uint64_t next_serial;
	struct facts *departed;   /* of threads that are gone, until Python takes them */
	size_t departed_count;
	size_t departed_room;
	struct { pid_t tid; int64_t last_ns; } recent[RECENT]; /* the last that went: an event may come late */
	size_t recent_next;
	int fds_open;
	int fds_events;           /* of those that may be kept, taken by `switch` */
	int fds_most;             /* that may be kept */
	uint64_t reopened;        /* looks without a kept descriptor */
	char **names;             /* wchan: index -> name; 0 is none */
	size_t names_count;
};

int followed_open(struct followed *all, int fds_most);
void followed_close(struct followed *all);
struct thread *followed_find(const struct followed *all, pid_t tid);
struct process *followed_process(const struct followed *all, pid_t pid);
/* A process without threads yet. NULL: no memory. */
struct process *followed_add_process(struct followed *all, const struct procstat *stat);
/* A thread, its descriptors opened as far as there are any. NULL: no memory. */
struct thread *followed_add_thread(struct followed *all, struct process *process, pid_t tid);
/* Its facts are kept, everything else goes. The process goes with its last thread; then *process_gone is 1. */
int followed_drop_thread(struct followed *all, struct thread *thread);
/* One that has no thread. */
void followed_drop_process(struct followed *all, struct process *process);
/* Reads one of its files whole, a 0 behind it. Bytes, or -errno: -ESRCH (-ENOENT too) it is gone. */
ssize_t thread_read(struct followed *all, struct thread *thread, int file, char text[PROC_TEXT]);
/* stat of a thread, by pid and tid. 0 or -errno. */
int stat_of(pid_t pid, pid_t tid, struct procstat *stat);
/* Index of a name, added if it is new; NO_NAME when there are too many. */
uint16_t name_index(struct followed *all, const char *name, size_t length);
/* The thread's ids below /proc/PID/task into `tids`, at most `most`; how many there are, or -errno. */
int list_threads(pid_t pid, pid_t *tids, int most);
/* Whether one of this id was followed at that moment and has gone since. */
int followed_recently(const struct followed *all, pid_t tid, int64_t at_ns);
/* Its exit status, told when it had gone already. */
void followed_tell_exit(struct followed *all, pid_t tid, int status);
/* Whether the process has a thread of this id. */
int thread_exists(pid_t pid, pid_t tid);
void facts_of(const struct thread *thread, int64_t now_ns, struct facts *facts);

#endif
