/*
 * links.h: every kind of carrier set up between two processes, as Python's links would do it, for the tests.
 *
 * A link is made before the fork; setup[0] is the parent's side, setup[1] the child's. Descriptors stay open on both
 * sides: tests of closing make their own.
 */
#ifndef IPCLAB_TEST_LINKS_H
#define IPCLAB_TEST_LINKS_H

#include <fcntl.h>
#include <mqueue.h>
#include <semaphore.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/syscall.h>

#include "core/carrier.h"
#include "core/ring.h"
#include "test.h"

#define LINK_NUMBERS 8
#define LINK_SLOT_BYTES 70000
#define LINK_SLOTS 4

struct link {
	const char *kind;
	struct carrier_setup setup[2];
	int fds[2][CARRIER_FDS];
	struct carrier_number numbers[2][LINK_NUMBERS];
	char names[2][64];
	int id[2];        /* System V objects, -1 */
	void *memory;
	size_t memory_bytes;
	struct ring rings[2];
	int has_rings;
	int meet[2][2];   /* signals: each side tells its pid through it */
	pid_t parent;
};

static inline void link_number(struct link *link, int side, const char *name, int64_t value)
{
	CHECK(link->setup[side].number_count < LINK_NUMBERS);
	link->numbers[side][link->setup[side].number_count++] = (struct carrier_number){name, value};
}

static inline void link_fds(struct link *link, int side, int count, const int *fds)
{
	memcpy(link->fds[side], fds, (size_t)count * sizeof *fds);
	link->setup[side].fd_count = count;
}

static inline void link_pipes(struct link *link)
{
	int there[2], back[2];

	CHECK(pipe(there) == 0 && pipe(back) == 0);
	link_fds(link, 0, 2, (int[]){back[0], there[1]});
	link_fds(link, 1, 2, (int[]){there[0], back[1]});
}

static inline void link_four_pipes(struct link *link)
{
	int offers[2][2], answers[2][2];

	for (int i = 0; i < 2; i++)
		CHECK(pipe(offers[i]) == 0 && pipe(answers[i]) == 0);
	/* offers[0] and answers[1] lead from side 0 to side 1 */
	link_fds(link, 0, 4, (int[]){offers[1][0], answers[0][0], offers[0][1], answers[1][1]});
	link_fds(link, 1, 4, (int[]){offers[0][0], answers[1][0], offers[1][1], answers[0][1]});
}

static inline void link_sockets(struct link *link, int type, int twice)
{
	int pair[2];

	CHECK(socketpair(AF_UNIX, type, 0, pair) == 0);
	for (int side = 0; side < 2; side++)
		link_fds(link, side, twice ? 2 : 1, (int[]){pair[side], pair[side]});
}

/* 0, or SKIP where there are no POSIX queues. */
static inline int link_queues(struct link *link)
{
	struct mq_attr attr = {.mq_maxmsg = 4, .mq_msgsize = 8192};
	char name[64];
	int queue[2];

	for (int i = 0; i < 2; i++) {
		snprintf(name, sizeof name, "/ipclab-test-%d-%d", getpid(), i);
		queue[i] = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
		if (queue[i] < 0)
			return SKIP;
		mq_unlink(name);
	}
	link_fds(link, 0, 2, (int[]){queue[1], queue[0]});
	link_fds(link, 1, 2, (int[]){queue[0], queue[1]});
	return 0;
}

static inline void *link_memory(struct link *link, size_t bytes)
{
	link->memory_bytes = bytes;
	link->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(link->memory != MAP_FAILED);
	for (int side = 0; side < 2; side++) {
		link->setup[side].memory = link->memory;
		link->setup[side].memory_bytes = bytes;
	}
	return link->memory;
}

static inline void link_slots(struct link *link)
{
	size_t stride = 64 + (LINK_SLOT_BYTES + 63) / 64 * 64, block = 256 + LINK_SLOTS * stride;
	unsigned char *memory = link_memory(link, 64 + 2 * block);

	memcpy(memory, (uint64_t[2]){LINK_SLOT_BYTES, LINK_SLOTS}, 16);
	for (int side = 0; side < 2; side++) {
		unsigned char *at = memory + 64 + (size_t)side * block;

		CHECK(sem_init((sem_t *)(void *)at, 1, 0) == 0 && sem_init((sem_t *)(void *)(at + 64), 1, LINK_SLOTS) == 0);
		memset(at + 128, 0xff, 8);
		link_number(link, side, "side", side);
	}
}

