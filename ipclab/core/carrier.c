/* carrier.c: see carrier.h. */
#define _GNU_SOURCE
#include "carrier.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 128 /* the ring's private words have cache lines of their own */

static const struct carrier_calls *const kinds[] = {
	&carrier_stream,    &carrier_vmsplice, &carrier_datagram,     &carrier_posix_mq, &carrier_sysv_mq,   &carrier_slots,
	&carrier_ring,      &carrier_fd_passing, &carrier_process_vm, &carrier_signal,   &carrier_rt_signal, &carrier_signalfd,
	&carrier_pidfd_signal, &carrier_eventfd, &carrier_futex,      &carrier_posix_sem, &carrier_unnamed_sem,
	&carrier_sysv_sem,
};

static const struct carrier_calls *find(const char *kind)
{
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (strcmp(kinds[i]->kind, kind) == 0)
			return kinds[i];
	return NULL;
}

int carrier_kind_exists(const char *kind)
{
	return find(kind) != NULL;
}

int carrier_number(const struct carrier *carrier, const char *name, int64_t *value)
{
	for (int i = 0; i < carrier->setup->number_count; i++) {
		if (strcmp(carrier->setup->numbers[i].name, name) == 0) {
			*value = carrier->setup->numbers[i].value;
			return 0;
		}
	}
	return -EINVAL;
}

int64_t carrier_number_or(const struct carrier *carrier, const char *name, int64_t otherwise)
{
	int64_t value;

	return carrier_number(carrier, name, &value) == 0 ? value : otherwise;
}

void *carrier_place(const struct carrier *carrier, const char *name, size_t size, size_t align)
{
	int64_t offset;

	if (carrier_number(carrier, name, &offset) < 0 || offset < 0 || carrier->memory_bytes < size ||
	    (size_t)offset > carrier->memory_bytes - size || (uintptr_t)(carrier->memory + offset) % align)
		return NULL;
	return carrier->memory + offset;
}

int carrier_set_waiting(int fd, int waits)
{
	int flags = fcntl(fd, F_GETFL), wanted;

	if (flags < 0)
		return -errno;
	wanted = waits ? flags & ~O_NONBLOCK : flags | O_NONBLOCK;
	return wanted == flags || fcntl(fd, F_SETFL, wanted) == 0 ? 0 : -errno;
}

int carrier_open(struct carrier **out, const char *kind, const struct carrier_setup *setup)
{
	const struct carrier_calls *calls = find(kind);
	struct carrier *carrier;
	size_t bytes;
	int rc = 0;

	*out = NULL;
	if (!calls || setup->fd_count != calls->fds)
		return -EINVAL;
	bytes = (calls->state_bytes + ALIGN - 1) / ALIGN * ALIGN;
	carrier = aligned_alloc(ALIGN, bytes);
	if (!carrier)
		return -ENOMEM;
	memset(carrier, 0, bytes);
	carrier->calls = calls;
	carrier->setup = setup;
	carrier->memory = setup->memory;
	carrier->memory_bytes = setup->memory_bytes;
	carrier->limit_bytes = SIZE_MAX;
	carrier->ticked = &carrier->never;
	carrier->watch = (int)carrier_number_or(carrier, "watch", -1);
	for (int i = 0; i < calls->fds && rc == 0; i++) {
		carrier->fds[i] = setup->fds[i];
		rc = carrier_set_waiting(carrier->fds[i], 1);
	}
	if (rc == 0 && calls->open)
		rc = calls->open(carrier);
	carrier->setup = NULL;
	if (rc < 0) {
		free(carrier);
		return rc;
	}
	*out = carrier;
	return 0;
}

void carrier_close(struct carrier *carrier)
{
	if (!carrier)
		return;
	if (carrier->calls->close)
		carrier->calls->close(carrier);
	free(carrier);
}

void carrier_hurry(struct carrier *carrier)
{
	carrier->hurry = 1;
	for (int i = 0; i < carrier->calls->fds; i++)
		carrier_set_waiting(carrier->fds[i], 0); /* where that is refused, the harness's deadline is left */
}
