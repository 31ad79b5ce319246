/* launch.h: starts a command that is held before its first instruction, until whoever wants to watch it is ready. */
#ifndef IPCLAB_LAUNCH_H
#define IPCLAB_LAUNCH_H

#include <sys/resource.h>
#include <sys/types.h>

struct launch {
	const char *path;
	char *const *argv;
	char *const *envp;
	struct rlimit files; /* RLIMIT_NOFILE as the command is to have it */
	int files_set;
};

/*
 * Forks. In the child it returns only if the program could not be run: 0, and *code is what to exit with, at once. The
 * child inherits stdio, terminal, group and session, has fresh signal dispositions and an empty mask, and
 * sleeps in read(2) on the pipe of `release_fd` (close-on-exec). One byte written there lets it go on into execve(2); the
 * end of the file, as when the watcher is killed, is 127. `failed_fd` reads an errno (int) when execve
 * fails, else end of file. Its pid, or -errno. No parent-death signal: a command outlives who watches it.
 */
pid_t launch(const struct launch *launch, int *release_fd, int *failed_fd, int *code);

#endif
