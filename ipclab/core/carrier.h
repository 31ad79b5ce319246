/*
 * carrier.h: one way to move a message, whatever the mechanism, for loops that do nothing else.
 *
 * Vocabulary
 *   carrier      one process's side of a mechanism that Python has set up (an End, or a Bell): it borrows descriptors
 *                and memory, and owns what it makes for itself
 *   kind         how messages are moved: a table of calls (struct carrier_calls), one per family of mechanisms
 *   bell         a kind that carries no data, or a word at most: ping-pong is all one can play with it
 *
 *     kind           fds (incoming, outgoing)      memory           numbers, beside `watch`: a pidfd of the peer
 *     stream         two descriptors, or one twice                  -
 *     vmsplice       two pipes                                      -
 *     datagram       one socket                                     window_bytes: see below
 *     posix-mq       two queues                                     -
 *     sysv-mq        -                                              id, send_type, receive_type
 *     slots          -                             the segment      side 0 or 1, sent, received; in_place
 *     ring           the two rings' memfds                          spin_only, in_place
 *     fd-passing     one SEQPACKET socket                           -
 *     process-vm     offers in, answers in, offers out, answers out -
 *     signal         -                                              pid, signo
 *     rt-signal      -                                              pid, signo
 *     signalfd       the signalfd                                   pid, signo
 *     pidfd-signal   the peer's pidfd                               signo
 *     eventfd        two eventfds                                   -
 *     futex          -                             the words        in, out: offsets
 *     posix-sem      -                             "/in\0/out\0"    -
 *     unnamed-sem    -                             the semaphores   in, out: offsets
 *     sysv-sem       -                                              in, out: ids of sets of one
 *
 * The same work for all. A message is built in a buffer of the sender's (for vmsplice: in the pages that are spliced,
 * since not to copy them is all it is for) and ends in a buffer of the receiver's, where it is verified. Ring and slots
 * can be read where the message lies instead (in_place): one copy less than the rest have, and than Python's get_into.
 *
 * What is counted. system_calls: every call this file's family makes to move messages, EINTR included; not the loop's
 * own (timer, clock, looks at the peer). Where the kernel's part is inside libc's sem_t, a wait that had to sleep is one
 * call, and a post is one if glibc's count of sleepers says so just before it. sleeps: where user space decides to sleep
 * (ring, slots, futex, semaphores) it is counted here; where the kernel does, the loop asks it (getrusage(2), voluntary
 * context switches of the thread). wakes: calls made for nothing but to wake the other side.
 *
 * Interruption. Every call may return -EINTR with part of a message moved, and is then called again with the same
 * arguments: it goes on where it was. That is how loops see ticks (ticker.h) without asking for the time.
 *
 * Death. A kernel that knows says so (EPIPE, ECONNRESET, end-of-file: -EPIPE). Otherwise `watch` is looked at on ticks;
 * when that process has ended, carrier_hurry() makes all further calls return -EAGAIN instead of waiting: what the dead
 * had sent is still received, then comes -EAGAIN, which the loop reports as -EOWNERDEAD.
 *
 * Loss. UDP drops what finds no room. With window_bytes the receiver's buffer is that large, and in one-way loops the
 * receiver acknowledges each half of what fits in, so that never more is under way: what a program that needs all its
 * messages would have to do. It costs some of the speed; the alternative is to measure how fast messages are lost.
 */
#ifndef IPCLAB_CARRIER_H
#define IPCLAB_CARRIER_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CARRIER_FDS 4
/* A carrier may write into this much memory before a message it is given to send, or behind one it receives. */
#define CARRIER_MARGIN 64

struct carrier;

struct carrier_calls {
	const char *kind;
	size_t state_bytes; /* of the kind's struct, which begins with a struct carrier */
	int fds;            /* how many it needs */
	int is_bell;
	size_t word_bytes;   /* a bell's: how much of a message it carries */
	int counts_sleeps; /* else the kernel is asked */
	/* 0 or -errno. base.fds, memory and numbers are there; close is not called after a failure. */
	int (*open)(struct carrier *carrier);
	void (*close)(struct carrier *carrier);
	/* Where to build the next message of that size; NULL: in the loop's buffer. */
	void *(*stage)(struct carrier *carrier, size_t size);
	/* 0, or -errno. */
	int (*send)(struct carrier *carrier, void *message, size_t size);
	/* The message's size, *message is where it lies: in `room` or elsewhere, until release. */
	ssize_t (*receive)(struct carrier *carrier, void *room, size_t size, const void **message);
	void (*release)(struct carrier *carrier);
	/* Brings the counters up to date, where they are kept elsewhere. */
	void (*count)(struct carrier *carrier);
};

struct carrier_number {
	const char *name;
	int64_t value;
};

struct carrier_setup {
	const int *fds;
	int fd_count;
	void *memory; /* borrowed until carrier_close */
	size_t memory_bytes;
	const struct carrier_number *numbers;
	int number_count;
};

struct carrier {
	const struct carrier_calls *calls;
	int fds[CARRIER_FDS]; /* borrowed */
	unsigned char *memory;
	size_t memory_bytes;
	const struct carrier_setup *setup; /* only during open */
	size_t limit_bytes;                /* the largest message; SIZE_MAX: none */
	int watch;                         /* pidfd of the peer, borrowed; -1: not watched */
	int one_way;                       /* set by the loop: messages go one way, replies do not say that they came */
	int hurry;                         /* nothing waits any more */
	volatile sig_atomic_t *ticked;     /* of the running loop: who spins returns -EINTR when it is set */
	volatile sig_atomic_t never;       /* what it points to while no loop runs; stays 0 */
	uint64_t system_calls, sleeps, wakes;
};

/* -EINVAL: no such kind, a descriptor or a number is missing, memory that cannot be; else what the mechanism says. */
int carrier_open(struct carrier **carrier, const char *kind, const struct carrier_setup *setup);
void carrier_close(struct carrier *carrier); /* NULL is allowed */
void carrier_hurry(struct carrier *carrier);
/* Whether there is such a kind. */
int carrier_kind_exists(const char *kind);

/* --- for the kinds --- */

/* The number of that name; 0 or -EINVAL. */
int carrier_number(const struct carrier *carrier, const char *name, int64_t *value);
int64_t carrier_number_or(const struct carrier *carrier, const char *name, int64_t otherwise);
/* An object of `size` bytes in the memory, at the offset that the number of that name says; NULL: it cannot lie there. */
void *carrier_place(const struct carrier *carrier, const char *name, size_t size, size_t align);
/* Takes O_NONBLOCK away from, or gives it to, a descriptor. 0 or -errno. */
int carrier_set_waiting(int fd, int waits);

extern const struct carrier_calls carrier_stream, carrier_vmsplice, carrier_datagram, carrier_posix_mq, carrier_sysv_mq,
	carrier_slots, carrier_ring, carrier_fd_passing, carrier_process_vm, carrier_signal, carrier_rt_signal,
	carrier_signalfd, carrier_pidfd_signal, carrier_eventfd, carrier_futex, carrier_posix_sem, carrier_unnamed_sem,
	carrier_sysv_sem;

#endif
