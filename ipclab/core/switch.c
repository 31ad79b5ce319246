/* switch.c: see switch.h. */
#define _GNU_SOURCE
#include "switch.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "perfring.h"
#include "timeline.h"

#define LARGEST_RING (256u << 10)
#define SMALLEST_RING (8u << 10)

struct ring {
	int cpu;
	int fd;                             /* of the event whose ring it is; -1: none yet */
	struct perf_event_mmap_page *page;  /* the control page, the data behind it */
	int anchor;                         /* an event of our own process, that nothing else keeps open */
};

struct switcher {
	int inherit;
	int cpus;
	size_t bytes; /* of a ring's data */
	struct ring *ring;
	int *fds; /* of all events but the anchors */
	size_t fd_count, fd_room;
};

static int open_event(pid_t tid, int cpu, int inherit)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof attr,
		.config = PERF_COUNT_SW_DUMMY,
		.sample_type = PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_CPU,
		.sample_id_all = 1,
		.exclude_kernel = 1,
		.exclude_hv = 1,
		.context_switch = 1,
		.task = 1,
		.comm = 1,
		.comm_exec = 1,
		.inherit = 1,
		.use_clockid = 1,
		.clockid = CLOCK_MONOTONIC,
	};
	long fd;

	attr.inherit_thread = !inherit;
	fd = syscall(SYS_perf_event_open, &attr, tid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
	return fd < 0 ? -errno : (int)fd;
}

/*
 * The event whose ring the others use must live as long as they. It is one of our own process, not inherited, that tells
 * of nothing: without context_switch.
 */
static int open_anchor(int cpu)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof attr,
		.config = PERF_COUNT_SW_DUMMY,
		.sample_type = PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_CPU,
		.sample_id_all = 1,
		.exclude_kernel = 1,
		.exclude_hv = 1,
		.use_clockid = 1,
		.clockid = CLOCK_MONOTONIC,
	};
	long fd = syscall(SYS_perf_event_open, &attr, 0, cpu, -1, PERF_FLAG_FD_CLOEXEC);

	return fd < 0 ? -errno : (int)fd;
}

static int map_ring(struct switcher *switcher, struct ring *ring)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *at;

	at = mmap(NULL, page + switcher->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ring->anchor, 0);
	if (at == MAP_FAILED)
		return errno == EPERM || errno == ENOMEM ? -ENOBUFS : -errno;
	madvise(at, page + switcher->bytes, MADV_DONTFORK);
	ring->page = at;
	return 0;
}

static void unmap_rings(struct switcher *switcher)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	for (int i = 0; i < switcher->cpus; i++) {
		if (switcher->ring[i].page)
			munmap(switcher->ring[i].page, page + switcher->bytes);
		switcher->ring[i].page = NULL;
	}
}

static int map_all(struct switcher *switcher)
{
	int rc = 0;

	for (int i = 0; i < switcher->cpus && rc == 0; i++)
		if (switcher->ring[i].anchor >= 0)
			rc = map_ring(switcher, &switcher->ring[i]);
	if (rc < 0)
		unmap_rings(switcher);
	return rc;
}

static int open_rings(struct switcher *switcher)
{
	int rc = -ENODEV, some = 0;

	for (int i = 0; i < switcher->cpus; i++) {
		rc = switcher->ring[i].anchor = open_anchor(i);
		if (rc == -ENODEV)
			continue; /* a CPU that is off */
		if (rc < 0)
			return rc;
		some = 1;
	}
	rc = some ? -ENOBUFS : -ENODEV;
	for (switcher->bytes = LARGEST_RING; rc == -ENOBUFS && switcher->bytes >= SMALLEST_RING;) {
		rc = map_all(switcher);
		if (rc == -ENOBUFS)
			switcher->bytes /= 2;
	}
	return rc;
}

