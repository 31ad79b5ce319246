/*
 * carrier_rights.c: the message stays where it is, and the right to read it travels: a descriptor of a sealed memfd
 * over a Unix socket (fd-passing), or an address in the sender's memory (process-vm). As mechanisms/data/fd_passing.py
 * and process_vm.py do it, whose texts explain both.
 */
#define _GNU_SOURCE
#include "carrier.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys.h"

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

struct fd_passing {
	struct carrier base;
	int outgoing; /* a memfd that has not been sent yet; -1 */
};

union control {
	struct cmsghdr header; /* for its alignment */
	char bytes[CMSG_SPACE(sizeof(int))];
};

static int fd_passing_open(struct carrier *carrier)
{
	((struct fd_passing *)carrier)->outgoing = -1;
	return 0;
}

static void fd_passing_close(struct carrier *carrier)
{
	struct fd_passing *self = (struct fd_passing *)carrier;

	if (self->outgoing >= 0)
		close(self->outgoing);
}

/* A memfd with these bytes, sealed; or -errno. A memfd's write is not interrupted, but may be short beyond 2 GiB. */
static int sealed_memfd(struct carrier *carrier, const void *message, size_t size)
{
	size_t done = 0;
	ssize_t rc = 0;
	int fd = memfd_create("ipclab-message", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	carrier->system_calls++;
	if (fd < 0)
		return -errno;
	for (; done < size && rc >= 0; done += (size_t)rc) {
		carrier->system_calls++;
		rc = write(fd, (const char *)message + done, size - done);
		if (rc < 0)
			break;
	}
	carrier->system_calls++;
	if (rc >= 0 && fcntl(fd, F_ADD_SEALS, SEALS) == 0)
		return fd;
	rc = -errno;
	close(fd);
	return (int)rc;
}

static int send_fd(struct carrier *carrier, int fd)
{
	union control control;
	char text = 'm';
	struct iovec piece = {.iov_base = &text, .iov_len = 1};
	struct msghdr about = {
		.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
	struct cmsghdr *header;

	memset(&control, 0, sizeof control);
	header = CMSG_FIRSTHDR(&about);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(header), &fd, sizeof fd);
	carrier->system_calls++;
	return sendmsg(carrier->fds[0], &about, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int fd_passing_send(struct carrier *carrier, void *message, size_t size)
{
	struct fd_passing *self = (struct fd_passing *)carrier;
	int rc;

	if (self->outgoing < 0) {
		rc = sealed_memfd(carrier, message, size);
		if (rc < 0)
			return rc;
		self->outgoing = rc;
	}
	rc = send_fd(carrier, self->outgoing);
	if (rc == -EINTR)
		return rc;
	carrier->system_calls++;
	close(self->outgoing);
	self->outgoing = -1;
	return rc;
}

static int receive_fd(struct carrier *carrier)
{
	union control control;
	char text;
	struct iovec piece = {.iov_base = &text, .iov_len = 1};
	struct msghdr about = {
		.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
	struct cmsghdr *header;
	ssize_t got;
	int fd;

	carrier->system_calls++;
	got = recvmsg(carrier->fds[0], &about, MSG_CMSG_CLOEXEC);
	if (got <= 0)
		return got < 0 ? -errno : -EPIPE;
	header = CMSG_FIRSTHDR(&about);
	if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
	    header->cmsg_len != CMSG_LEN(sizeof fd))
		return about.msg_flags & MSG_CTRUNC ? -EMFILE : -EBADMSG;
	memcpy(&fd, CMSG_DATA(header), sizeof fd);
	return fd;
}

/* The file's length if nobody can change it any more and it fits. */
static ssize_t size_of(struct carrier *carrier, int fd, size_t most)
{
	struct stat about;
	int seals;

	carrier->system_calls += 2;
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &about) < 0 || (uint64_t)about.st_size > most)
		return -EBADMSG;
	return about.st_size;
}

static ssize_t fd_passing_receive(struct carrier *carrier, void *room, size_t size, const void **message)
{
	int fd = receive_fd(carrier);
	size_t done = 0;
	ssize_t length, rc = 1;

	if (fd < 0)
		return fd;
	length = size_of(carrier, fd, size + CARRIER_MARGIN);
	while (length > 0 && rc > 0 && done < (size_t)length) {
		carrier->system_calls++;
		rc = pread(fd, (char *)room + done, (size_t)length - done, (off_t)done);
		done += rc > 0 ? (size_t)rc : 0;
	}
	if (rc <= 0)
		length = rc < 0 ? -errno : -EBADMSG;
	carrier->system_calls++;
	close(fd);
	*message = room;
	return length;
}

const struct carrier_calls carrier_fd_passing = {
	.kind = "fd-passing",
	.state_bytes = sizeof(struct fd_passing),
	.fds = 1,
	.open = fd_passing_open,
	.close = fd_passing_close,
	.send = fd_passing_send,
	.receive = fd_passing_receive,
};

/* --- process-vm --- */

struct offer {
	int64_t pid;
	uint64_t address, size;
};

enum { OFFERS_IN, ANSWERS_IN, OFFERS_OUT, ANSWERS_OUT };

struct process_vm {
	struct carrier base;
	int offered; /* the offer is in the pipe, its answer not yet here */
	struct offer in_hand;
	int has_offer;
	uint64_t done; /* bytes copied of what is in hand */
};

/* Records are shorter than PIPE_BUF: written and read in one piece. */
static int put_record(struct carrier *carrier, int fd, const void *record, size_t size)
{
	carrier->system_calls++;
	return write(carrier->fds[fd], record, size) < 0 ? -errno : 0;
}

static int get_record(struct carrier *carrier, int fd, void *record, size_t size)
{
	ssize_t got;

	carrier->system_calls++;
	got = read(carrier->fds[fd], record, size);
	return got < 0 ? -errno : (size_t)got == size ? 0 : -EPIPE;
}

static int process_vm_send(struct carrier *carrier, void *message, size_t size)
{
	struct process_vm *self = (struct process_vm *)carrier;
	struct offer offer = {.pid = getpid(), .address = (uintptr_t)message, .size = size};
	int32_t answer;
	int rc;

	if (!self->offered) {
		rc = put_record(carrier, OFFERS_OUT, &offer, sizeof offer);
		if (rc < 0)
			return rc;
		self->offered = 1;
	}
	rc = get_record(carrier, ANSWERS_IN, &answer, sizeof answer);
	if (rc < 0)
		return rc;
	self->offered = 0;
	return answer ? -answer : 0;
}

static ssize_t copy_offered(struct process_vm *self, unsigned char *room)
{
	const struct offer *offer = &self->in_hand;
	ssize_t rc;

	while (self->done < offer->size) {
		self->base.system_calls++;
		rc = sys_process_vm_readv((pid_t)offer->pid, offer->address + self->done, room + self->done,
					  offer->size - self->done);
		if (rc <= 0)
			return rc < 0 ? rc : -EFAULT;
		self->done += (uint64_t)rc;
	}
	return 0;
}

static ssize_t process_vm_receive(struct carrier *carrier, void *room, size_t size, const void **message)
{
	struct process_vm *self = (struct process_vm *)carrier;
	int32_t answer;
	ssize_t rc;

	if (!self->has_offer) {
		rc = get_record(carrier, OFFERS_IN, &self->in_hand, sizeof self->in_hand);
		if (rc < 0)
			return rc;
		self->has_offer = 1;
		self->done = 0;
	}
	rc = self->in_hand.size > size + CARRIER_MARGIN ? -EMSGSIZE : copy_offered(self, room);
	if (rc == -EINTR)
		return rc;
	answer = (int32_t)-rc;
	self->has_offer = 0;
	*message = room;
	put_record(carrier, ANSWERS_OUT, &answer, sizeof answer); /* who has ended since needs none */
	if (rc == -ESRCH)
		return -EPIPE;
	return rc < 0 ? rc : (ssize_t)self->in_hand.size;
}

const struct carrier_calls carrier_process_vm = {
	.kind = "process-vm",
	.state_bytes = sizeof(struct process_vm),
	.fds = 4,
	.send = process_vm_send,
	.receive = process_vm_receive,
};
