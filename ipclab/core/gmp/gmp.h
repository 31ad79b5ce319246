/*
 * gmp.h: the scheduler as its user sees it: make a segment, describe the work, start, wait, look, end.
 *
 *   caller (never an M)          template                      Ms, and sysmon
 *   gmp_create
 *   gmp_chan, gmp_sema, gmp_program
 *   gmp_start  ---fork--->       single-threaded, waits for
 *   gmp_wait: asleep on a        requests and deaths ---fork---> one process each, for life
 *     futex, in slices that
 *     look at the template
 *   gmp_stop   ----------->      kills and reaps all, ends
 *   gmp_destroy
 *
 * If the caller dies the template is killed by its parent-death signal, and by that the Ms. Every function returns >= 0
 * or -errno. A struct gmp belongs to one thread.
 */
#ifndef IPCLAB_GMP_GMP_H
#define IPCLAB_GMP_GMP_H

#include "events.h"
#include "runtime2.h"
#include "script.h"

enum gmp_model {
	GMP_MN,        /* any number of Gs on any number of Ms, at most `procs` running */
	GMP_MANY_TO_1, /* one M and one P; a G that blocks blocks all; nobody preempts */
	GMP_1_TO_1,    /* every G has an M of its own, from its first step to its end; as many Ps as there may be */
};

struct gmp_config {
	uint32_t procs;      /* Ps; 0: as many as CPUs this process may use */
	uint32_t model;      /* enum gmp_model */
	uint32_t maxg, maxm; /* 0: 16 million Gs, 1024 Ms; address space only */
	uint32_t programs, steps, chans, semas, words; /* how many there may be; 0: 64, 4096, 1024, 1024, 65536 */
	uint64_t heapbytes;  /* for blocks, mheap.h: address space only; 0: none */
	uint32_t eventslots; /* per M, a power of two; 0: no events are written */
	uint32_t threads;    /* Ms are threads of this process: for the sanitizers */
	uint32_t tracking;   /* keep the Gs' times */
	uint32_t randomize, nopreempt, mainends; /* see struct schedt */
	uint64_t seed;
	struct gmp_hooks hooks; /* not needed with threads */
};

/* An M that somebody has waited for for a second: to stop the world, to repair, for a lock. */
struct gmp_stalled {
	int64_t m;   /* its id */
	int32_t pid;
	uint32_t why; /* enum stall */
	char state;  /* the letter in /proc/PID/status when it was last looked at; '?': it is gone */
};

int gmp_create(struct gmp *rt, const struct gmp_config *config);
/* The index of a new one. -ENOSPC: more than the segment holds. Before gmp_start only. */
int gmp_chan(struct gmp *rt, uint32_t capacity);
int gmp_sema(struct gmp *rt, uint32_t value); /* also a mutex (value 0) and a wait group (value 0) */
int gmp_program(struct gmp *rt, const struct step *steps, uint32_t n);
/* Starts with one G that runs `program`. -EINVAL: a step is wrong; *wrong, if given, is program << 16 | step. */
int gmp_start(struct gmp *rt, uint32_t program, uint32_t *wrong);
/* The reason it ended (enum fatal), -ETIMEDOUT, or -ECHILD: the template has died. -EINTR after a signal. */
int gmp_wait(struct gmp *rt, int64_t deadline_ns);
/* Ps from now on, while it runs: stops the world. -EINVAL: none, or more than GMP_MAXPROCS. -ECHILD: as gmp_wait. */
int gmp_set_procs(struct gmp *rt, uint32_t procs);
/* Ends everybody; the segment can still be read. Harmless when nothing runs. */
int gmp_stop(struct gmp *rt);
void gmp_destroy(struct gmp *rt);
/* Maps a segment of another process read-only, to look at. -EBADMSG, -EPROTO (another build), -EPROTOTYPE, -ENODATA: see
 * segment.h. */
int gmp_attach(struct gmp *rt, int fd);
/*
 * A copy in memory of this process alone, to be read at leisure: everything but the event rings and, of the Gs, all but
 * the first `most`. It is consistent if the world stands still meanwhile. Returns how many Gs it has; end it with
 * gmp_destroy.
 */
int gmp_copy(struct gmp *copy, const struct gmp *from, uint32_t most);
/* CPUs this process may use: its affinity, and the quota of its cgroup rounded up. */
uint32_t gmp_cpus(void);
/* Who holds others up just now; returns how many. Also after gmp_attach, and while a call waits for them. */
uint32_t gmp_stalled(struct gmp *rt, struct gmp_stalled *into, uint32_t most);
/* What all Ms have done for one program. */
struct tally gmp_tally(struct gmp *rt, uint32_t program);

#endif
