/* carrier_queue.c: the kernel's two kinds of message queue. */
#define _GNU_SOURCE
#include "carrier.h"

#include <errno.h>
#include <mqueue.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>

struct posix_mq {
	struct carrier base;
	char *room; /* mq_receive(3) wants room for the queue's largest message, whatever comes */
	size_t room_bytes;
};

static int posix_mq_open(struct carrier *carrier)
{
	struct posix_mq *self = (struct posix_mq *)carrier;
	struct mq_attr incoming, outgoing;

	if (mq_getattr(carrier->fds[0], &incoming) < 0 || mq_getattr(carrier->fds[1], &outgoing) < 0)
		return -errno;
	self->room_bytes = (size_t)incoming.mq_msgsize;
	self->room = calloc(1, self->room_bytes);
	if (!self->room)
		return -ENOMEM;
	carrier->limit_bytes = (size_t)outgoing.mq_msgsize;
	return 0;
}

static void posix_mq_close(struct carrier *carrier)
{
	free(((struct posix_mq *)carrier)->room);
}

static int posix_mq_send(struct carrier *carrier, void *message, size_t size)
{
	carrier->system_calls++;
	return mq_send(carrier->fds[1], message, size, 0) < 0 ? -errno : 0;
}

static ssize_t posix_mq_receive(struct carrier *carrier, void *room, size_t size, const void **message)
{
	struct posix_mq *self = (struct posix_mq *)carrier;
	ssize_t got;

	(void)room, (void)size;
	carrier->system_calls++;
	got = mq_receive(carrier->fds[0], self->room, self->room_bytes, NULL);
	*message = self->room;
	return got < 0 ? -errno : got;
}

const struct carrier_calls carrier_posix_mq = {
	.kind = "posix-mq",
	.state_bytes = sizeof(struct posix_mq),
	.fds = 2,
	.open = posix_mq_open,
	.close = posix_mq_close,
	.send = posix_mq_send,
	.receive = posix_mq_receive,
};

/* A System V message is a long, its type, and the text right behind it: the type goes into the margin. */
_Static_assert(sizeof(long) <= CARRIER_MARGIN, "the type must fit before the message");

struct sysv_mq {
	struct carrier base;
	int id;
	long send_type, receive_type;
};

static int sysv_mq_open(struct carrier *carrier)
{
	struct sysv_mq *self = (struct sysv_mq *)carrier;
	int64_t id, send_type, receive_type;
	struct msqid_ds about;
	struct msginfo limits;

	if (carrier_number(carrier, "id", &id) < 0 || carrier_number(carrier, "send_type", &send_type) < 0 ||
	    carrier_number(carrier, "receive_type", &receive_type) < 0 || send_type < 1)
		return -EINVAL;
	self->id = (int)id;
	self->send_type = (long)send_type;
	self->receive_type = (long)receive_type;
	if (msgctl(self->id, IPC_STAT, &about) < 0 || msgctl(0, IPC_INFO, (struct msqid_ds *)&limits) < 0)
		return -errno;
	carrier->limit_bytes = about.msg_qbytes < (size_t)limits.msgmax ? about.msg_qbytes : (size_t)limits.msgmax;
	return 0;
}

static int sysv_mq_send(struct carrier *carrier, void *message, size_t size)
{
	struct sysv_mq *self = (struct sysv_mq *)carrier;
	void *typed = (char *)message - sizeof(long);

	memcpy(typed, &self->send_type, sizeof(long));
	carrier->system_calls++;
	return msgsnd(self->id, typed, size, carrier->hurry ? IPC_NOWAIT : 0) < 0 ? -errno : 0;
}

static ssize_t sysv_mq_receive(struct carrier *carrier, void *room, size_t size, const void **message)
{
	struct sysv_mq *self = (struct sysv_mq *)carrier;
	ssize_t got;

	carrier->system_calls++;
	got = msgrcv(self->id, (char *)room - sizeof(long), size + CARRIER_MARGIN, self->receive_type,
		     carrier->hurry ? IPC_NOWAIT : 0);
	*message = room;
	if (got >= 0)
		return got;
	/* ENOMSG is this call's EAGAIN; E2BIG: a longer message than any of ours. */
	return errno == ENOMSG ? -EAGAIN : errno == E2BIG ? -EBADMSG : -errno;
}

const struct carrier_calls carrier_sysv_mq = {
	.kind = "sysv-mq",
	.state_bytes = sizeof(struct sysv_mq),
	.open = sysv_mq_open,
	.send = sysv_mq_send,
	.receive = sysv_mq_receive,
};
