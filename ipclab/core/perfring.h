/*
 * perfring.h: records of a perf event ring buffer, decoded: perf_event_open(2), linux/perf_event.h. No system call here.
 *
 * All records end with the sample_id of PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_CPU (24 bytes).
 */
#ifndef IPCLAB_PERFRING_H
#define IPCLAB_PERFRING_H

#include <stddef.h>
#include <stdint.h>

#include "told.h"

/* The bytes between tail and head; `size` is a power of two. */
struct perf_ring {
	const uint8_t *data;
	size_t size;
	uint64_t tail;
	uint64_t head;
};

/* Decodes one record and moves the tail behind it. 1: *told is filled; 2: *lost is (records the kernel had no room for);
 * 0: nothing, or a record that does not concern us; -EINVAL: what is there is no record (the tail is moved to the head).
 * Call it while tail < head. */
int perf_ring_next(struct perf_ring *ring, struct told *told, uint64_t *lost);

#endif
