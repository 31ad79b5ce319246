/*
 * carrier_bell.c: what carries no data, or a word: one side rings, the other wakes up and rings back.
 *
 * Nobody rings twice before the other has answered, so nothing coalesces: a standard signal, an eventfd and a futex word
 * are as exact here as a queue. Where a word travels (queued signals) it is the sequence number and is verified as a
 * message of four bytes; an eventfd must hold exactly one ring, a futex word exactly one more than before; a semaphore
 * and a plain signal say no more than that somebody rang.
 */
#define _GNU_SOURCE
#include "carrier.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "futex.h"
#include "semaphore.h"
#include "sys.h"

#define WORD_BYTES 4

/* --- signals: the receiving side has blocked the signal, in all its threads, before the other one knows its pid --- */

struct signal_bell {
	struct carrier base;
	pid_t pid;
	int signo;
	sigset_t set;
};

static int signal_open(struct carrier *carrier)
{
	struct signal_bell *self = (struct signal_bell *)carrier;
	int64_t pid = carrier_number_or(carrier, "pid", 0), signo;

	if (carrier_number(carrier, "signo", &signo) < 0 || signo < 1 || signo > SIGRTMAX || signo == SIGURG)
		return -EINVAL; /* SIGURG is the ticker's */
	if (pid <= 0 && carrier->calls != &carrier_pidfd_signal)
		return -EINVAL;
	self->pid = (pid_t)pid;
	self->signo = (int)signo;
	sigemptyset(&self->set);
	return sigaddset(&self->set, self->signo) < 0 ? -errno : 0;
}

static int32_t word_of(const void *message)
{
	int32_t word;

	memcpy(&word, message, sizeof word);
	return word;
}

static int plain_send(struct carrier *carrier, void *message, size_t size)
{
	struct signal_bell *self = (struct signal_bell *)carrier;

	(void)message, (void)size;
	carrier->system_calls++;
	return kill(self->pid, self->signo) < 0 ? -errno : 0;
}

static int queued_send(struct carrier *carrier, void *message, size_t size)
{
	struct signal_bell *self = (struct signal_bell *)carrier;

	(void)size;
	carrier->system_calls++;
	return sys_sigqueue(self->pid, self->signo, word_of(message));
}

static int pidfd_send(struct carrier *carrier, void *message, size_t size)
{
	struct signal_bell *self = (struct signal_bell *)carrier;

	(void)size;
	carrier->system_calls++;
	return sys_pidfd_send_signal(carrier->fds[0], self->signo, 1, word_of(message));
}

static ssize_t signal_receive(struct carrier *carrier, void *room, size_t size, const void **message)
{
	struct signal_bell *self = (struct signal_bell *)carrier;
	siginfo_t info;
	int rc;

	carrier->system_calls++;
	rc = sys_sigwait(&self->set, carrier->hurry ? 0 : -1, &info);
	if (rc < 0)
		return rc;
	if (size)
		memcpy(room, &info.si_value.sival_int, WORD_BYTES);
	*message = room;
	return (ssize_t)size;
}

static ssize_t signalfd_receive(struct carrier *carrier, void *room, size_t size, const void **message)
{
	struct signalfd_siginfo info;
	ssize_t got;

	carrier->system_calls++;
	got = read(carrier->fds[0], &info, sizeof info);
	if (got != sizeof info)
		return got < 0 ? -errno : -EBADMSG;
	memcpy(room, &info.ssi_int, WORD_BYTES);
	*message = room;
	return (ssize_t)size;
}

#define SIGNAL_BELL(name_, fds_, word_, send_, receive_)                                                         \
	{                                                                                                            \
		.kind = name_, .state_bytes = sizeof(struct signal_bell), .fds = fds_, .is_bell = 1, .word_bytes = word_, \
		.open = signal_open, .send = send_, .receive = receive_,                                                 \
	}

const struct carrier_calls carrier_signal = SIGNAL_BELL("signal", 0, 0, plain_send, signal_receive);
const struct carrier_calls carrier_rt_signal = SIGNAL_BELL("rt-signal", 0, WORD_BYTES, queued_send, signal_receive);
const struct carrier_calls carrier_signalfd = SIGNAL_BELL("signalfd", 1, WORD_BYTES, queued_send, signalfd_receive);
const struct carrier_calls carrier_pidfd_signal = SIGNAL_BELL("pidfd-signal", 1, WORD_BYTES, pidfd_send, signal_receive);

/* --- eventfd --- */

static int eventfd_send(struct carrier *carrier, void *message, size_t size)
{
	const uint64_t one = 1;

	(void)message, (void)size;
	carrier->system_calls++;
	return write(carrier->fds[1], &one, sizeof one) < 0 ? -errno : 0;
}

static ssize_t eventfd_receive(struct carrier *carrier, void *room, size_t size, const void **message)
{
	uint64_t count = 0;

	carrier->system_calls++;
	if (read(carrier->fds[0], &count, sizeof count) < 0)
		return -errno;
	*message = room;
	return count == 1 ? (ssize_t)size : -EBADMSG;
}

const struct carrier_calls carrier_eventfd = {
	.kind = "eventfd",
	.state_bytes = sizeof(struct carrier),
	.fds = 2,
	.is_bell = 1,
	.send = eventfd_send,
	.receive = eventfd_receive,
};

/* --- futex: a word for each direction that counts its rings; every wait sleeps, every ring wakes --- */

struct futex_bell {
	struct carrier base;
	_Atomic uint32_t *in, *out;
	uint32_t heard; /* rings taken from `in` */
};

