/* Segments: what is refused, what is left, and that room is asked for before it is touched. */
#define _GNU_SOURCE
#include "core/segment.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "test.h"

static char *unique_name(void)
{
	static char name[64];
	static int count;

	snprintf(name, sizeof name, "/ipclab-ctest-%d-%d", (int)getpid(), count++);
	return name;
}

static int two_mappings_share(void)
{
	struct segment first, second;

	CHECK_EQ(segment_create(&first, NULL, SEGMENT_PLAIN, sizeof(struct segment_header), 10000, 0), 0);
	CHECK_EQ(segment_attach(&second, first.fd, SEGMENT_PLAIN, 0), 0);
	CHECK(first.base != second.base);
	strcpy(segment_data(&first), "hello");
	CHECK(strcmp(segment_data(&second), "hello") == 0);
	CHECK_EQ(segment_header_of(&second)->creator, identity_self());
	segment_close(&first);
	CHECK(strcmp(segment_data(&second), "hello") == 0); /* the memory lives as long as one mapping does */
	segment_close(&second);
	segment_close(&second); /* closing twice is allowed */
	return 0;
}

static int the_mirror_is_the_same_memory(void)
{
	struct segment segment;
	size_t data_bytes;
	char *data;

	CHECK_EQ(segment_create(&segment, NULL, SEGMENT_PLAIN, sizeof(struct segment_header), 8192, 1), 0);
	data = segment_data(&segment);
	data_bytes = segment.total_bytes - segment_header_of(&segment)->header_bytes;
	memcpy(data + data_bytes - 3, "abcdef", 6);
	CHECK(memcmp(data, "def", 3) == 0);
	CHECK(memcmp(data + data_bytes, "def", 3) == 0);
	segment_close(&segment);
	return 0;
}

static int a_memfd_cannot_be_shrunk(void)
{
	struct segment segment;

	CHECK_EQ(segment_create(&segment, NULL, SEGMENT_PLAIN, sizeof(struct segment_header), 100, 0), 0);
	CHECK(ftruncate(segment.fd, 0) < 0 && errno == EPERM);
	CHECK(ftruncate(segment.fd, 1 << 20) < 0 && errno == EPERM);
	segment_close(&segment);
	return 0;
}

static int names_are_exclusive_and_private(void)
{
	struct segment first, second;
	struct stat info;
	char *name = unique_name();

	CHECK_EQ(segment_create(&first, name, SEGMENT_PLAIN, sizeof(struct segment_header), 100, 0), 0);
	CHECK(fstat(first.fd, &info) == 0 && (info.st_mode & 0777) == 0600);
	CHECK_EQ(segment_create(&second, name, SEGMENT_PLAIN, sizeof(struct segment_header), 100, 0), -EEXIST);
	CHECK_EQ(segment_attach_named(&second, name, SEGMENT_PLAIN, 0), 0);
	segment_close(&second);
	segment_close(&first);
	CHECK(shm_unlink(name) == 0);
	CHECK_EQ(segment_attach_named(&second, name, SEGMENT_PLAIN, 0), -ENOENT);
	return 0;
}

static int attach_to(const void *content, size_t size)
{
	struct segment segment;
	int fd = memfd_create("test", MFD_CLOEXEC), rc;

	CHECK(fd >= 0 && write(fd, content, size) == (ssize_t)size);
	rc = segment_attach(&segment, fd, SEGMENT_PLAIN, 0);
	if (rc == 0)
		segment_close(&segment);
	close(fd);
	return rc;
}

