/*
 * procstat.h: what /proc/PID/stat, schedstat and status say, out of their text. No system call is made here.
 */
#ifndef IPCLAB_PROCSTAT_H
#define IPCLAB_PROCSTAT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define COMM_BYTES 16

/* proc_pid_stat(5). */
struct procstat {
	pid_t pid;
	pid_t ppid;
	char state; /* R S D T t Z X I P, as the kernel writes it; 'x' of old kernels is told as X */
	char comm[COMM_BYTES];
	int threads;
	int cpu; /* it ran on last */
	int kernel; /* a kernel thread: PF_KTHREAD */
	uint64_t start_ticks;
};

/* proc_pid_schedstat(5), also Documentation/scheduler/sched-stats.rst. */
struct schedstat {
	uint64_t run_ns;  /* on a CPU, as far as it is booked: at every switch, tick, and reading of the CPU clock */
	uint64_t wait_ns; /* woken or preempted, until it had a CPU; booked when it gets it */
	uint64_t slices;  /* how often it was given a CPU */
};

/* 0, or -EINVAL for what is no such text. `text` need not end with a 0. */
int procstat_parse(const char *text, size_t length, struct procstat *stat);
int schedstat_parse(const char *text, size_t length, struct schedstat *stat);
/* The sum of voluntary_ctxt_switches and nonvoluntary_ctxt_switches in the text of status; -EINVAL without them. */
int64_t status_switches(const char *text, size_t length);
/* A number in decimal at *at, which moves behind it; -1: there is none. */
int64_t parse_number(const char **at, const char *end);

#endif
