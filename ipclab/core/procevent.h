/*
 * procevent.h: the kernel's process events connector: fork, exec, exit as messages (linux/cn_proc.h).
 *
 * A netlink socket in group CN_IDX_PROC. Everybody may listen since Linux 6.6, CAP_NET_ADMIN is needed before; only in the
 * first pid and user namespace. All processes of the machine are told of. Messages carry a sequence number per CPU that
 * also counts what was dropped because the socket was full: a gap is what was lost, to the message. (The filter of newer
 * kernels is not used: what it holds back leaves gaps too.)
 */
#ifndef IPCLAB_PROCEVENT_H
#define IPCLAB_PROCEVENT_H

#include <stddef.h>
#include <stdint.h>

#include "told.h"

/* What has been counted of each CPU. */
struct event_sequence {
	uint32_t *next;
	uint8_t *known;
	int cpus;
};

/* Opens, and waits up to 200 ms for the kernel to agree. A non-blocking descriptor, or -errno: -EPERM, -ETIMEDOUT (no
 * such events, or another namespace), -EPROTONOSUPPORT. */
int procevents_open(void);
/* Reads what there is. `lost`: missing by sequence. 0 or -errno. */
int procevents_read(int fd, const struct event_sequence *sequence, struct told_queue *queue, uint64_t *lost);
/* Decodes one datagram. How many messages it had, or -EINVAL for what is none of these. */
int procevents_decode(const void *data, size_t bytes, const struct event_sequence *sequence, struct told_queue *queue,
		      uint64_t *lost);

#endif