static int what_is_no_segment_is_refused(void)
{
	struct segment segment;
	struct segment_header good, bad;
	int ends[2];

	CHECK_EQ(segment_create(&segment, NULL, SEGMENT_PLAIN, sizeof good, 100, 0), 0);
	good = *segment_header_of(&segment);
	segment_close(&segment);
	CHECK_EQ(attach_to("", 0), -EBADMSG);
	CHECK_EQ(attach_to(&good, 20), -EBADMSG);
	CHECK_EQ(attach_to(&good, sizeof good), -ENODATA); /* truncated: the header promises more */
	bad = good, bad.magic++;
	CHECK_EQ(attach_to(&bad, sizeof bad), -EBADMSG);
	bad = good, bad.version++;
	CHECK_EQ(attach_to(&bad, sizeof bad), -EPROTO);
	bad = good, bad.kind = SEGMENT_RING;
	CHECK_EQ(attach_to(&bad, sizeof bad), -EPROTOTYPE);
	bad = good, bad.header_bytes = UINT64_MAX;
	CHECK_EQ(attach_to(&bad, sizeof bad), -ENODATA);
	bad = good, bad.header_bytes = 0;
	CHECK_EQ(attach_to(&bad, sizeof bad), -ENODATA);
	CHECK(pipe(ends) == 0);
	CHECK_EQ(segment_attach(&segment, ends[0], SEGMENT_PLAIN, 0), -EBADMSG);
	close(ends[0]), close(ends[1]);
	CHECK_EQ(segment_attach(&segment, 9999, SEGMENT_PLAIN, 0), -EBADF);
	return 0;
}

static int absurd_sizes_are_refused(void)
{
	struct segment segment;

	CHECK_EQ(segment_create(&segment, NULL, SEGMENT_PLAIN, 1, 100, 0), -EINVAL);
	CHECK_EQ(segment_create(&segment, NULL, SEGMENT_PLAIN, sizeof(struct segment_header), SIZE_MAX, 0), -EINVAL);
	/* More than the machine has: refused before the out-of-memory killer hears of it. */
	CHECK_EQ(segment_create(&segment, NULL, SEGMENT_PLAIN, sizeof(struct segment_header), (size_t)1 << 60, 0), -ENOSPC);
	return 0;
}

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY), ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok ? 0 : -1;
}

