/* procevent.c: see procevent.h. */
#define _GNU_SOURCE
#include "procevent.h"

#include <errno.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "timeline.h"

/* Measured: lost none in a storm of 20,000 forks. Without CAP_NET_ADMIN net.core.rmem_max is the limit. */
#define RECEIVE_BYTES (32 << 20)
#define DATAGRAM 8192
#define AGREE_MS 200

/* The beginning of struct proc_event, whose enum and union differ between kernel headers. */
struct event_head {
	uint32_t what, cpu;
	uint64_t timestamp_ns; /* ktime_get_ns(): CLOCK_MONOTONIC */
	uint32_t data[6];
};

#define EVENT_NONE 0u
#define EVENT_FORK 0x1u
#define EVENT_EXEC 0x2u
#define EVENT_EXIT 0x80000000u
#define EVENT_HEAD_BYTES 16

static void tell(const struct event_head *event, struct told_queue *queue)
{
	struct told told = {.at_ns = (int64_t)event->timestamp_ns, .cpu = (int16_t)event->cpu, .source = SOURCE_EVENTS,
			    .value = -1};
	const uint32_t *data = event->data;

	if (event->what == EVENT_FORK) { /* parent pid, tgid, child pid, tgid: "pid" is what /proc calls tid */
		told.kind = TOLD_FORK;
		told.other = (int32_t)data[1];
		told.tid = (int32_t)data[2];
		told.pid = (int32_t)data[3];
		told.state = data[2] == data[3] ? 0 : 't';
	} else if (event->what == EVENT_EXEC) {
		told.kind = TOLD_EXEC;
		told.tid = (int32_t)data[0];
	} else if (event->what == EVENT_EXIT) {
		told.kind = TOLD_EXIT;
		told.tid = (int32_t)data[0];
		told.pid = (int32_t)data[1];
		told.value = (int32_t)data[2];
	} else {
		return;
	}
	told_push(queue, &told);
}

static void follow_sequence(const struct event_sequence *sequence, uint32_t cpu, uint32_t seq, uint64_t *lost)
{
	if (cpu >= (uint32_t)sequence->cpus)
		return;
	/* A message that was overtaken is not lost; there are none such on one CPU. */
	if (sequence->known[cpu] && seq != sequence->next[cpu])
		*lost += (uint32_t)(seq - sequence->next[cpu]);
	sequence->known[cpu] = 1;
	sequence->next[cpu] = seq + 1;
}

static int decode_one(const struct nlmsghdr *header, const struct event_sequence *sequence, struct told_queue *queue,
		      uint64_t *lost)
{
	const uint8_t *body = NLMSG_DATA(header);
	size_t bytes = header->nlmsg_len - NLMSG_HDRLEN;
	struct event_head event = {0};
	struct cn_msg message;

	if (header->nlmsg_type == NLMSG_NOOP || header->nlmsg_type == NLMSG_ERROR)
		return 0;
	if (bytes < sizeof message)
		return -EINVAL;
	memcpy(&message, body, sizeof message);
	if (message.id.idx != CN_IDX_PROC || message.id.val != CN_VAL_PROC)
		return 0;
	if (message.len < EVENT_HEAD_BYTES || message.len > bytes - sizeof message)
		return -EINVAL;
	memcpy(&event, body + sizeof message, message.len < sizeof event ? message.len : sizeof event);
	/* Answers to listeners have a place in the sequence too; in that of older kernels not, and then their CPU is -1. */
	follow_sequence(sequence, event.cpu, message.seq, lost);
	if (event.what == EVENT_NONE)
		return 0;
	tell(&event, queue);
	return 1;
}

int procevents_decode(const void *data, size_t bytes, const struct event_sequence *sequence, struct told_queue *queue,
		      uint64_t *lost)
{
	const struct nlmsghdr *header = data;
	int count = 0, rc;

	while (bytes >= NLMSG_HDRLEN) {
		size_t length = header->nlmsg_len;

		if (length < NLMSG_HDRLEN || length > bytes)
			return -EINVAL;
		rc = decode_one(header, sequence, queue, lost);
		if (rc < 0)
			return rc;
		count += rc;
		length = NLMSG_ALIGN(length) < bytes ? NLMSG_ALIGN(length) : bytes;
		bytes -= length;
		header = (const struct nlmsghdr *)((const uint8_t *)header + length);
	}
	return bytes ? -EINVAL : count;
}

int procevents_read(int fd, const struct event_sequence *sequence, struct told_queue *queue, uint64_t *lost)
{
	_Alignas(8) uint8_t data[DATAGRAM];
	struct sockaddr_nl from;
	socklen_t length;
	ssize_t got;

	for (;;) {
		length = sizeof from;
		got = recvfrom(fd, data, sizeof data, MSG_DONTWAIT, (struct sockaddr *)&from, &length);
		if (got < 0 && (errno == EINTR || errno == ENOBUFS))
			continue; /* ENOBUFS: something was dropped; the sequence says how much */
		if (got < 0)
			return errno == EAGAIN ? 0 : -errno;
		if (got == 0)
			return -ENOTCONN;
		if (from.nl_pid == 0) /* the kernel */
			procevents_decode(data, (size_t)got, sequence, queue, lost);
	}
}

/* --- opening --- */

static int ask(int fd, uint32_t operation)
{
	struct {
		struct nlmsghdr header;
		struct cn_msg message;
		uint32_t operation;
	} __attribute__((packed, aligned(4))) request = {
		.header = {.nlmsg_len = sizeof request, .nlmsg_type = NLMSG_DONE},
		.message = {.id = {.idx = CN_IDX_PROC, .val = CN_VAL_PROC}, .len = sizeof request.operation},
		.operation = operation,
	};

	request.header.nlmsg_pid = (uint32_t)getpid();
	return send(fd, &request, sizeof request, 0) < 0 ? -errno : 0;
}

/* The answer is an event of no kind, whose first word is an errno. Others may come before it. */
static int wait_for_answer(int fd)
{
	struct pollfd readable = {.fd = fd, .events = POLLIN};
	_Alignas(8) uint8_t data[DATAGRAM];
	struct event_head event;
	ssize_t got;

	for (int tries = 0; tries < 1000; tries++) {
		if (poll(&readable, 1, AGREE_MS) <= 0)
			return -ETIMEDOUT;
		got = recv(fd, data, sizeof data, MSG_DONTWAIT);
		if (got < (ssize_t)(NLMSG_HDRLEN + sizeof(struct cn_msg) + EVENT_HEAD_BYTES + 4))
			continue;
		memcpy(&event, data + NLMSG_HDRLEN + sizeof(struct cn_msg), EVENT_HEAD_BYTES + 4);
		if (event.what == EVENT_NONE)
			return -(int)event.data[0];
	}
	return -ETIMEDOUT;
}

int procevents_open(void)
{
	struct sockaddr_nl group = {.nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC};
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_CONNECTOR);
	const int bytes = RECEIVE_BYTES;
	int rc;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) < 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
	rc = bind(fd, (struct sockaddr *)&group, sizeof group) < 0 ? -errno : ask(fd, PROC_CN_MCAST_LISTEN);
	if (rc == 0)
		rc = wait_for_answer(fd);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	return fd;
}
