/*
 * told.h: what the kernel tells of threads as it happens, in one form for all sources, put in order of time.
 *
 * Rings and sockets are one per CPU, or one per source; each is in order by itself. What is read in one go at time T is
 * whole up to T and may have gaps behind it (the ring read first has stopped earlier than the one read last). So
 * what is told of the time after T waits in the queue for the next time.
 */
#ifndef IPCLAB_TOLD_H
#define IPCLAB_TOLD_H

#include <stddef.h>
#include <stdint.h>

enum told_kind {
	TOLD_ON,   /* got a CPU */
	TOLD_OFF,  /* lost it; `state` R: preempted, 0: to sleep, who knows whether S or D, Z and X: dead */
	TOLD_WAKE, /* runnable */
	TOLD_FORK, /* tid was born of `other`, in process `pid`; `state` 't': a thread of the same process */
	TOLD_EXEC,
	TOLD_EXIT, /* `value`: its status as waitpid has it, or -1 */
	TOLD_WAIT, /* tid waits for a child; `other`: which, 0: any */
	TOLD_FREE, /* nothing is left of it */
};

struct told {
	int64_t at_ns;
	int32_t tid;
	int32_t pid;   /* of FORK */
	int32_t other;
	int32_t value;
	int16_t cpu;
	uint8_t kind;
	char state;
	uint8_t source;
};

struct told_queue {
	struct told *told;
	size_t count;
	size_t room;
	uint64_t lost; /* for want of memory */
};

void told_push(struct told_queue *queue, const struct told *told);
/* Sorts; of equal times what came first stays first. Returns how many are of `until_ns` or before. */
size_t told_sort(struct told_queue *queue, int64_t until_ns);
/* Drops the first `count`. */
void told_drop(struct told_queue *queue, size_t count);
void told_free(struct told_queue *queue);

#endif
