/*
 * The loops over every carrier between two processes; planted faults, named by their number; deadlines; kills.
 */
#define _GNU_SOURCE
#include "core/loops.h"

#include "core/message.h"
#include "links.h"
#include "test.h"

#define COUNT 2000

static struct loop loop_of(struct carrier *carrier, enum loop_pattern pattern, size_t size, uint64_t count)
{
	return (struct loop){.carrier = carrier, .pattern = pattern, .size = size, .count = count, .deadline_ns = SECONDS(60)};
}

/* Runs to the end; loop's results stay. */
static int run(struct loop *loop)
{
	int rc = loop_open(loop);

	CHECK_EQ(rc, 0);
	while ((rc = loop_run(loop)) == -EINTR)
		;
	loop_close(loop);
	return rc;
}

static void check_all(struct loop *loop)
{
	CHECK_EQ(run(loop), 0);
	CHECK_EQ(loop->bad_sequence, -1);
	CHECK_EQ(loop->messages, loop->count);
	CHECK(loop->duration_ns >= 0);
}

/* --- between two processes --- */

struct task {
	struct link link;
	enum loop_pattern pattern;
	size_t size;
	uint64_t count;
	int64_t start_ns, interval_ns;
};

static void play(void *argument)
{
	struct task *task = argument;
	struct carrier *carrier = link_take(&task->link, 1, -1);
	struct loop loop = loop_of(carrier, task->pattern, task->size, 100);

	loop.start_ns = task->start_ns;
	check_all(&loop); /* the warm-up: on a schedule that is over, so all are due */
	loop.count = task->count;
	loop.first = 100;
	loop.start_ns = task->start_ns;
	loop.interval_ns = task->interval_ns;
	loop.histogram = NULL;
	check_all(&loop);
	carrier_close(carrier);
}

/* The child plays `theirs`, this process `ours`; ours has a histogram. */
static int play_both(const char *what, enum loop_pattern ours, enum loop_pattern theirs, struct histogram *histogram)
{
	struct task task = {.pattern = theirs, .size = 64, .count = COUNT, .start_ns = monotonic_ns(), .interval_ns = 2000};
	struct carrier *carrier;
	struct loop loop;
	pid_t pid;

	if (link_make(&task.link, what) == SKIP)
		return SKIP;
	fprintf(stderr, "  %s\n", what);
	pid = spawn(play, &task);
	carrier = link_take(&task.link, 0, -1);
	loop = loop_of(carrier, ours, 64, 100);
	loop.start_ns = task.start_ns;
	check_all(&loop);
	loop.count = COUNT;
	loop.first = 100;
	loop.start_ns = task.start_ns;
	loop.interval_ns = task.interval_ns;
	loop.histogram = histogram;
	histogram_clear(histogram);
	check_all(&loop);
	CHECK_EQ(ending_of(pid), 0);
	carrier_close(carrier);
	link_drop(&task.link);
	return 0;
}

static int one_way(void)
{
	struct histogram histogram;

	for (const char *const *what = all_links; *what; what++)
		play_both(*what, LOOP_RECEIVE, LOOP_SEND, &histogram);
	play_both("stream", LOOP_SEND, LOOP_RECEIVE, &histogram);
	return 0;
}

static int ping_pong(void)
{
	struct histogram histogram;

	for (int i = 0; i < 2; i++) {
		for (const char *const *what = i ? all_bells : all_links; *what; what++) {
			if (play_both(*what, LOOP_PING, LOOP_PONG, &histogram) == SKIP)
				continue;
			CHECK_EQ(histogram.count, COUNT);
			CHECK(histogram.min <= histogram_percentile(&histogram, 50) && histogram.min < histogram.max);
		}
	}
	return 0;
}

static int on_a_schedule(void)
{
	struct histogram histogram;

	for (const char *const *what = all_links; *what; what++) {
		if (play_both(*what, LOOP_RECEIVE_ON_SCHEDULE, LOOP_SEND_ON_SCHEDULE, &histogram) == SKIP)
			continue;
		CHECK_EQ(histogram.count, COUNT);
	}
	return 0;
}

