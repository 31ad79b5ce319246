/* told.c: see told.h. */
#include "told.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_ROOM 1024

void told_push(struct told_queue *queue, const struct told *told)
{
	struct told *larger;

	if (queue->count == queue->room) {
		size_t room = queue->room ? queue->room * 2 : FIRST_ROOM;

		larger = realloc(queue->told, room * sizeof *larger);
		if (!larger) {
			queue->lost++;
			return;
		}
		queue->told = larger;
		queue->room = room;
	}
	queue->told[queue->count++] = *told;
}

/* Merges two sorted runs through `spare`, stable. */
static void merge(struct told *first, size_t left, size_t count, struct told *spare)
{
	size_t i = 0, j = left, k = 0;

	memcpy(spare, first, left * sizeof *first);
	while (i < left && j < count)
		first[k++] = first[j].at_ns < spare[i].at_ns ? first[j++] : spare[i++];
	memcpy(first + k, spare + i, (left - i) * sizeof *first);
}

static size_t run_of(const struct told *told, size_t count)
{
	size_t length = 1;

	while (length < count && told[length].at_ns >= told[length - 1].at_ns)
		length++;
	return length;
}

/* The queue is a few sorted runs, one per ring: each is merged into what is sorted already. */
static int merge_runs(struct told_queue *queue, struct told *spare)
{
	size_t sorted = queue->count ? run_of(queue->told, queue->count) : 0;

	while (sorted < queue->count) {
		size_t next = run_of(queue->told + sorted, queue->count - sorted);

		merge(queue->told, sorted, sorted + next, spare);
		sorted += next;
	}
	return 0;
}

size_t told_sort(struct told_queue *queue, int64_t until_ns)
{
	struct told *spare;
	size_t ready = queue->count;

	if (run_of(queue->told, queue->count) < queue->count) {
		spare = malloc(queue->count * sizeof *spare);
		if (!spare)
			return 0; /* it waits: order is worth more than haste */
		merge_runs(queue, spare);
		free(spare);
	}
	while (ready && queue->told[ready - 1].at_ns > until_ns)
		ready--;
	return ready;
}

void told_drop(struct told_queue *queue, size_t count)
{
	if (!count)
		return;
	queue->count -= count;
	memmove(queue->told, queue->told + count, queue->count * sizeof *queue->told);
}

void told_free(struct told_queue *queue)
{
	free(queue->told);
	memset(queue, 0, sizeof *queue);
}
