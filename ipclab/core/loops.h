/*
 * loops.h: the loops that are measured, the same for every carrier.
 *
 *   one way         sender: stamp, send                          receiver: receive, verify
 *   ping-pong       ping: stamp, send, receive, verify           pong: receive, verify, stamp, send
 *   on a schedule   sender: wait until it is due, stamp, send    receiver: receive, verify, record since it was due
 *
 * What makes the figures honest
 *   - every message has its number, length and sum (message.h), and the receiver reads every byte of it
 *   - one way is timed by the receiver, from the first message it has verified to the last: count - 1 messages. What the
 *     sender has merely put into a buffer is not transferred
 *   - a reply is as large as what it replies to
 *   - on a schedule, latency counts from when a message was due, not from when it was sent: a receiver that stalls
 *     makes all that were due meanwhile late, as it would in earnest
 *   - time is CLOCK_MONOTONIC in whole nanoseconds, looked at once per recorded duration and not otherwise
 *
 * A warm-up is a loop of its own with smaller numbers; `first` says with which number a loop begins.
 *
 * A loop ends when it has moved `count` messages; at a message that is not what it had to be (bad_sequence is its
 * number; all before it were right); at the deadline (fewer messages, no bad one); or with an error. It returns -EINTR
 * when a signal came or a tick of ticker.h, for the caller to look at what it wants: called again, it goes on.
 */
#ifndef IPCLAB_LOOPS_H
#define IPCLAB_LOOPS_H

#include <stddef.h>
#include <stdint.h>

#include "carrier.h"
#include "histogram.h"
#include "ticker.h"

enum loop_pattern { LOOP_SEND, LOOP_RECEIVE, LOOP_PING, LOOP_PONG, LOOP_SEND_ON_SCHEDULE, LOOP_RECEIVE_ON_SCHEDULE };

struct loop {
	/* set by the caller before loop_open */
	struct carrier *carrier;
	enum loop_pattern pattern;
	size_t size;
	uint64_t count;
	uint64_t first;
	int64_t deadline_ns;         /* absolute; negative: none */
	struct histogram *histogram; /* NULL: nothing is recorded */
	int64_t start_ns, interval_ns; /* schedules: message i is due at start_ns + i * interval_ns */
	int64_t spin_ns;             /* the scheduled sender's last stretch before that, awake */
	/* results */
	uint64_t messages;     /* done */
	int64_t duration_ns;
	int64_t bad_sequence; /* -1: none */
	uint64_t system_calls, sleeps, wakes;
	/* private */
	int half;  /* ping: sent, no reply yet; pong: received, not replied yet */
	int began;
	int64_t began_ns;
	uint64_t before[3];
	unsigned char *outgoing, *incoming;
	void *allocated;
	struct ticker ticker;
};

/*
 * 0; -EINVAL a size or count of 0, or a pattern that a bell does not know; -EMSGSIZE; -ENOMEM; -EAGAIN no timer. The
 * three calls belong to one thread: it is the one that is ticked.
 */
int loop_open(struct loop *loop);
/* 0 ended, see `messages` and `bad_sequence`; -EINTR call again; else an error, after which only loop_close may follow. */
int loop_run(struct loop *loop);
void loop_close(struct loop *loop);

/* ns that message_check takes for one message of that size in the cache, times 1000; negative: -ENOMEM, -EINVAL. */
int64_t verification_cost_ps(size_t size);

#endif
