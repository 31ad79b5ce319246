/* Who lives: identities that survive neither a zombie nor a recycled pid. */
#define _GNU_SOURCE
#include "core/sys.h"

#include "test.h"

static void wait_for_end_of_pipe(void *argument)
{
	int *pipe_ends = argument;
	char byte;

	close(pipe_ends[1]);
	CHECK(read(pipe_ends[0], &byte, 1) == 0);
}

static int identity_of(pid_t pid, identity *who)
{
	char path[64], text[512], *at;
	FILE *file;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	file = fopen(path, "r");
	if (!file || !fgets(text, sizeof text, file))
		return -1;
	fclose(file);
	at = strrchr(text, ')');
	for (int field = 2; field < 22; field++)
		at = strchr(at + 1, ' ');
	*who = (uint64_t)pid << IDENTITY_PID_SHIFT | strtoull(at, NULL, 10);
	return 0;
}

static int an_identity_is_pid_and_start_time(void)
{
	identity who;

	CHECK_EQ(identity_of(getpid(), &who), 0);
	CHECK_EQ(identity_self(), who);
	CHECK_EQ(identity_pid(identity_self()), getpid());
	CHECK(identity_alive(identity_self()));
	CHECK(!identity_alive(0));
	CHECK(!identity_alive(identity_self() + 1)); /* the same pid, started at another time: somebody else */
	return 0;
}

static int a_zombie_is_not_alive(void)
{
	identity who;
	int ends[2];
	pid_t pid;
	siginfo_t info;

	CHECK(pipe(ends) == 0);
	pid = spawn(wait_for_end_of_pipe, ends);
	close(ends[0]);
	CHECK_EQ(identity_of(pid, &who), 0);
	CHECK(identity_alive(who));
	CHECK(any_child_alive());
	close(ends[1]);
	CHECK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) == 0); /* ended, not reaped */
	CHECK(!identity_alive(who));
	CHECK(!any_child_alive());
	CHECK_EQ(ending_of(pid), 0);
	CHECK(!identity_alive(who));
	CHECK(!any_child_alive());
	return 0;
}

static int errors_are_errnos(void)
{
	siginfo_t info;
	sigset_t none;
	char byte;

	sigemptyset(&none);
	CHECK_EQ(sys_sigqueue(getpid(), 999, 0), -EINVAL);
	CHECK_EQ(sys_pidfd_send_signal(-1, SIGTERM, 0, 0), -EBADF);
	CHECK_EQ(sys_sigwait(&none, 0, &info), -EAGAIN);
	CHECK_EQ(sys_set_pdeathsig(999), -EINVAL);
	CHECK_EQ(sys_vmsplice(-1, "x", 1, 0), -EBADF);
	CHECK(sys_process_vm_readv(getpid(), 8, &byte, 1) == -EFAULT || errno == EPERM);
	CHECK(pid_namespace() != 0);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"an_identity_is_pid_and_start_time", an_identity_is_pid_and_start_time},
		{"a_zombie_is_not_alive", a_zombie_is_not_alive},
		{"errors_are_errnos", errors_are_errnos},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