static int futex_open(struct carrier *carrier)
{
	struct futex_bell *self = (struct futex_bell *)carrier;

	self->in = carrier_place(carrier, "in", sizeof *self->in, sizeof *self->in);
	self->out = carrier_place(carrier, "out", sizeof *self->out, sizeof *self->out);
	self->heard = (uint32_t)carrier_number_or(carrier, "heard", 0);
	return self->in && self->out ? 0 : -EINVAL;
}

static int futex_send(struct carrier *carrier, void *message, size_t size)
{
	struct futex_bell *self = (struct futex_bell *)carrier;
	int rc;

	(void)message, (void)size;
	add_seq_cst(self->out, 1); /* this side alone writes it */
	carrier->system_calls++;
	rc = futex_wake(self->out, 1);
	carrier->wakes++;
	return rc < 0 ? rc : 0;
}

static ssize_t futex_receive(struct carrier *carrier, void *room, size_t size, const void **message)
{
	struct futex_bell *self = (struct futex_bell *)carrier;
	uint32_t now;
	int rc;

	while ((now = load_seq_cst(self->in)) == self->heard) {
		if (carrier->hurry)
			return -EAGAIN;
		carrier->system_calls++;
		rc = futex_wait_until(self->in, self->heard, NO_DEADLINE);
		carrier->sleeps += rc == 0;
		if (rc < 0 && rc != -EAGAIN)
			return rc;
	}
	*message = room;
	return now == ++self->heard ? (ssize_t)size : -EBADMSG;
}

const struct carrier_calls carrier_futex = {
	.kind = "futex",
	.state_bytes = sizeof(struct futex_bell),
	.is_bell = 1,
	.counts_sleeps = 1,
	.open = futex_open,
	.send = futex_send,
	.receive = futex_receive,
};

/* --- semaphores: one for each direction --- */

struct semaphore_bell {
	struct carrier base;
	sem_t *in, *out;
};

static int semaphore_send(struct carrier *carrier, void *message, size_t size)
{
	(void)message, (void)size;
	return semaphore_give(carrier, ((struct semaphore_bell *)carrier)->out);
}

static ssize_t semaphore_receive(struct carrier *carrier, void *room, size_t size, const void **message)
{
	int rc = semaphore_take(carrier, ((struct semaphore_bell *)carrier)->in);

	*message = room;
	return rc < 0 ? rc : (ssize_t)size;
}

/* The names lie in the memory, one after the other, each with its NUL. */
static int posix_sem_open(struct carrier *carrier)
{
	struct semaphore_bell *self = (struct semaphore_bell *)carrier;
	const char *names = (const char *)carrier->memory;
	size_t length = carrier->memory ? strnlen(names, carrier->memory_bytes) : 0;

	if (!length || length + 1 >= carrier->memory_bytes || carrier->memory[carrier->memory_bytes - 1])
		return -EINVAL;
	self->in = sem_open(names, 0);
	if (self->in == SEM_FAILED)
		return -errno;
	self->out = sem_open(names + length + 1, 0);
	if (self->out == SEM_FAILED) {
		int rc = -errno;

		sem_close(self->in);
		return rc;
	}
	return 0;
}

static void posix_sem_close(struct carrier *carrier)
{
	struct semaphore_bell *self = (struct semaphore_bell *)carrier;

	sem_close(self->in);
	sem_close(self->out);
}

static int unnamed_sem_open(struct carrier *carrier)
{
	struct semaphore_bell *self = (struct semaphore_bell *)carrier;

	self->in = carrier_place(carrier, "in", sizeof *self->in, _Alignof(sem_t));
	self->out = carrier_place(carrier, "out", sizeof *self->out, _Alignof(sem_t));
	return self->in && self->out ? 0 : -EINVAL;
}

#define SEMAPHORE_BELL(name_, open_, close_)                                                                \
	{                                                                                                       \
		.kind = name_, .state_bytes = sizeof(struct semaphore_bell), .is_bell = 1, .counts_sleeps = 1,      \
		.open = open_, .close = close_, .send = semaphore_send, .receive = semaphore_receive,               \
	}

const struct carrier_calls carrier_posix_sem = SEMAPHORE_BELL("posix-sem", posix_sem_open, posix_sem_close);
const struct carrier_calls carrier_unnamed_sem = SEMAPHORE_BELL("unnamed-sem", unnamed_sem_open, NULL);

struct sysv_sem {
	struct carrier base;
	int in, out;
};

static int sysv_sem_open(struct carrier *carrier)
{
	struct sysv_sem *self = (struct sysv_sem *)carrier;
	int64_t in, out;

	if (carrier_number(carrier, "in", &in) < 0 || carrier_number(carrier, "out", &out) < 0)
		return -EINVAL;
	self->in = (int)in;
	self->out = (int)out;
	return 0;
}

static int operate(struct carrier *carrier, int id, int delta)
{
	struct sembuf operation = {.sem_num = 0, .sem_op = (short)delta, .sem_flg = carrier->hurry ? IPC_NOWAIT : 0};

	carrier->system_calls++;
	return semop(id, &operation, 1) < 0 ? -errno : 0;
}

static int sysv_sem_send(struct carrier *carrier, void *message, size_t size)
{
	(void)message, (void)size;
	return operate(carrier, ((struct sysv_sem *)carrier)->out, 1);
}

static ssize_t sysv_sem_receive(struct carrier *carrier, void *room, size_t size, const void **message)
{
	int rc = operate(carrier, ((struct sysv_sem *)carrier)->in, -1);

	*message = room;
	return rc < 0 ? rc : (ssize_t)size;
}

const struct carrier_calls carrier_sysv_sem = {
	.kind = "sysv-sem",
	.state_bytes = sizeof(struct sysv_sem),
	.is_bell = 1,
	.open = sysv_sem_open,
	.send = sysv_sem_send,
	.receive = sysv_sem_receive,
};
