/* sys.c: see sys.h. */
#define _GNU_SOURCE
#include "sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S INT64_C(1000000000)

int sys_sigqueue(pid_t pid, int signo, int32_t value)
{
	union sigval payload = {.sival_int = value};

	return sigqueue(pid, signo, payload) < 0 ? -errno : 0;
}

int sys_pidfd_send_signal(int pidfd, int signo, int with_value, int32_t value)
{
	siginfo_t info;

	memset(&info, 0, sizeof info);
	info.si_signo = signo;
	info.si_code = SI_QUEUE;
	info.si_pid = getpid();
	info.si_uid = getuid();
	info.si_value.sival_int = value;
	return syscall(SYS_pidfd_send_signal, pidfd, signo, with_value ? &info : NULL, 0) < 0 ? -errno : 0;
}

int sys_sigwait(const sigset_t *set, int64_t timeout_ns, siginfo_t *info)
{
	struct timespec limit = {.tv_sec = timeout_ns / NS_PER_S, .tv_nsec = timeout_ns % NS_PER_S};

	return sigtimedwait(set, info, timeout_ns < 0 ? NULL : &limit) < 0 ? -errno : 0;
}

int sys_set_pdeathsig(int signo)
{
	return prctl(PR_SET_PDEATHSIG, signo, 0, 0, 0) < 0 ? -errno : 0;
}

int sys_set_child_subreaper(int on)
{
	return prctl(PR_SET_CHILD_SUBREAPER, on, 0, 0, 0) < 0 ? -errno : 0;
}

int sys_is_child_subreaper(void)
{
	int on = 0;

	return prctl(PR_GET_CHILD_SUBREAPER, &on, 0, 0, 0) < 0 ? -errno : on != 0;
}

int sys_set_ptracer_any(void)
{
	if (prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0) == 0)
		return 1;
	return errno == EINVAL ? 0 : -errno; /* EINVAL: this kernel runs without Yama */
}

ssize_t sys_process_vm_readv(pid_t pid, uint64_t address, void *into, size_t size)
{
	struct iovec here = {.iov_base = into, .iov_len = size};
	struct iovec there = {.iov_base = (void *)(uintptr_t)address, .iov_len = size};
	ssize_t got = process_vm_readv(pid, &here, 1, &there, 1, 0);

	return got < 0 ? -errno : got;
}

ssize_t sys_vmsplice(int fd, const void *from, size_t size, unsigned int flags)
{
	struct iovec piece = {.iov_base = (void *)(uintptr_t)from, .iov_len = size};
	ssize_t sent = vmsplice(fd, &piece, 1, flags);

	return sent < 0 ? -errno : sent;
}

/* Reads the state letter and the start time of a process; -errno when /proc does not tell. */
static int read_stat(pid_t pid, char *state, uint64_t *start_time)
{
	char path[32], text[512];
	ssize_t size;
	int fd, field;
	char *at;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	size = read(fd, text, sizeof text - 1);
	close(fd);
	if (size <= 0)
		return -ESRCH; /* it ended between open and read */
	text[size] = '\0';
	at = strrchr(text, ')'); /* the name may hold spaces and brackets: it ends at the last one */
	if (!at || !at[1] || !at[2])
		return -EPROTO;
	at += 2;
	*state = *at;
	for (field = 3; field < 22 && at; field++) {
		at = strchr(at, ' ');
		if (at)
			at++;
	}
	if (!at)
		return -EPROTO;
	*start_time = strtoull(at, NULL, 10);
	return 0;
}

static identity pack(pid_t pid, uint64_t start_time)
{
	return (uint64_t)pid << IDENTITY_PID_SHIFT | (start_time & ((UINT64_C(1) << IDENTITY_PID_SHIFT) - 1));
}

identity identity_self(void)
{
	uint64_t start_time = 0;
	char state;

	(void)read_stat(getpid(), &state, &start_time); /* without /proc the pid alone has to do */
	return pack(getpid(), start_time);
}

int identity_alive(identity who)
{
	uint64_t start_time;
	pid_t pid = identity_pid(who);
	char state;

	if (!pid)
		return 0;
	if (read_stat(pid, &state, &start_time) < 0)
		return !(kill(pid, 0) < 0 && errno == ESRCH);
	if (state == 'Z' || state == 'X')
		return 0;
	return who == pack(pid, start_time) || who == pack(pid, 0);
}

/* Whether one of the pids in a "children" file (proc_pid_task(5): numbers and blanks) is alive; -errno. */
static int any_alive_in(int fd)
{
	char text[4096], *at = text, *end;
	ssize_t size = read(fd, text, sizeof text - 1);
	uint64_t start_time;
	char state;
	long pid;

	if (size < 0)
		return -errno;
	if (size == sizeof text - 1)
		return 1; /* hundreds of children: no need to count on */
	text[size] = '\0';
	while ((pid = strtol(at, &end, 10)) > 0 && end != at) {
		if (read_stat((pid_t)pid, &state, &start_time) == 0 && state != 'Z' && state != 'X')
			return 1;
		at = end;
	}
	return 0;
}

int any_child_alive(void)
{
	char path[300];
	struct dirent *entry;
	siginfo_t info;
	DIR *tasks;
	int fd, alive = 0;

	if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 && errno == ECHILD)
		return 0;
	tasks = opendir("/proc/self/task");
	if (!tasks)
		return 1;
	while (!alive && (entry = readdir(tasks))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "/proc/self/task/%s/children", entry->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		alive = fd < 0 || any_alive_in(fd) != 0;
		if (fd >= 0)
			close(fd);
	}
	closedir(tasks);
	return alive;
}

uint64_t pid_namespace(void)
{
	struct stat info;

	return stat("/proc/self/ns/pid", &info) < 0 ? 0 : info.st_ino;
}