/* The two have not been given the same schedule: that is said, not recorded. */
static int before_it_was_due(void)
{
	struct link link;
	struct carrier *a, *b;
	struct histogram histogram;
	struct loop loop;

	CHECK_EQ(link_make(&link, "stream"), 0);
	a = link_take(&link, 0, -1);
	b = link_take(&link, 1, -1);
	loop = loop_of(a, LOOP_SEND, 64, 1);
	check_all(&loop);
	histogram_clear(&histogram);
	loop = loop_of(b, LOOP_RECEIVE_ON_SCHEDULE, 64, 1);
	loop.start_ns = SECONDS(1000);
	loop.histogram = &histogram;
	CHECK_EQ(run(&loop), -EPROTO);
	CHECK_EQ(histogram.count, 0);
	carrier_close(a);
	carrier_close(b);
	link_drop(&link);
	return 0;
}

/* --- a carrier with a fault, in one process: it delivers its own numbers, but for one --- */

enum fault { NO_FAULT, DROPPED, REORDERED, FLIPPED, SHORTENED, REPEATED, NEVER_READ, FAULTS };

struct faulty {
	struct carrier base;
	enum fault fault;
	uint64_t at, next;
	size_t size;
	unsigned char *buffer;
};

static ssize_t faulty_receive(struct carrier *carrier, void *into, size_t size, const void **message)
{
	struct faulty *self = (struct faulty *)carrier;
	uint64_t number = self->next++;
	size_t got = size;
	int here = number == self->at;

	(void)into;
	if (self->fault == DROPPED && number >= self->at)
		number++;
	if (self->fault == REORDERED)
		number += here ? 1 : number == self->at + 1 ? -UINT64_C(1) : 0;
	if (self->fault == REPEATED && here)
		number--;
	message_stamp(self->buffer, size, number);
	if (self->fault == FLIPPED && here)
		self->buffer[self->size - 1] ^= 1;
	if (self->fault == SHORTENED && here)
		got--;
	if (self->fault == NEVER_READ && here)
		memset(self->buffer, 0, size); /* a receiver's buffer into which nothing was copied */
	*message = self->buffer;
	return (ssize_t)got;
}

static const struct carrier_calls faulty_calls = {.kind = "faulty", .receive = faulty_receive};

static void name_fault(enum fault fault, size_t size, uint64_t at, uint64_t count, uint64_t first)
{
	struct faulty faulty = {.fault = fault, .at = at, .next = first, .size = size, .buffer = malloc(size)};
	struct loop loop;

	faulty.base = (struct carrier){.calls = &faulty_calls, .watch = -1, .limit_bytes = SIZE_MAX};
	message_fill(faulty.buffer, size);
	loop = loop_of(&faulty.base, LOOP_RECEIVE, size, count);
	loop.first = first;
	CHECK_EQ(run(&loop), 0);
	CHECK_EQ(loop.bad_sequence, fault == NO_FAULT ? -1 : (int64_t)at);
	CHECK_EQ(loop.messages, fault == NO_FAULT ? count : at - first);
	free(faulty.buffer);
}

static int every_fault_is_named(void)
{
	static const size_t sizes[] = {24, 25, 64, 1000, 4096};

	for (enum fault fault = NO_FAULT; fault < FAULTS; fault++) {
		for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
			name_fault(fault, sizes[i], 17, 100, 0);
			name_fault(fault, sizes[i], 1017, 100, 1000);
			name_fault(fault, sizes[i], 99, 100, 0);
		}
	}
	return 0;
}

static int one_in_a_million(void)
{
	for (enum fault fault = NO_FAULT; fault < FAULTS; fault++)
		name_fault(fault, 64, 777777, 1000000, 0);
	return 0;
}

/* --- real carriers that are disturbed --- */

/* What has a byte wrong, comes too early or too late, is too short, in a real queue. */
static int a_spoilt_message_in_a_socket(void)
{
	unsigned char buffer[64];
	struct carrier *carrier;
	struct loop loop;
	int pair[2];

	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
	CHECK_EQ(carrier_open(&carrier, "datagram", &(struct carrier_setup){.fds = pair, .fd_count = 1}), 0);
	for (int kind = 0; kind < 3; kind++) {
		message_fill(buffer, sizeof buffer);
		for (uint64_t i = 0; i < 10; i++) {
			message_stamp(buffer, sizeof buffer, kind == 0 && i == 6 ? 7 : i);
			buffer[40] ^= kind == 1 && i == 6;
			CHECK(send(pair[1], buffer, sizeof buffer - (kind == 2 && i == 6), 0) > 0);
		}
		loop = loop_of(carrier, LOOP_RECEIVE, sizeof buffer, 10);
		CHECK_EQ(run(&loop), 0);
		CHECK_EQ(loop.bad_sequence, 6);
		CHECK_EQ(loop.messages, 6);
		while (recv(pair[0], buffer, sizeof buffer, MSG_DONTWAIT) > 0)
			;
	}
	carrier_close(carrier);
	close(pair[0]);
	close(pair[1]);
	return 0;
}