int switcher_open(struct switcher **opened, int inherit)
{
	struct switcher *switcher = calloc(1, sizeof *switcher);
	int rc = -ENOMEM;

	if (!switcher)
		return rc;
	switcher->inherit = inherit;
	switcher->cpus = (int)sysconf(_SC_NPROCESSORS_CONF);
	switcher->ring = calloc((size_t)switcher->cpus, sizeof *switcher->ring);
	for (int i = 0; switcher->ring && i < switcher->cpus; i++)
		switcher->ring[i] = (struct ring){.cpu = i, .anchor = -1};
	if (switcher->ring)
		rc = open_rings(switcher);
	if (rc < 0) {
		switcher_close(switcher);
		return rc;
	}
	*opened = switcher;
	return 0;
}

void switcher_close(struct switcher *switcher)
{
	if (!switcher)
		return;
	for (size_t i = 0; i < switcher->fd_count; i++)
		close(switcher->fds[i]);
	if (switcher->ring) {
		unmap_rings(switcher);
		for (int i = 0; i < switcher->cpus; i++)
			if (switcher->ring[i].anchor >= 0)
				close(switcher->ring[i].anchor);
	}
	free(switcher->ring);
	free(switcher->fds);
	free(switcher);
}

static int keep_fd(struct switcher *switcher, int fd)
{
	int *larger;

	if (switcher->fd_count == switcher->fd_room) {
		larger = realloc(switcher->fds, (switcher->fd_room * 2 + 64) * sizeof *larger);
		if (!larger)
			return -ENOMEM;
		switcher->fds = larger;
		switcher->fd_room = switcher->fd_room * 2 + 64;
	}
	switcher->fds[switcher->fd_count++] = fd;
	return 0;
}

int switcher_add(struct switcher *switcher, pid_t tid)
{
	size_t before = switcher->fd_count;
	int fd, rc = 0;

	for (int i = 0; i < switcher->cpus && rc == 0; i++) {
		if (switcher->ring[i].anchor < 0)
			continue;
		fd = open_event(tid, i, switcher->inherit);
		if (fd < 0) {
			rc = fd;
		} else if (keep_fd(switcher, fd) < 0) {
			close(fd);
			rc = -ENOMEM;
		} else if (ioctl(fd, PERF_EVENT_IOC_SET_OUTPUT, switcher->ring[i].anchor) < 0) {
			rc = -errno;
		}
	}
	while (rc < 0 && switcher->fd_count > before)
		close(switcher->fds[--switcher->fd_count]);
	return rc;
}

static int read_ring(struct switcher *switcher, struct ring *ring, struct told_queue *queue, uint64_t *lost)
{
	struct perf_event_mmap_page *page = ring->page;
	struct perf_ring from = {
		.data = (const uint8_t *)page + sysconf(_SC_PAGESIZE),
		.size = switcher->bytes,
		.tail = page->data_tail,
		.head = __atomic_load_n(&page->data_head, __ATOMIC_ACQUIRE), /* the records before it are written */
	};
	struct told told;
	uint64_t dropped;
	int rc = 0;

	while (from.tail < from.head && rc >= 0) {
		rc = perf_ring_next(&from, &told, &dropped);
		if (rc == 1) {
			told.source = SOURCE_SWITCH;
			told_push(queue, &told);
		} else if (rc == 2) {
			*lost += dropped;
		}
	}
	__atomic_store_n(&page->data_tail, from.tail, __ATOMIC_RELEASE); /* we have read them: the kernel may write there */
	return rc < 0 ? rc : 0;
}

int switcher_read(struct switcher *switcher, struct told_queue *queue, uint64_t *lost)
{
	int rc = 0, one;

	for (int i = 0; i < switcher->cpus; i++)
		if (switcher->ring[i].page) {
			one = read_ring(switcher, &switcher->ring[i], queue, lost);
			rc = one < 0 ? one : rc;
		}
	return rc;
}

size_t switcher_ring_bytes(const struct switcher *switcher, int *rings)
{
	*rings = 0;
	for (int i = 0; i < switcher->cpus; i++)
		*rings += switcher->ring[i].page != NULL;
	return switcher->bytes;
}
