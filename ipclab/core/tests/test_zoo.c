/* The states of the zoo: D, t and X, each read back from /proc, and left in every way there is. */
#define _GNU_SOURCE
#include "core/zoo.h"

#include <fcntl.h>

#include "test.h"

static char state_of(pid_t pid)
{
	char path[64], text[512] = "", *at;
	FILE *file;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	file = fopen(path, "r");
	if (!file)
		return '-';
	if (!fgets(text, sizeof text, file))
		text[0] = '\0';
	fclose(file);
	at = strrchr(text, ')');
	return at ? at[2] : '-';
}

static void wait_state(pid_t pid, char state)
{
	int64_t until = SECONDS(10);

	while (state_of(pid) != state && monotonic_ns() < until)
		usleep(1000);
	CHECK_EQ(state_of(pid), state);
}

static volatile sig_atomic_t caught;

static void catch_it(int signo)
{
	caught = signo;
}

static void sleep_in_d(void *argument)
{
	int *ends = argument;

	signal(SIGUSR1, catch_it);
	_exit(zoo_sleep_in_d(ends[0], SECONDS(60)) == 0 && caught == SIGUSR1 ? 7 : 1);
}

static int d_lasts_until_the_word(void)
{
	int ends[2], status;
	pid_t pid;

	CHECK(pipe(ends) == 0);
	pid = spawn(sleep_in_d, ends);
	wait_state(pid, 'D');
	for (int look = 0; look < 100; look++)
		CHECK_EQ(state_of(pid), 'D');
	CHECK(kill(pid, SIGUSR1) == 0); /* it has a handler: that waits, for D is not interrupted */
	for (int look = 0; look < 100; look++)
		CHECK_EQ(state_of(pid), 'D');
	CHECK(write(ends[1], "!", 1) == 1);
	status = ending_of(pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	close(ends[0]);
	close(ends[1]);
	return 0;
}

static int d_has_a_deadline(void)
{
	int ends[2];

	CHECK(pipe(ends) == 0);
	CHECK_EQ(zoo_sleep_in_d(ends[0], monotonic_ns() + 1000000), 0);
	CHECK_EQ(zoo_sleep_in_d(ends[0], 0), 0); /* over already */
	close(ends[0]);
	close(ends[1]);
	return 0;
}

static int a_kill_in_d_leaves_no_child(void)
{
	int ends[2];
	char byte;
	pid_t pid;

	CHECK(pipe(ends) == 0);
	pid = spawn(sleep_in_d, ends);
	wait_state(pid, 'D');
	kill_9(pid);
	close(ends[1]);
	/* The vfork's child held the last write end: its end is our end-of-file. */
	CHECK(read(ends[0], &byte, 1) == 0);
	close(ends[0]);
	return 0;
}

static void pause_for_ever(void *argument)
{
	(void)argument;
	for (;;)
		pause();
}

static int a_tracee_is_stopped_and_goes_on(void)
{
	pid_t pid = spawn(pause_for_ever, NULL);
	int rc = zoo_trace_stop(pid);

	if (rc == -EPERM) {
		kill_9(pid);
		return SKIP;
	}
	CHECK_EQ(rc, 0);
	CHECK_EQ(state_of(pid), 't');
	CHECK_EQ(zoo_trace_end(pid), 0);
	wait_state(pid, 'S');
	kill_9(pid);
	CHECK_EQ(zoo_trace_stop(pid), -ESRCH);
	CHECK_EQ(zoo_trace_end(pid), -ESRCH);
	return 0;
}

static void end_with_3(void *argument)
{
	(void)argument;
	_exit(3);
}

static int x_is_seen_sooner_or_later(void)
{
	struct zoo_end end = {0};
	int tries;

	for (tries = 0; tries < 1000 && !end.dead_stat[0]; tries++) {
		CHECK_EQ(zoo_reap_watched(spawn(end_with_3, NULL), tries % 8 * 300, &end), 0);
		CHECK(WIFEXITED(end.status) && WEXITSTATUS(end.status) == 3);
	}
	if (!end.dead_stat[0] && sysconf(_SC_NPROCESSORS_ONLN) == 1)
		return SKIP;
	CHECK(strstr(end.dead_stat, ") X ") != NULL);
	CHECK_EQ(zoo_reap_watched(getppid(), 0, &end), -ECHILD);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"d_lasts_until_the_word", d_lasts_until_the_word},
		{"d_has_a_deadline", d_has_a_deadline},
		{"a_kill_in_d_leaves_no_child", a_kill_in_d_leaves_no_child},
		{"a_tracee_is_stopped_and_goes_on", a_tracee_is_stopped_and_goes_on},
		{"x_is_seen_sooner_or_later", x_is_seen_sooner_or_later},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