static inline void link_rings(struct link *link)
{
	for (int i = 0; i < 2; i++)
		CHECK_EQ(ring_create(&link->rings[i], NULL, 100000), 0);
	link->has_rings = 1;
	for (int side = 0; side < 2; side++)
		link_fds(link, side, 2, (int[]){link->rings[1 - side].segment.fd, link->rings[side].segment.fd});
}

static inline void link_words(struct link *link, int semaphores)
{
	unsigned char *memory = link_memory(link, 4096);

	for (int side = 0; side < 2; side++) {
		if (semaphores)
			CHECK(sem_init((sem_t *)(void *)(memory + 64 * side), 1, 0) == 0);
		link_number(link, side, "in", 64 * side);
		link_number(link, side, "out", 64 * (1 - side));
	}
}

static inline void link_named_semaphores(struct link *link)
{
	char name[2][24];

	for (int i = 0; i < 2; i++) {
		snprintf(name[i], sizeof name[i], "/ipclab-test-%d-%d", getpid() % 100000, i);
		snprintf(link->names[i], sizeof link->names[i], "%s", name[i]);
		CHECK(sem_open(name[i], O_CREAT | O_EXCL, 0600, 0) != SEM_FAILED);
	}
	for (int side = 0; side < 2; side++) {
		char *both = malloc(sizeof name);
		int length = snprintf(both, sizeof name, "%s%c%s", name[side], 0, name[1 - side]);

		link->setup[side].memory = both;
		link->setup[side].memory_bytes = (size_t)length + 1;
	}
}

static inline int link_sysv(struct link *link, int queue)
{
	for (int i = 0; i < (queue ? 1 : 2); i++) {
		link->id[i] = queue ? msgget(IPC_PRIVATE, 0600) : semget(IPC_PRIVATE, 1, 0600);
		if (link->id[i] < 0)
			return SKIP;
	}
	for (int side = 0; side < 2; side++) {
		if (queue) {
			link_number(link, side, "id", link->id[0]);
			link_number(link, side, "send_type", 1 + side);
			link_number(link, side, "receive_type", 2 - side);
		} else {
			link_number(link, side, "in", link->id[side]);
			link_number(link, side, "out", link->id[1 - side]);
		}
	}
	return 0;
}

static inline void link_eventfds(struct link *link)
{
	int fd[2] = {eventfd(0, EFD_NONBLOCK), eventfd(0, EFD_NONBLOCK)}; /* the carrier takes O_NONBLOCK away */

	CHECK(fd[0] >= 0 && fd[1] >= 0);
	link_fds(link, 0, 2, (int[]){fd[0], fd[1]});
	link_fds(link, 1, 2, (int[]){fd[1], fd[0]});
}

/* Of every kind that can be made here; 0 or SKIP. `what` tells two of one kind apart. */
static inline int link_make(struct link *link, const char *what)
{
	memset(link, 0, sizeof *link);
	link->id[0] = link->id[1] = -1;
	link->kind = what;
	link->parent = getpid();
	for (int side = 0; side < 2; side++) {
		link->setup[side].fds = link->fds[side];
		link->setup[side].numbers = link->numbers[side];
	}
	if (strcmp(what, "stream") == 0 || strcmp(what, "vmsplice") == 0)
		link_pipes(link);
	else if (strcmp(what, "stream socket") == 0)
		link_sockets(link, SOCK_STREAM, 1), link->kind = "stream";
	else if (strcmp(what, "datagram") == 0)
		link_sockets(link, SOCK_DGRAM, 0);
	else if (strcmp(what, "seqpacket") == 0)
		link_sockets(link, SOCK_SEQPACKET, 0), link->kind = "datagram";
	else if (strcmp(what, "window") == 0) {
		link_sockets(link, SOCK_DGRAM, 0), link->kind = "datagram";
		for (int side = 0; side < 2; side++)
			link_number(link, side, "window_bytes", 200000);
	} else if (strcmp(what, "fd-passing") == 0)
		link_sockets(link, SOCK_SEQPACKET, 0);
	else if (strcmp(what, "process-vm") == 0)
		link_four_pipes(link);
	else if (strcmp(what, "posix-mq") == 0)
		return link_queues(link);
	else if (strcmp(what, "sysv-mq") == 0)
		return link_sysv(link, 1);
	else if (strcmp(what, "slots") == 0 || strcmp(what, "slots in place") == 0)
		link_slots(link);
	else if (strncmp(what, "ring", 4) == 0)
		link_rings(link), link->kind = "ring";
	else if (strcmp(what, "eventfd") == 0)
		link_eventfds(link);
	else if (strcmp(what, "futex") == 0)
		link_words(link, 0);
	else if (strcmp(what, "unnamed-sem") == 0)
		link_words(link, 1);
	else if (strcmp(what, "posix-sem") == 0)
		link_named_semaphores(link);
	else if (strcmp(what, "sysv-sem") == 0)
		return link_sysv(link, 0);
	else
		CHECK(pipe(link->meet[0]) == 0 && pipe(link->meet[1]) == 0); /* signals: see link_take */
	if (strstr(what, " in place")) {
		link->kind = link->has_rings ? "ring" : "slots";
		for (int side = 0; side < 2; side++)
			link_number(link, side, "in_place", 1);
	}
	if (strstr(what, " spinning")) {
		for (int side = 0; side < 2; side++)
			link_number(link, side, "spin_only", 1);
	}
	return 0;
}