/* --- deadlines --- */

static void check_deadline(struct carrier *carrier, enum loop_pattern pattern)
{
	struct loop loop = loop_of(carrier, pattern, 64, UINT64_C(1) << 60);
	int64_t began_ns = monotonic_ns();

	loop.deadline_ns = began_ns + NS_PER_S / 50;
	CHECK_EQ(run(&loop), 0);
	CHECK(loop.messages < loop.count && loop.bad_sequence == -1);
	CHECK(monotonic_ns() >= loop.deadline_ns);
}

static int deadlines_end_waits(void)
{
	for (int i = 0; i < 2; i++) {
		for (const char *const *what = i ? all_bells : all_links; *what; what++) {
			struct link link;
			struct carrier *carrier;

			/* Signals need a second process to send to, and process-vm one to read: a wait for them does not. */
			if (link_make(&link, *what) == SKIP || link.meet[0][0])
				continue;
			fprintf(stderr, "  %s\n", *what);
			carrier = link_take(&link, 0, -1);
			check_deadline(carrier, i ? LOOP_PONG : LOOP_RECEIVE);
			if (!i)
				check_deadline(carrier, LOOP_SEND);
			carrier_close(carrier);
			link_drop(&link);
		}
	}
	return 0;
}

static int a_deadline_ends_a_spinner(void)
{
	struct link link;
	struct carrier *carrier;

	CHECK_EQ(link_make(&link, "ring"), 0);
	link_number(&link, 0, "spin_only", 1);
	carrier = link_take(&link, 0, -1);
	check_deadline(carrier, LOOP_RECEIVE);
	check_deadline(carrier, LOOP_SEND);
	carrier_close(carrier);
	link_drop(&link);
	return 0;
}

static int a_schedule_far_away_ends_too(void)
{
	struct link link;
	struct carrier *carrier;
	struct loop loop;

	CHECK_EQ(link_make(&link, "stream"), 0);
	carrier = link_take(&link, 0, -1);
	for (int64_t spin_ns = 0; spin_ns <= SECONDS(5000); spin_ns += SECONDS(5000)) {
		loop = loop_of(carrier, LOOP_SEND_ON_SCHEDULE, 64, 10);
		loop.start_ns = SECONDS(1000);
		loop.spin_ns = spin_ns;
		loop.deadline_ns = monotonic_ns() + NS_PER_S / 50;
		CHECK_EQ(run(&loop), 0);
		CHECK_EQ(loop.messages, 0);
	}
	carrier_close(carrier);
	link_drop(&link);
	return 0;
}

/* --- signals in between --- */

static volatile sig_atomic_t alarms;

static void count_alarm(int signo)
{
	(void)signo;
	alarms++;
}

/* A timer that interrupts every call there is: messages come through all the same, each once, and parts are kept. */
static int interruptions_lose_nothing(void)
{
	struct sigaction action = {.sa_handler = count_alarm};
	struct itimerval often = {.it_interval.tv_usec = 500, .it_value.tv_usec = 500}, never = {0};
	struct histogram histogram;

	CHECK(sigaction(SIGALRM, &action, NULL) == 0);
	CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
	for (const char *const *what = all_links; *what; what++) {
		struct task task = {.pattern = LOOP_SEND, .size = strstr(*what, "-mq") ? 8000 : 60000, .count = 500};
		struct carrier *carrier;
		struct loop loop;
		pid_t pid;

		if (link_make(&task.link, *what) == SKIP)
			continue;
		pid = spawn(play, &task);
		carrier = link_take(&task.link, 0, -1);
		loop = loop_of(carrier, LOOP_RECEIVE, task.size, 600);
		check_all(&loop);
		CHECK_EQ(ending_of(pid), 0);
		carrier_close(carrier);
		link_drop(&task.link);
	}
	play_both("stream", LOOP_PING, LOOP_PONG, &histogram);
	CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
	CHECK(alarms > 0);
	return 0;
}

