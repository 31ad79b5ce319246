/* followed.c: see followed.h. */
#define _GNU_SOURCE
#include "followed.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIRST_TABLE 256
#define MOST_NAMES 60000
static const char *const file_names[FILES] = {"stat", "schedstat", "wchan", "syscall", "children", "status"};

int followed_open(struct followed *all, int fds_most)
{
	memset(all, 0, sizeof *all);
	all->fds_most = fds_most;
	all->table_size = FIRST_TABLE;
	all->table = calloc(all->table_size, sizeof *all->table);
	return all->table ? 0 : -ENOMEM;
}

/* --- descriptors --- */

static int open_file(pid_t pid, pid_t tid, const char *name)
{
	char path[64];
	int fd;

	snprintf(path, sizeof path, "/proc/%d/task/%d/%s", (int)pid, (int)tid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static void close_files(struct followed *all, struct thread *thread)
{
	for (int i = 0; i < FILES; i++) {
		if (thread->fds[i] >= 0) {
			close(thread->fds[i]);
			all->fds_open--;
		}
		thread->fds[i] = CLOSED;
	}
}

/* The two of every look have the last word on descriptors, the others leave a quarter of them free. */
static int may_keep(const struct followed *all, int file)
{
	return all->fds_open + all->fds_events < (file <= FILE_SCHEDSTAT ? all->fds_most : all->fds_most / 4 * 3);
}

static void keep_file(struct followed *all, struct thread *thread, int file)
{
	int fd;

	if (!may_keep(all, file))
		return;
	fd = open_file(thread->process->pid, thread->tid, file_names[file]);
	if (fd >= 0) {
		thread->fds[file] = fd;
		all->fds_open++;
	} else if (fd == -EMFILE || fd == -ENFILE) {
		all->fds_most = all->fds_open + all->fds_events; /* it is fewer than we were told */
	} else if (fd == -EACCES || fd == -EPERM) {
		thread->fds[file] = REFUSED;
		thread->refused[file] = (int16_t)-fd;
	}
}

static ssize_t read_anew(struct followed *all, struct thread *thread, int file, char *text)
{
	int fd = open_file(thread->process->pid, thread->tid, file_names[file]);
	ssize_t got;

	if (fd < 0)
		return fd == -ENOENT && file == FILE_STAT ? -ESRCH : fd;
	got = read(fd, text, PROC_TEXT - 1);
	got = got < 0 ? -errno : got;
	close(fd);
	all->reopened += file <= FILE_SCHEDSTAT;
	return got;
}

static int is_other(const struct thread *thread, const char *text, ssize_t got)
{
	struct procstat stat;

	return procstat_parse(text, (size_t)got, &stat) == 0 && stat.start_ticks != thread->start_ticks;
}

ssize_t thread_read(struct followed *all, struct thread *thread, int file, char text[PROC_TEXT])
{
	ssize_t got;

	if (thread->fds[file] == CLOSED)
		keep_file(all, thread, file);
	if (thread->fds[file] == REFUSED)
		return -thread->refused[file];
	if (thread->fds[file] >= 0) {
		got = pread(thread->fds[file], text, PROC_TEXT - 1, 0);
		got = got < 0 ? -errno : got;
	} else {
		got = read_anew(all, thread, file, text);
		if (got > 0 && file == FILE_STAT && thread->start_ticks && is_other(thread, text, got))
			return -ESRCH; /* its number belongs to another now */
	}
	if (got >= 0)
		text[got] = 0;
	else
		thread->refused[file] = (int16_t)-got;
	return got;
}

int stat_of(pid_t pid, pid_t tid, struct procstat *stat)
{
	char text[PROC_TEXT];
	int fd = open_file(pid, tid, file_names[FILE_STAT]);
	ssize_t got;

	if (fd < 0)
		return fd;
	got = read(fd, text, sizeof text);
	got = got < 0 ? -errno : got;
	close(fd);
	return got < 0 ? (int)got : procstat_parse(text, (size_t)got, stat);
}

int thread_exists(pid_t pid, pid_t tid)
{
	char path[48];

	snprintf(path, sizeof path, "/proc/%d/task/%d", (int)pid, (int)tid);
	return access(path, F_OK) == 0;
}

int list_threads(pid_t pid, pid_t *tids, int most)
{
	char path[32];
	struct dirent *entry;
	int count = 0, tid;
	DIR *dir;

	snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
	dir = opendir(path);
	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		tid = atoi(entry->d_name);
		if (tid > 0 && count++ < most)
			tids[count - 1] = tid;
	}
	closedir(dir);
	return count;
}

/* --- the table --- */

static struct thread **bucket(const struct followed *all, pid_t tid)
{
	return &all->table[((uint32_t)tid * UINT32_C(2654435769)) >> 8 & (all->table_size - 1)];
}

static void grow_table(struct followed *all)
{
	struct thread **old = all->table, *thread, *next;
	size_t old_size = all->table_size;

	all->table = calloc(old_size * 2, sizeof *all->table);
	if (!all->table) {
		all->table = old; /* slower, not wrong */
		return;
	}
	all->table_size = old_size * 2;
	for (size_t i = 0; i < old_size; i++)
		for (thread = old[i]; thread; thread = next) {
			struct thread **at = bucket(all, thread->tid);

			next = thread->next_in_table;
			thread->next_in_table = *at;
			*at = thread;
		}
	free(old);
}

struct thread *followed_find(const struct followed *all, pid_t tid)
{
	struct thread *thread = *bucket(all, tid);

	while (thread && thread->tid != tid)
		thread = thread->next_in_table;
	return thread;
}

struct process *followed_process(const struct followed *all, pid_t pid)
{
	struct thread *leader = followed_find(all, pid);

	if (leader)
		return leader->process->pid == pid ? leader->process : NULL;
	for (size_t i = 0; i < all->count; i++) /* its leader is gone, others of it live: rare */
		if (all->process[i]->pid == pid)
			return all->process[i];
	return NULL;
}

struct process *followed_add_process(struct followed *all, const struct procstat *stat)
{
	struct process *process = calloc(1, sizeof *process), **larger;

	if (process && all->count == all->room) {
		larger = realloc(all->process, (all->room * 2 + 16) * sizeof *larger);
		if (!larger) {
			free(process);
			return NULL;
		}
		all->process = larger;
		all->room = all->room * 2 + 16;
	}
	if (!process)
		return NULL;
	process->pid = stat->pid;
	process->ppid = stat->ppid;
	process->start_ticks = stat->start_ticks;
	process->kernel = (uint8_t)stat->kernel;
	process->exit_status = -1;
	all->process[all->count++] = process;
	return process;
}

struct thread *followed_add_thread(struct followed *all, struct process *process, pid_t tid)
{
	struct thread *thread = calloc(1, sizeof *thread), **at;

	if (!thread)
		return NULL;
	if (all->thread_count >= all->table_size)
		grow_table(all);
	thread->process = process;
	thread->tid = tid;
	thread->serial = ++all->next_serial;
	thread->counted_begin = thread->counted_end = NOT_COUNTED;
	for (int i = 0; i < FILES; i++)
		thread->fds[i] = CLOSED;
	thread->next = process->threads;
	process->threads = thread;
	process->thread_count++;
	at = bucket(all, tid);
	thread->next_in_table = *at;
	*at = thread;
	all->thread_count++;
	return thread;
}

static void unlink_thread(struct followed *all, struct thread *thread)
{
	struct thread **at = bucket(all, thread->tid);

	while (*at && *at != thread)
		at = &(*at)->next_in_table;
	if (*at)
		*at = thread->next_in_table;
	for (at = &thread->process->threads; *at && *at != thread; at = &(*at)->next)
		;
	if (*at)
		*at = thread->next;
	thread->process->thread_count--;
	all->thread_count--;
}

void followed_drop_process(struct followed *all, struct process *process)
{
	for (size_t i = 0; i < all->count; i++)
		if (all->process[i] == process) {
			all->process[i] = all->process[--all->count];
			break;
		}
	free(process);
}

static struct facts *new_departed(struct followed *all)
{
	struct facts *larger;

	if (all->departed_count == all->departed_room) {
		larger = realloc(all->departed, (all->departed_room * 2 + 64) * sizeof *larger);
		if (!larger)
			return NULL;
		all->departed = larger;
		all->departed_room = all->departed_room * 2 + 64;
	}
	return &all->departed[all->departed_count++];
}

int followed_drop_thread(struct followed *all, struct thread *thread)
{
	struct process *process = thread->process;
	struct facts *facts = thread->line.first_ns ? new_departed(all) : NULL;

	if (facts)
		facts_of(thread, thread->line.last_ns, facts);
	all->recent[all->recent_next].tid = thread->tid;
	all->recent[all->recent_next].last_ns = thread->line.last_ns;
	all->recent_next = (all->recent_next + 1) % RECENT;
	close_files(all, thread);
	unlink_thread(all, thread);
	free(thread);
	if (process->threads)
		return 0;
	followed_drop_process(all, process);
	return 1;
}

int followed_recently(const struct followed *all, pid_t tid, int64_t at_ns)
{
	for (size_t i = 0; i < RECENT; i++)
		if (all->recent[i].tid == tid && all->recent[i].last_ns >= at_ns)
			return 1;
	return 0;
}

void followed_tell_exit(struct followed *all, pid_t tid, int status)
{
	for (size_t i = all->departed_count; i-- > 0;)
		if (all->departed[i].tid == tid && all->departed[i].pid == tid) {
			if (all->departed[i].exit_status < 0)
				all->departed[i].exit_status = status;
			return;
		}
}

void followed_close(struct followed *all)
{
	while (all->count) {
		struct process *process = all->process[0];
		struct thread *thread = process->threads;

		if (!thread) {
			followed_drop_process(all, process);
			continue;
		}
		close_files(all, thread);
		unlink_thread(all, thread);
		free(thread);
	}
	for (size_t i = 0; i < all->names_count; i++)
		free(all->names[i]);
	free(all->names);
	free(all->departed);
	free(all->process);
	free(all->table);
	memset(all, 0, sizeof *all);
}

/* --- names and facts --- */

uint16_t name_index(struct followed *all, const char *name, size_t length)
{
	char **larger;

	for (size_t i = 0; i < all->names_count; i++)
		if (strlen(all->names[i]) == length && memcmp(all->names[i], name, length) == 0)
			return (uint16_t)(i + 1);
	if (all->names_count >= MOST_NAMES)
		return NO_NAME;
	larger = realloc(all->names, (all->names_count + 1) * sizeof *larger);
	if (!larger)
		return NO_NAME;
	all->names = larger;
	all->names[all->names_count] = strndup(name, length);
	if (!all->names[all->names_count])
		return NO_NAME;
	return (uint16_t)++all->names_count;
}

/* What the kernel counted while the record ran: by status where it was read twice, else by the slices. */
static int64_t counted(const struct thread *thread)
{
	if (thread->counted_begin != NOT_COUNTED && thread->counted_end != NOT_COUNTED)
		return thread->counted_end - thread->counted_begin;
	if (thread->leader != SOURCE_POLL || thread->counterless)
		return NOT_COUNTED;
	/* It was given a CPU so often, and has lost it as often but for the slice that is under way, if one is. */
	return (int64_t)(thread->last.counters.slices - thread->slices_begin) + thread->line.began_running -
	       (!thread->gone && thread->line.open.state == 'R' && thread->line.open.on_cpu == 1);
}

void facts_of(const struct thread *thread, int64_t now_ns, struct facts *facts)
{
	const struct process *process = thread->process;

	memset(facts, 0, sizeof *facts);
	facts->serial = thread->serial;
	facts->start_ticks = thread->start_ticks;
	facts->first_ns = thread->line.first_ns;
	facts->last_ns = timeline_is_open(&thread->line) ? now_ns : thread->line.last_ns;
	facts->uncovered_ns = thread->line.uncovered_ns;
	facts->switches = (int64_t)thread->line.switches;
	facts->counted = counted(thread);
	facts->checked_least = (int64_t)thread->inside_end[0] - (int64_t)thread->inside_begin[1];
	facts->checked_most = (int64_t)thread->inside_end[1] - (int64_t)thread->inside_begin[0];
	/*
	 * `switch` takes its events from a thread in its exit, and counts it as dead from there on. Until its last switch the
	 * kernel counts on, however often it waits or is preempted: nothing tells how many of its count are of that.
	 */
	if (thread->dying && thread->leader == SOURCE_SWITCH && facts->counted > facts->checked_most)
		facts->counted = facts->checked_most;
	facts->run_ns = (int64_t)thread->last.counters.run_ns;
	facts->wait_ns = (int64_t)thread->last.counters.wait_ns;
	facts->pid = process->pid;
	facts->tid = thread->tid;
	facts->ppid = process->ppid;
	facts->exit_status = thread->tid == process->pid ? process->exit_status : -1;
	facts->refused = (int32_t)thread->refused[FILE_WCHAN] << 16 | thread->refused[FILE_SYSCALL];
	facts->gone = thread->gone;
	facts->kernel = process->kernel;
	facts->leader = thread->leader;
	facts->named = process->named;
	memcpy(facts->comm, thread->comm, COMM_BYTES);
	timeline_shares(&thread->line, now_ns, facts->share_ns);
}