/* Signals: block, then tell and hear the pids. */
static inline void link_meet(struct link *link, int side)
{
	int signo = strcmp(link->kind, "signal") == 0 ? SIGUSR1 : SIGRTMIN;
	pid_t mine = getpid(), theirs;
	sigset_t set;
	int fd = -1;

	sigemptyset(&set);
	sigaddset(&set, signo);
	CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	CHECK(write(link->meet[side][1], &mine, sizeof mine) == sizeof mine);
	CHECK(read(link->meet[1 - side][0], &theirs, sizeof theirs) == sizeof theirs);
	if (strcmp(link->kind, "signalfd") == 0)
		fd = signalfd(-1, &set, SFD_NONBLOCK);
	if (strcmp(link->kind, "pidfd-signal") == 0)
		fd = (int)syscall(SYS_pidfd_open, theirs, 0);
	if (fd >= 0)
		link_fds(link, side, 1, &fd);
	link_number(link, side, "pid", theirs);
	link_number(link, side, "signo", signo);
}

/* This process's carrier; watch: a pidfd, or -1. */
static inline struct carrier *link_take(struct link *link, int side, int watch)
{
	struct carrier *carrier;

	if (link->meet[0][0])
		link_meet(link, side);
	if (watch >= 0)
		link_number(link, side, "watch", watch);
	CHECK_EQ(carrier_open(&carrier, link->kind, &link->setup[side]), 0);
	return carrier;
}

static inline void link_drop(struct link *link)
{
	for (int side = 0; side < 2; side++)
		for (int i = 0; i < link->setup[side].fd_count; i++)
			if (!link->has_rings)
				close(link->fds[side][i]); /* twice, where both have the same: it does no harm here */
	if (link->has_rings)
		for (int i = 0; i < 2; i++)
			ring_close(&link->rings[i]);
	if (link->memory)
		munmap(link->memory, link->memory_bytes);
	for (int i = 0; i < 2; i++) {
		if (link->names[i][0]) {
			sem_unlink(link->names[i]);
			free(link->setup[i].memory);
		}
		if (link->id[i] >= 0 && strcmp(link->kind, "sysv-mq") == 0)
			msgctl(link->id[i], IPC_RMID, NULL);
		else if (link->id[i] >= 0)
			semctl(link->id[i], 0, IPC_RMID);
		for (int end = 0; end < 2 && link->meet[0][0]; end++)
			close(link->meet[i][end]);
	}
}

static const char *const all_links[] = {
	"stream",   "stream socket", "vmsplice",       "datagram", "seqpacket",     "window", "posix-mq", "sysv-mq",
	"slots",    "slots in place", "ring",          "ring in place", "ring spinning", "fd-passing", "process-vm", NULL,
};
static const char *const all_bells[] = {
	"signal", "rt-signal", "signalfd", "pidfd-signal", "eventfd", "futex", "posix-sem", "unnamed-sem", "sysv-sem", NULL,
};

#endif
