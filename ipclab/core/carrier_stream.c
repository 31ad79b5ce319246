/* carrier_stream.c: byte streams (pipes, FIFOs, stream sockets), and the pipe whose pages are the sender's. */
#define _GNU_SOURCE
#include "carrier.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "message.h"
#include "sys.h"

struct stream {
	struct carrier base;
	size_t sent, got; /* of the message under way: a stream may take and give parts */
};

static int stream_send(struct carrier *carrier, void *message, size_t size)
{
	struct stream *stream = (struct stream *)carrier;
	ssize_t rc;

	do {
		carrier->system_calls++;
		rc = write(carrier->fds[1], (char *)message + stream->sent, size - stream->sent);
		if (rc < 0)
			return -errno;
		stream->sent += (size_t)rc;
	} while (stream->sent < size);
	stream->sent = 0;
	return 0;
}

static ssize_t stream_receive(struct carrier *carrier, void *room, size_t size, const void **message)
{
	struct stream *stream = (struct stream *)carrier;
	ssize_t rc;

	do {
		carrier->system_calls++;
		rc = read(carrier->fds[0], (char *)room + stream->got, size - stream->got);
		if (rc <= 0)
			return rc < 0 ? -errno : -EPIPE;
		stream->got += (size_t)rc;
	} while (stream->got < size);
	stream->got = 0;
	*message = room;
	return (ssize_t)size;
}

const struct carrier_calls carrier_stream = {
	.kind = "stream",
	.state_bytes = sizeof(struct stream),
	.fds = 2,
	.send = stream_send,
	.receive = stream_receive,
};

/*
 * vmsplice. What is in the pipe is the sender's page itself, so a page must not be written again before it was read,
 * and nothing says when it was. But the pipe has N slots, one page each, first in first out: when N further pages have
 * gone in, it has come out. So messages are built in K buffers in turn, of p pages each, with (K - 1) * p >= N.
 *
 *     | buffer 0: p pages | buffer 1 | ... | buffer K-1 |      all filled once; each is stamped when its turn comes
 */
struct vmsplice {
	struct stream stream; /* receiving is read(2); `sent` serves here too */
	size_t slots;         /* N */
	size_t page_bytes;
	size_t size;          /* the messages' for which the buffers are laid out; 0: none are */
	size_t buffers;       /* K */
	size_t buffer_bytes;  /* p pages */
	size_t next;
	unsigned char *pages;
};

static int vmsplice_open(struct carrier *carrier)
{
	struct vmsplice *self = (struct vmsplice *)carrier;
	int capacity = fcntl(carrier->fds[1], F_GETPIPE_SZ);

	if (capacity < 0)
		return -errno;
	self->page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	self->slots = (size_t)capacity / self->page_bytes;
	return 0;
}

/* Pages that are still in the pipe stay whole: the kernel holds them. */
static void drop_pages(struct vmsplice *self)
{
	if (self->pages)
		munmap(self->pages, self->buffers * self->buffer_bytes);
	self->pages = NULL;
	self->size = 0;
}

static int lay_out(struct vmsplice *self, size_t size)
{
	size_t pages = (size + self->page_bytes - 1) / self->page_bytes;

	drop_pages(self);
	self->buffers = 1 + (self->slots + pages - 1) / pages;
	self->buffer_bytes = pages * self->page_bytes;
	self->pages = mmap(NULL, self->buffers * self->buffer_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (self->pages == MAP_FAILED) {
		self->pages = NULL;
		return -ENOMEM;
	}
	message_fill(self->pages, size);
	for (size_t i = 1; i < self->buffers; i++)
		memcpy(self->pages + i * self->buffer_bytes, self->pages, size);
	self->size = size;
	self->next = 0;
	return 0;
}

static void *vmsplice_stage(struct carrier *carrier, size_t size)
{
	struct vmsplice *self = (struct vmsplice *)carrier;

	if (self->size != size && lay_out(self, size) < 0)
		return NULL;
	return self->pages + self->next * self->buffer_bytes;
}

static int vmsplice_send(struct carrier *carrier, void *message, size_t size)
{
	struct vmsplice *self = (struct vmsplice *)carrier;
	size_t *sent = &self->stream.sent;
	ssize_t rc;

	do {
		carrier->system_calls++;
		rc = sys_vmsplice(carrier->fds[1], (char *)message + *sent, size - *sent, 0);
		if (rc < 0)
			return (int)rc;
		*sent += (size_t)rc;
	} while (*sent < size);
	*sent = 0;
	self->next = (self->next + 1) % self->buffers;
	return 0;
}

static void vmsplice_close(struct carrier *carrier)
{
	drop_pages((struct vmsplice *)carrier);
}

const struct carrier_calls carrier_vmsplice = {
	.kind = "vmsplice",
	.state_bytes = sizeof(struct vmsplice),
	.fds = 2,
	.open = vmsplice_open,
	.close = vmsplice_close,
	.stage = vmsplice_stage,
	.send = vmsplice_send,
	.receive = stream_receive,
};
