/* Every kind of carrier: what it refuses to be made of, what it moves, what it counts. */
#define _GNU_SOURCE
#include "core/carrier.h"
#include "core/message.h"
#include "links.h"
#include "test.h"

#include <netinet/in.h>

#define MESSAGES 300

struct both {
	struct link link;
	size_t size;
};

/* Room for the largest message here, with its margins. */
static unsigned char room[CARRIER_MARGIN + 80000 + CARRIER_MARGIN];

static int try_send(struct carrier *carrier, size_t size, uint64_t sequence)
{
	static unsigned char buffer[sizeof room];
	void *message = buffer + CARRIER_MARGIN;
	int rc;

	if (carrier->calls->stage)
		message = carrier->calls->stage(carrier, size);
	else if (sequence == 0)
		message_fill(message, size);
	CHECK(message);
	message_stamp(message, size, sequence);
	while ((rc = carrier->calls->send(carrier, message, size)) == -EINTR)
		;
	return rc;
}

static void send_number(struct carrier *carrier, size_t size, uint64_t sequence)
{
	CHECK_EQ(try_send(carrier, size, sequence), 0);
}

static void receive_number(struct carrier *carrier, size_t size, uint64_t sequence)
{
	const void *message;
	ssize_t got;

	while ((got = carrier->calls->receive(carrier, room + CARRIER_MARGIN, size, &message)) == -EINTR)
		;
	CHECK_EQ(got, size);
	CHECK_EQ(message_check(message, size, sequence), 0);
	if (carrier->calls->release)
		carrier->calls->release(carrier);
}

static void answer(void *argument)
{
	struct both *both = argument;
	struct carrier *carrier = link_take(&both->link, 1, -1);

	for (uint64_t i = 0; i < MESSAGES; i++) {
		receive_number(carrier, both->size, i);
		send_number(carrier, both->size, i);
	}
	carrier_close(carrier);
}

static int there_and_back(const char *what, size_t size)
{
	struct both both = {.size = size};
	struct carrier *carrier;
	pid_t pid;

	if (link_make(&both.link, what) == SKIP)
		return SKIP;
	fprintf(stderr, "  %s, %zu bytes\n", what, size);
	pid = spawn(answer, &both);
	carrier = link_take(&both.link, 0, -1);
	for (uint64_t i = 0; i < MESSAGES; i++) {
		send_number(carrier, size, i);
		receive_number(carrier, size, i);
	}
	CHECK_EQ(ending_of(pid), 0);
	if (carrier->calls->count)
		carrier->calls->count(carrier);
	if (!carrier->calls->counts_sleeps) /* the kernel's: at least a call for each way */
		CHECK(carrier->system_calls >= 2 * MESSAGES);
	carrier_close(carrier);
	link_drop(&both.link);
	return 0;
}

static int all_kinds_with_data(void)
{
	static const size_t sizes[] = {1, 7, 24, 64, 4096, 8192, 65536, 70000};

	for (const char *const *what = all_links; *what; what++) {
		size_t most = strstr(*what, "-mq") ? 8192 : 70000;

		for (size_t i = 0; i < sizeof sizes / sizeof *sizes && sizes[i] <= most; i++)
			if (there_and_back(*what, sizes[i]) == SKIP)
				break;
	}
	return 0;
}

static int all_bells_ring(void)
{
	for (const char *const *what = all_bells; *what; what++) {
		size_t size = strstr(*what, "signal") && strcmp(*what, "signal") != 0 ? 4 : 0;

		there_and_back(*what, size);
	}
	return 0;
}

static void check_refused(const char *kind, struct carrier_setup setup, int rc)
{
	struct carrier *carrier;

	CHECK_EQ(carrier_open(&carrier, kind, &setup), rc);
	CHECK(!carrier);
}

static int what_cannot_be_made(void)
{
	static const char *const wanting[] = {"stream",   "vmsplice", "datagram",  "posix-mq",     "sysv-mq",     "slots",
					      "ring",     "fd-passing", "process-vm", "signal",     "rt-signal",   "signalfd",
					      "eventfd",  "futex",    "posix-sem", "pidfd-signal", "unnamed-sem", "sysv-sem"};
	const struct carrier_number signo = {"signo", SIGURG};
	_Alignas(64) unsigned char memory[4096] = {0};
	const struct carrier_number side = {"side", 0};
	struct carrier_setup slots = {.memory = memory, .memory_bytes = sizeof memory, .numbers = &side, .number_count = 1};
	int bad[4] = {-1, -1, -1, -1};

	check_refused("no such kind", (struct carrier_setup){0}, -EINVAL);
	for (size_t i = 0; i < sizeof wanting / sizeof *wanting; i++) {
		CHECK(carrier_kind_exists(wanting[i]));
		check_refused(wanting[i], (struct carrier_setup){0}, -EINVAL);
	}
	check_refused("stream", (struct carrier_setup){.fds = bad, .fd_count = 2}, -EBADF);
	check_refused("pidfd-signal", (struct carrier_setup){.fds = (int[]){0}, .fd_count = 1, .numbers = &signo, .number_count = 1},
		      -EINVAL);
	/* headers that promise more than there is */
	check_refused("slots", slots, -EBADMSG);
	memcpy(memory, (uint64_t[2]){UINT64_MAX, 1}, 16);
	check_refused("slots", slots, -EBADMSG);
	memcpy(memory, (uint64_t[2]){64, UINT64_MAX / 100}, 16);
	check_refused("slots", slots, -EBADMSG);
	memcpy(memory, (uint64_t[2]){64, 20}, 16);
	check_refused("slots", slots, -EBADMSG);
	slots.memory = memory + 8;
	check_refused("slots", slots, -EINVAL);
	slots.memory = NULL;
	slots.memory_bytes = 0;
	check_refused("slots", slots, -EINVAL);
	return 0;
}

