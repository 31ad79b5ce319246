/* launch.c: see launch.h. */
#define _GNU_SOURCE
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

static void fresh_signals(void)
{
	const struct sigaction usual = {.sa_handler = SIG_DFL};
	struct sigaction former;
	sigset_t none;

	for (int signo = 1; signo < NSIG; signo++)
		if (sigaction(signo, NULL, &former) == 0 && former.sa_handler != SIG_IGN)
			sigaction(signo, &usual, NULL);
	sigaction(SIGPIPE, &usual, NULL); /* Python ignores it; nobody asked it to for the command */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Between fork and exec: async-signal-safe calls only. */
static int child(const struct launch *launch, int hold_fd, int error_fd)
{
	char byte;
	ssize_t got;
	int error;

	fresh_signals();
	do
		got = read(hold_fd, &byte, 1);
	while (got < 0 && errno == EINTR);
	if (got != 1)
		return 127;
	if (launch->files_set)
		setrlimit(RLIMIT_NOFILE, &launch->files);
	execve(launch->path, launch->argv, launch->envp);
	error = errno;
	got = write(error_fd, &error, sizeof error);
	return got < 0 ? 126 : 127;
}

pid_t launch(const struct launch *what, int *release_fd, int *failed_fd, int *code)
{
	int hold[2], failed[2], rc;
	sigset_t all, former;
	pid_t pid;

	if (pipe2(hold, O_CLOEXEC) < 0)
		return -errno;
	if (pipe2(failed, O_CLOEXEC) < 0) {
		rc = -errno;
		close(hold[0]), close(hold[1]);
		return rc;
	}
	sigfillset(&all); /* no handler of the parent's may run in the child */
	pthread_sigmask(SIG_SETMASK, &all, &former);
	pid = fork();
	rc = -errno;
	if (pid == 0) {
		close(hold[1]);
		close(failed[0]);
		*code = child(what, hold[0], failed[1]);
		return 0;
	}
	pthread_sigmask(SIG_SETMASK, &former, NULL);
	close(hold[0]);
	close(failed[1]);
	if (pid < 0) {
		close(hold[1]), close(failed[0]);
		return rc;
	}
	*release_fd = hold[1];
	*failed_fd = failed[0];
	return pid;
}