/* In a mount namespace of its own with a /dev/shm of one megabyte. */
static void fill_a_small_shm(void *unused)
{
	struct segment segment;
	char map[64], *name = unique_name();
	uid_t uid = getuid();
	gid_t gid = getgid();

	(void)unused;
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
		_exit(SKIP);
	snprintf(map, sizeof map, "0 %u 1", (unsigned)uid);
	if (write_file("/proc/self/uid_map", map) < 0 || write_file("/proc/self/setgroups", "deny") < 0)
		_exit(SKIP);
	snprintf(map, sizeof map, "0 %u 1", (unsigned)gid);
	if (write_file("/proc/self/gid_map", map) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=1m") < 0)
		_exit(SKIP);
	CHECK_EQ(segment_create(&segment, name, SEGMENT_PLAIN, sizeof(struct segment_header), 8 << 20, 0), -ENOSPC);
	CHECK_EQ(access("/dev/shm/", F_OK), 0);
	CHECK(shm_unlink(name) < 0 && errno == ENOENT); /* nothing is left of the failed one */
	CHECK_EQ(segment_create(&segment, name, SEGMENT_PLAIN, sizeof(struct segment_header), 512 << 10, 0), 0);
	memset(segment_data(&segment), 1, 512 << 10); /* every page is there: no SIGBUS */
	segment_close(&segment);
	shm_unlink(name);
}

static int a_full_shm_is_an_error_not_a_signal(void)
{
	int status = ending_of(spawn(fill_a_small_shm, NULL));

	CHECK(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void create_for_ever(void *argument)
{
	struct segment segment;

	for (;;) {
		if (segment_create(&segment, argument, SEGMENT_PLAIN, sizeof(struct segment_header), 65536, 0) == 0)
			segment_close(&segment);
		if (argument)
			shm_unlink(argument);
	}
}

/* However far the creator got, what it leaves under its name can be unlinked, and attaching to it is safe. */
static int a_killed_creator_leaves_only_a_name(void)
{
	uint64_t seed = 1;

	for (int i = 0; i < KILLS / 2; i++) {
		char *name = unique_name();
		struct segment segment;
		pid_t pid = spawn(create_for_ever, name);
		int rc;

		pass_ns(random_below(&seed, 400000));
		kill_9(pid);
		rc = segment_attach_named(&segment, name, SEGMENT_PLAIN, 0);
		CHECK(rc == 0 || rc == -ENOENT || rc == -EBADMSG);
		if (rc == 0)
			memset(segment_data(&segment), 1, 65536);
		segment_close(&segment);
		CHECK(shm_unlink(name) == 0 || errno == ENOENT);
	}
	return 0;
}

static int a_look_cannot_write(void)
{
	struct segment segment, look;
	char path[40];
	int fd, status;
	pid_t pid;

	CHECK_EQ(segment_create(&segment, NULL, SEGMENT_PLAIN, sizeof(struct segment_header), 100, 0), 0);
	snprintf(path, sizeof path, "/proc/self/fd/%d", segment.fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	CHECK_EQ(segment_attach(&look, fd, SEGMENT_PLAIN, 0), -EACCES);
	CHECK_EQ(segment_attach_readonly(&look, fd, SEGMENT_GMP), -EPROTOTYPE);
	CHECK_EQ(segment_attach_readonly(&look, fd, SEGMENT_PLAIN), 0);
	*(char *)segment_data(&segment) = 7;
	CHECK_EQ(*(char *)segment_data(&look), 7);
	pid = fork();
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL); /* not the sanitizer's */
		*(volatile char *)segment_data(&look) = 8;
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	CHECK_EQ(*(char *)segment_data(&segment), 7);
	segment_close(&look);
	segment_close(&segment);
	close(fd);
	return 0;
}

/* A reserved segment has memory where it was committed, seen by a mapping that is older than the memory. */
static int a_reserved_segment_grows_under_its_mappings(void)
{
	const size_t total = (size_t)1 << 30;
	struct segment segment, other, none;
	struct stat before, after;

	CHECK_EQ(segment_reserve(&segment, SEGMENT_GMP, 4096, total, 8192), 0);
	CHECK_EQ(segment_attach(&other, segment.fd, SEGMENT_GMP, 0), 0);
	CHECK_EQ(fstat(segment.fd, &before), 0);
	CHECK_EQ(before.st_size, total);
	CHECK_EQ(before.st_blocks * 512, 8192);
	CHECK_EQ(segment_commit(&segment, total - 100, 100), 0);
	CHECK_EQ(segment_commit(&segment, total - 100, 100), 0);
	CHECK_EQ(fstat(segment.fd, &after), 0);
	CHECK_EQ(after.st_blocks * 512, 8192 + 4096);
	((char *)segment.base)[total - 1] = 7;
	CHECK_EQ(((char *)other.base)[total - 1], 7);
	CHECK_EQ(segment_commit(&segment, total - 100, 101), -EINVAL);
	CHECK_EQ(segment_reserve(&none, SEGMENT_GMP, 4096, 4096, 8192), -EINVAL);
	segment_close(&other);
	segment_close(&segment);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"two_mappings_share", two_mappings_share},
		{"the_mirror_is_the_same_memory", the_mirror_is_the_same_memory},
		{"a_memfd_cannot_be_shrunk", a_memfd_cannot_be_shrunk},
		{"names_are_exclusive_and_private", names_are_exclusive_and_private},
		{"what_is_no_segment_is_refused", what_is_no_segment_is_refused},
		{"absurd_sizes_are_refused", absurd_sizes_are_refused},
		{"a_full_shm_is_an_error_not_a_signal", a_full_shm_is_an_error_not_a_signal},
		{"a_killed_creator_leaves_only_a_name", a_killed_creator_leaves_only_a_name},
		{"a_look_cannot_write", a_look_cannot_write},
		{"a_reserved_segment_grows_under_its_mappings", a_reserved_segment_grows_under_its_mappings},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