/* Each close is the end for the other side, after what was sent. */
static int closing_is_told(void)
{
	static const char *const who_tell[] = {"slots", "ring", NULL};

	for (const char *const *what = who_tell; *what; what++) {
		struct link link;
		struct carrier *a, *b;
		const void *message;
		int rc;

		CHECK_EQ(link_make(&link, *what), 0);
		a = link_take(&link, 0, -1);
		b = link_take(&link, 1, -1);
		send_number(a, 64, 0);
		carrier_close(a);
		receive_number(b, 64, 0);
		CHECK_EQ(b->calls->receive(b, room + CARRIER_MARGIN, 64, &message), -EPIPE);
		while ((rc = b->calls->send(b, room + CARRIER_MARGIN, 64)) == 0)
			;
		CHECK_EQ(rc, -EPIPE);
		carrier_close(b);
		link_drop(&link);
	}
	return 0;
}

static int end_of_file(void)
{
	int pair[2];
	const void *message;
	struct carrier *carrier;
	static const int types[] = {SOCK_STREAM, SOCK_SEQPACKET};

	for (int i = 0; i < 2; i++) {
		CHECK(socketpair(AF_UNIX, types[i], 0, pair) == 0);
		CHECK_EQ(carrier_open(&carrier, i ? "datagram" : "stream",
				      &(struct carrier_setup){.fds = (int[]){pair[0], pair[0]}, .fd_count = i ? 1 : 2}),
			 0);
		CHECK(send(pair[1], "half", 4, 0) == 4);
		close(pair[1]);
		if (i) { /* a message of another length is given as it is; the loop says that it is wrong */
			CHECK_EQ(carrier->calls->receive(carrier, room + CARRIER_MARGIN, 64, &message), 4);
		}
		CHECK_EQ(carrier->calls->receive(carrier, room + CARRIER_MARGIN, 64, &message), -EPIPE);
		carrier_close(carrier);
		close(pair[0]);
	}
	return 0;
}

/* In a hurry nothing waits: what is there comes, then -EAGAIN. */
static int a_hurry(void)
{
	static const char *const every[] = {"stream", "vmsplice", "datagram", "seqpacket", "posix-mq", "sysv-mq", "slots", NULL};

	for (const char *const *what = every; *what; what++) {
		struct link link;
		struct carrier *a, *b;
		const void *message;

		if (link_make(&link, *what) == SKIP)
			continue;
		a = link_take(&link, 0, -1);
		b = link_take(&link, 1, -1);
		send_number(a, 64, 0);
		carrier_hurry(b);
		receive_number(b, 64, 0);
		CHECK_EQ(b->calls->receive(b, room + CARRIER_MARGIN, 64, &message), -EAGAIN);
		carrier_close(a);
		carrier_close(b);
		link_drop(&link);
	}
	return 0;
}

static void udp_pair(int fds[2])
{
	struct sockaddr_in here[2];
	socklen_t length = sizeof here[0];

	for (int i = 0; i < 2; i++) {
		here[i] = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		CHECK((fds[i] = socket(AF_INET, SOCK_DGRAM, 0)) >= 0);
		CHECK(bind(fds[i], (struct sockaddr *)&here[i], sizeof here[i]) == 0);
		CHECK(getsockname(fds[i], (struct sockaddr *)&here[i], &length) == 0);
	}
	for (int i = 0; i < 2; i++)
		CHECK(connect(fds[i], (struct sockaddr *)&here[!i], sizeof here[i]) == 0);
}

/* A sender that always fills its window, and a receiver that never empties the queue: what it has read the kernel goes
 * on charging for a while. */
static int a_window_loses_nothing(void)
{
	static const size_t sizes[] = {1, 64, 1000, 2000, 4096, 8192, 16000, 32000, 60000};
	int fds[2], buffer;
	socklen_t length = sizeof buffer;

	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct carrier *ends[2];
		uint64_t sent = 0;

		fprintf(stderr, "  %zu bytes\n", sizes[i]);
		udp_pair(fds);
		CHECK(getsockopt(fds[1], SOL_SOCKET, SO_RCVBUF, &buffer, &length) == 0);
		for (int side = 0; side < 2; side++) {
			const struct carrier_number window = {"window_bytes", buffer};

			CHECK_EQ(carrier_open(&ends[side], "datagram",
					      &(struct carrier_setup){.fds = &fds[side], .fd_count = 1,
								      .numbers = &window, .number_count = 1}),
				 0);
			ends[side]->one_way = 1;
			carrier_hurry(ends[side]);
		}
		for (uint64_t received = 0; received < 1000; received++) {
			int rc;

			while ((rc = try_send(ends[0], sizes[i], sent)) == 0)
				sent++;
			CHECK_EQ(rc, -EAGAIN);
			receive_number(ends[1], sizes[i], received);
		}
		for (int side = 0; side < 2; side++) {
			carrier_close(ends[side]);
			close(fds[side]);
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"all_kinds_with_data", all_kinds_with_data},
		{"all_bells_ring", all_bells_ring},
		{"what_cannot_be_made", what_cannot_be_made},
		{"closing_is_told", closing_is_told},
		{"end_of_file", end_of_file},
		{"a_hurry", a_hurry},
		{"a_window_loses_nothing", a_window_loses_nothing},
		{NULL, NULL},
	};

	signal(SIGPIPE, SIG_IGN);
	return run_tests(tests, argc, argv);
}
