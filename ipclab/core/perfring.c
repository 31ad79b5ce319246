/* perfring.c: see perfring.h. */
#include "perfring.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <string.h>

#define LONGEST 256 /* of the records we ask for COMM is the longest */

#ifndef PERF_RECORD_MISC_SWITCH_OUT_PREEMPT
#define PERF_RECORD_MISC_SWITCH_OUT_PREEMPT (1 << 14)
#endif

struct sample_id {
	uint32_t pid, tid;
	uint64_t time;
	uint32_t cpu, reserved;
};

/* PERF_RECORD_FORK and PERF_RECORD_EXIT behind the header. */
struct task_record {
	uint32_t pid, ppid, tid, ptid;
	uint64_t time;
};

static void copy_out(const struct perf_ring *ring, uint64_t from, void *into, size_t size)
{
	size_t at = from & (ring->size - 1), first = ring->size - at < size ? ring->size - at : size;

	memcpy(into, ring->data + at, first);
	memcpy((uint8_t *)into + first, ring->data, size - first);
}

static void decode_switch(const struct perf_event_header *header, struct told *told)
{
	int out = header->misc & PERF_RECORD_MISC_SWITCH_OUT;

	told->kind = out ? TOLD_OFF : TOLD_ON;
	told->state = out && !(header->misc & PERF_RECORD_MISC_SWITCH_OUT_PREEMPT) ? 0 : 'R';
}

static void decode_task(const struct perf_event_header *header, const uint8_t *record, struct told *told)
{
	struct task_record task;

	memcpy(&task, record + sizeof *header, sizeof task);
	told->kind = header->type == PERF_RECORD_FORK ? TOLD_FORK : TOLD_EXIT;
	told->at_ns = (int64_t)task.time;
	told->pid = (int32_t)task.pid;
	told->tid = (int32_t)task.tid;
	told->other = (int32_t)task.ppid;
	told->state = task.pid == task.ppid ? 't' : 0;
	told->value = -1;
}

/* `record` is whole, its length is header->size. */
static int decode(const struct perf_event_header *header, const uint8_t *record, struct told *told, uint64_t *lost)
{
	struct sample_id id;

	if (header->type == PERF_RECORD_LOST && header->size >= sizeof *header + 16) {
		memcpy(lost, record + sizeof *header + 8, sizeof *lost);
		return 2;
	}
	if (header->size < sizeof *header + sizeof id)
		return 0;
	memcpy(&id, record + header->size - sizeof id, sizeof id);
	memset(told, 0, sizeof *told);
	told->at_ns = (int64_t)id.time;
	told->tid = (int32_t)id.tid;
	told->pid = (int32_t)id.pid;
	told->cpu = (int16_t)id.cpu;
	if (header->type == PERF_RECORD_SWITCH)
		decode_switch(header, told);
	else if ((header->type == PERF_RECORD_FORK || header->type == PERF_RECORD_EXIT) &&
		 header->size >= sizeof *header + sizeof(struct task_record))
		decode_task(header, record, told);
	else if (header->type == PERF_RECORD_COMM && header->misc & PERF_RECORD_MISC_COMM_EXEC)
		told->kind = TOLD_EXEC;
	else
		return 0;
	return 1;
}

int perf_ring_next(struct perf_ring *ring, struct told *told, uint64_t *lost)
{
	struct perf_event_header header;
	uint8_t record[LONGEST];

	if (ring->head - ring->tail < sizeof header)
		goto broken;
	copy_out(ring, ring->tail, &header, sizeof header);
	if (header.size < sizeof header || header.size > ring->head - ring->tail)
		goto broken;
	if (header.size > LONGEST) {
		ring->tail += header.size;
		return 0;
	}
	copy_out(ring, ring->tail, record, header.size);
	ring->tail += header.size;
	return decode(&header, record, told, lost);
broken:
	ring->tail = ring->head;
	return -EINVAL;
}
