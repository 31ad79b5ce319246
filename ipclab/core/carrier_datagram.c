/* carrier_datagram.c: one call, one message: Unix datagrams and seqpackets, UDP; see "Loss" in carrier.h. */
#define _GNU_SOURCE
#include "carrier.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* What the kernel may charge the receiver's buffer for a datagram beyond its bytes; chosen, well above what 6.x does. */
#define OVERHEAD_BYTES 2048
#define ACK_MAGIC UINT64_C(0x6b63412062616c63) /* "clab Ack" */

struct ack {
	uint64_t magic;
	uint64_t received; /* messages of its direction in all */
};

struct datagram {
	struct carrier base;
	int64_t window_bytes; /* 0: the kernel drops nothing */
	/* messages in all; one direction's `acked` follows the other side's `received` */
	uint64_t sent, acked, received, told;
	int refusal; /* the error that said the peer is gone: it overtakes what is still to be received */
};

static int datagram_open(struct carrier *carrier)
{
	((struct datagram *)carrier)->window_bytes = carrier_number_or(carrier, "window_bytes", 0);
	return 0;
}

static uint64_t window_of(const struct datagram *self, size_t size)
{
	/* Of what has been read the kernel may go on charging a quarter of the buffer (forward_threshold in net/ipv4/udp.c). */
	uint64_t fit = (uint64_t)self->window_bytes * 3 / 4 / (2 * size + OVERHEAD_BYTES);

	return fit ? fit : 1;
}

/* Whether what came is an acknowledgement; it is then noted. */
static int take_ack(struct datagram *self, const void *came, ssize_t size)
{
	struct ack ack;

	if (!self->window_bytes || size != sizeof ack)
		return 0;
	memcpy(&ack, came, sizeof ack);
	if (ack.magic != ACK_MAGIC)
		return 0;
	if (ack.received > self->acked)
		self->acked = ack.received;
	return 1;
}

static int await_acks(struct datagram *self, size_t size)
{
	uint64_t window = window_of(self, size);
	struct ack ack;
	ssize_t rc;

	while (self->sent - self->acked >= window) {
		self->base.system_calls++;
		rc = recv(self->base.fds[0], &ack, sizeof ack, 0);
		if (rc < 0)
			return -errno;
		if (!take_ack(self, &ack, rc))
			return -EPROTO;
	}
	return 0;
}

static int tell(struct datagram *self, size_t size)
{
	struct ack ack = {.magic = ACK_MAGIC, .received = self->received};
	uint64_t half = window_of(self, size) / 2;

	if (self->received - self->told < (half ? half : 1))
		return 0;
	self->base.system_calls++;
	if (send(self->base.fds[0], &ack, sizeof ack, MSG_NOSIGNAL) < 0)
		return errno == ECONNREFUSED ? 0 : -errno; /* a sender that has finished waits for none */
	self->told = self->received;
	return 0;
}

static int datagram_send(struct carrier *carrier, void *message, size_t size)
{
	struct datagram *self = (struct datagram *)carrier;
	int rc;

	if (self->window_bytes && carrier->one_way && (rc = await_acks(self, size)) < 0)
		return rc;
	carrier->system_calls++;
	if (send(carrier->fds[0], message, size, MSG_NOSIGNAL) < 0)
		return -errno;
	self->sent++;
	return 0;
}

/* The next datagram, acknowledgements left out. */
static ssize_t next_datagram(struct datagram *self, void *room, size_t size)
{
	struct carrier *carrier = &self->base;
	ssize_t got;

	for (;;) {
		carrier->system_calls++;
		got = recv(carrier->fds[0], room, size + CARRIER_MARGIN, self->refusal ? MSG_DONTWAIT : 0);
		if (got >= 0) {
			if (!take_ack(self, room, got))
				return got;
		} else if (self->refusal && errno == EAGAIN) {
			return -self->refusal;
		} else if (!self->refusal && (errno == ECONNRESET || errno == ECONNREFUSED)) {
			self->refusal = errno; /* told once; what came before it is still there */
		} else {
			return -errno;
		}
	}
}

static ssize_t datagram_receive(struct carrier *carrier, void *room, size_t size, const void **message)
{
	struct datagram *self = (struct datagram *)carrier;
	ssize_t got = next_datagram(self, room, size);
	int rc;

	if (got <= 0)
		return got < 0 ? got : -EPIPE; /* our messages are never empty */
	self->received++;
	*message = room;
	if (!self->window_bytes)
		return got;
	if (!carrier->one_way) { /* a reply says that all before it came */
		self->acked = self->sent;
		self->told = self->received;
		return got;
	}
	rc = tell(self, size);
	return rc < 0 && rc != -EINTR ? rc : got;
}

const struct carrier_calls carrier_datagram = {
	.kind = "datagram",
	.state_bytes = sizeof(struct datagram),
	.fds = 1,
	.open = datagram_open,
	.send = datagram_send,
	.receive = datagram_receive,
};