/* What SIGURG and SIGPIPE did before, they do afterwards. */
static int signals_are_put_back(void)
{
	struct sigaction before = {.sa_handler = count_alarm}, after;
	struct carrier *carrier;
	sigset_t pending, mask;
	struct loop loop;
	int fds[2], other[2];

	CHECK(sigaction(SIGURG, &before, NULL) == 0);
	CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
	CHECK(pipe(fds) == 0 && pipe(other) == 0);
	CHECK_EQ(carrier_open(&carrier, "stream", &(struct carrier_setup){.fds = (int[]){other[0], fds[1]}, .fd_count = 2}), 0);
	close(fds[0]);
	loop = loop_of(carrier, LOOP_SEND, 64, 10);
	CHECK_EQ(run(&loop), -EPIPE); /* and we live */
	CHECK(sigpending(&pending) == 0 && !sigismember(&pending, SIGPIPE));
	CHECK(sigprocmask(SIG_BLOCK, NULL, &mask) == 0 && !sigismember(&mask, SIGPIPE));
	CHECK(sigaction(SIGURG, NULL, &after) == 0 && after.sa_handler == count_alarm);
	signal(SIGURG, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	carrier_close(carrier);
	close(fds[1]);
	close(other[0]);
	close(other[1]);
	return 0;
}

/* --- kills --- */

static void play_dead(void *argument)
{
	struct task *task = argument;
	struct carrier *carrier = link_take(&task->link, 1, -1);
	struct loop loop = loop_of(carrier, task->pattern, task->size, task->count);

	if (task->count)
		check_all(&loop);
	for (;;)
		pause(); /* silent, and not gone */
}

/* The other side has sent some and is killed: all of that is received, then its death is noticed. */
static int kills_are_noticed(void)
{
	static const char *const silent[] = {"datagram", "window", "posix-mq", "sysv-mq", "slots", "slots in place",
					    "ring", "ring spinning", NULL};

	for (const char *const *what = silent; *what; what++) {
		struct task task = {.pattern = LOOP_SEND, .size = 64, .count = 3};
		struct carrier *carrier;
		struct loop loop;
		int64_t killed_ns;
		pid_t pid;
		int watch;

		if (link_make(&task.link, *what) == SKIP)
			continue;
		fprintf(stderr, "  %s\n", *what);
		pid = spawn(play_dead, &task);
		watch = (int)syscall(SYS_pidfd_open, pid, 0);
		carrier = link_take(&task.link, 0, watch);
		loop = loop_of(carrier, LOOP_RECEIVE, 64, 1);
		check_all(&loop);
		kill(pid, SIGKILL);
		killed_ns = monotonic_ns();
		loop = loop_of(carrier, LOOP_RECEIVE, 64, 100);
		loop.first = 1;
		CHECK_EQ(run(&loop), -EOWNERDEAD);
		CHECK(loop.messages <= 2); /* it may have been killed before it had sent them all */
		fprintf(stderr, "    noticed after %lld ms\n", (long long)((monotonic_ns() - killed_ns) / 1000000));
		ending_of(pid);
		carrier_close(carrier);
		close(watch);
		link_drop(&task.link);
	}
	return 0;
}

static int a_sender_notices_too(void)
{
	static const char *const silent[] = {"posix-mq", "sysv-mq", "slots", "ring", "ring spinning", NULL};

	for (const char *const *what = silent; *what; what++) {
		struct task task = {.pattern = LOOP_RECEIVE, .size = 64, .count = 1};
		struct carrier *carrier;
		struct loop loop;
		pid_t pid;
		int watch;

		if (link_make(&task.link, *what) == SKIP)
			continue;
		pid = spawn(play_dead, &task);
		watch = (int)syscall(SYS_pidfd_open, pid, 0);
		carrier = link_take(&task.link, 0, watch);
		loop = loop_of(carrier, LOOP_SEND, 64, 1);
		check_all(&loop);
		kill(pid, SIGKILL);
		loop = loop_of(carrier, LOOP_SEND, 64, UINT64_C(1) << 60);
		CHECK_EQ(run(&loop), -EOWNERDEAD);
		ending_of(pid);
		carrier_close(carrier);
		close(watch);
		link_drop(&task.link);
	}
	return 0;
}

static int a_bell_that_will_not_ring_again(void)
{
	for (const char *const *what = all_bells; *what; what++) {
		struct task task = {.pattern = LOOP_PONG, .count = 5};
		struct carrier *carrier;
		struct loop loop;
		pid_t pid;
		int watch, rc;

		if (link_make(&task.link, *what) == SKIP)
			continue;
		pid = spawn(play_dead, &task);
		watch = (int)syscall(SYS_pidfd_open, pid, 0);
		carrier = link_take(&task.link, 0, watch);
		loop = loop_of(carrier, LOOP_PING, 0, 5);
		check_all(&loop);
		kill(pid, SIGKILL);
		loop = loop_of(carrier, LOOP_PING, 0, 5);
		rc = run(&loop);
		CHECK(rc == -EOWNERDEAD || rc == -ESRCH);
		ending_of(pid);
		carrier_close(carrier);
		close(watch);
		link_drop(&task.link);
	}
	return 0;
}

/* --- what a loop refuses --- */

static int what_makes_no_sense(void)
{
	struct link link;
	struct carrier *carrier;
	struct loop loop;

	CHECK_EQ(link_make(&link, "slots"), 0);
	carrier = link_take(&link, 0, -1);
	loop = loop_of(carrier, LOOP_SEND, 0, 1);
	CHECK_EQ(loop_open(&loop), -EINVAL);
	loop = loop_of(carrier, LOOP_SEND, 1, 0);
	CHECK_EQ(loop_open(&loop), -EINVAL);
	loop = loop_of(carrier, LOOP_SEND, LINK_SLOT_BYTES + 1, 1);
	CHECK_EQ(loop_open(&loop), -EMSGSIZE);
	loop = loop_of(carrier, LOOP_SEND, SIZE_MAX, 1);
	CHECK_EQ(loop_open(&loop), -EMSGSIZE);
	loop = loop_of(carrier, LOOP_SEND_ON_SCHEDULE, 1, 1);
	loop.interval_ns = -1;
	CHECK_EQ(loop_open(&loop), -EINVAL);
	loop_close(&loop); /* nothing was opened */
	carrier_close(carrier);
	link_drop(&link);
	CHECK_EQ(link_make(&link, "futex"), 0);
	carrier = link_take(&link, 0, -1);
	loop = loop_of(carrier, LOOP_SEND, 64, 1);
	CHECK_EQ(loop_open(&loop), -EINVAL);
	carrier_close(carrier);
	link_drop(&link);
	return 0;
}

static int verification_costs_something(void)
{
	int64_t small = verification_cost_ps(64), large = verification_cost_ps(65536);

	CHECK(small > 0 && large > small);
	CHECK_EQ(verification_cost_ps(0), -EINVAL);
	CHECK_EQ(verification_cost_ps(SIZE_MAX), -EINVAL);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"one_way", one_way},
		{"ping_pong", ping_pong},
		{"on_a_schedule", on_a_schedule},
		{"before_it_was_due", before_it_was_due},
		{"every_fault_is_named", every_fault_is_named},
		{"one_in_a_million", one_in_a_million},
		{"a_spoilt_message_in_a_socket", a_spoilt_message_in_a_socket},
		{"deadlines_end_waits", deadlines_end_waits},
		{"a_deadline_ends_a_spinner", a_deadline_ends_a_spinner},
		{"a_schedule_far_away_ends_too", a_schedule_far_away_ends_too},
		{"interruptions_lose_nothing", interruptions_lose_nothing},
		{"signals_are_put_back", signals_are_put_back},
		{"kills_are_noticed", kills_are_noticed},
		{"a_sender_notices_too", a_sender_notices_too},
		{"a_bell_that_will_not_ring_again", a_bell_that_will_not_ring_again},
		{"what_makes_no_sense", what_makes_no_sense},
		{"verification_costs_something", verification_costs_something},
		{NULL, NULL},
	};

	signal(SIGPIPE, SIG_IGN);
	return run_tests(tests, argc, argv);
}
