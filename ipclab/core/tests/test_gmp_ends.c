/*
 * Ends and strangers: whoever is killed, the others end or go on, and nobody is left; what is no segment of ours is
 * refused with a clear error, and leaves nothing mapped and no descriptor.
 *
 *   test_gmp_ends ends_report     prints "name ns" for each end, the longest of ROUNDS: how long until all are gone, or
 *                                 until all is whole again
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "gmp.h"

#define ROUNDS 10
#define NOBODY 65534

/* --- a run that has no end of its own, in a process group of its own -------------------------------------------------- */

static void run_for_ever(struct gmp *rt)
{
	make(rt, (struct gmp_config){.procs = 2, .maxg = 1000});
	gmp_program(rt, (struct step[]){{OP_SPAWN, 1, 5}, {OP_SPAWN, 2, 5}, {OP_SLEEP, 0, 3600 * NS_PER_S}}, 3);
	gmp_program(rt, (struct step[]){{OP_COMPUTE, 0, 3600 * NS_PER_S}}, 1);
	gmp_program(rt, (struct step[]){{OP_BLOCKING, 0, 3600 * NS_PER_S}}, 1);
	start(rt, 0);
}

static int32_t pid_of(struct gmp *rt, uint32_t m)
{
	return load_seq_cst(&M(rt, m)->dead) ? 0 : load_seq_cst(&M(rt, m)->procid);
}

/* sysmon, five that block, two that compute */
static void until_many(struct gmp *rt)
{
	uint32_t alive = 0;

	while (alive < 8) {
		usleep(500);
		alive = 0;
		for (uint32_t m = 1; m <= mLast(rt); m++)
			alive += pid_of(rt, m) > 0;
	}
}

/* What the caller's process tells us: it has started all, and who they are. */
struct told {
	_Atomic uint32_t going;
	_Atomic int32_t template;
};

static void caller(void *argument)
{
	struct told *told = argument;
	struct gmp rt;

	CHECK_EQ(setpgid(0, 0), 0);
	run_for_ever(&rt);
	until_many(&rt);
	store_seq_cst(&told->template, rt.template);
	store_seq_cst(&told->going, 1);
	while (gmp_wait(&rt, -1) == -EINTR)
		;
	for (;;) /* the template is gone, and we do nothing about it */
		pause();
}

/* Orphans come to us, for we are their subreaper. The caller itself is left out if it lives. */
static uint32_t left(pid_t group, pid_t but)
{
	uint32_t n = 0;
	pid_t pid;

	while ((pid = waitpid(-group, NULL, WNOHANG)) > 0)
		;
	if (kill(-group, 0) < 0)
		return 0;
	for (pid = group; pid <= group + 40; pid++) /* as they were made, one after the other; others' are not in the group */
		n += pid != but && getpgid(pid) == group;
	return n;
}

static uint64_t since(int64_t began)
{
	return (uint64_t)(monotonic_ns() - began);
}

static uint64_t until_gone(pid_t group, pid_t but, int64_t began)
{
	while (left(group, but)) {
		CHECK(monotonic_ns() < began + LIMIT_S * NS_PER_S);
		usleep(200);
	}
	return since(began);
}

static uint64_t end_of(bool template)
{
	struct told *told = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int64_t began;
	uint64_t took;
	pid_t pid;

	CHECK(told != MAP_FAILED);
	CHECK_EQ(sys_set_child_subreaper(1), 0);
	pid = spawn(caller, told);
	while (!load_seq_cst(&told->going))
		usleep(500);
	began = monotonic_ns();
	CHECK(kill(template ? load_seq_cst(&told->template) : pid, SIGKILL) == 0);
	took = until_gone(pid, template ? pid : 0, began);
	if (template)
		kill_9(pid);
	until_gone(pid, 0, monotonic_ns());
	munmap(told, 4096);
	return took;
}

static uint64_t the_caller(void)
{
	return end_of(false);
}

static uint64_t the_template(void)
{
	return end_of(true);
}

/* --- Ms that die, and a run that goes on -------------------------------------------------------------------------------- */

static void killed(struct gmp *rt, bool (*is_meant)(struct gmp *rt, uint32_t m, uint32_t *spared), uint64_t *deaths)
{
	uint32_t n = mLast(rt), spared = 0;

	*deaths = 0;
	for (uint32_t m = 1; m <= n; m++)
		if (pid_of(rt, m) > 0 && is_meant(rt, m, &spared)) {
			CHECK(kill(pid_of(rt, m), SIGKILL) == 0);
			++*deaths;
		}
}

static bool is_sysmon(struct gmp *rt, uint32_t m, uint32_t *spared)
{
	(void)spared;
	return load_seq_cst(&M(rt, m)->mstartfn) == MSTART_SYSMON;
}

static bool all_but_one(struct gmp *rt, uint32_t m, uint32_t *spared)
{
	bool spare = !*spared && load_seq_cst(&M(rt, m)->mstartfn) != MSTART_SYSMON;

	if (spare)
		*spared = m;
	return !spare;
}

static uint32_t sysmons(struct gmp *rt)
{
	uint32_t n = 0;

	for (uint32_t m = 1; m <= mLast(rt); m++)
		n += pid_of(rt, m) > 0 && load_seq_cst(&M(rt, m)->mstartfn) == MSTART_SYSMON;
	return n;
}

/* All deaths are repaired, another sysmon looks after the run, and it still does what it is told. */
static uint64_t goes_on_after(bool (*is_meant)(struct gmp *rt, uint32_t m, uint32_t *spared))
{
	struct gmp rt;
	uint64_t deaths, took;
	int64_t began;

	run_for_ever(&rt);
	until_many(&rt);
	began = monotonic_ns();
	killed(&rt, is_meant, &deaths);
	while (load_seq_cst(&rt.s->deaths) < deaths || load_seq_cst(&rt.s->gate) || sysmons(&rt) != 1) {
		CHECK(monotonic_ns() < began + LIMIT_S * NS_PER_S);
		usleep(200);
	}
	took = since(began);
	CHECK_EQ(load_seq_cst(&rt.s->fatal), 0);
	CHECK_EQ(gmp_set_procs(&rt, 3), 0);
	CHECK_EQ(load_seq_cst(&rt.s->gomaxprocs), 3);
	CHECK_EQ(gmp_stop(&rt), 0);
	CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
	gmp_destroy(&rt);
	return took;
}

static uint64_t its_sysmon(void)
{
	return goes_on_after(is_sysmon);
}

static uint64_t all_ms_but_one(void)
{
	return goes_on_after(all_but_one);
}

static uint64_t by_stop(void)
{
	struct gmp rt;
	int64_t began;
	uint64_t took;

	run_for_ever(&rt);
	until_many(&rt);
	began = monotonic_ns();
	CHECK_EQ(gmp_stop(&rt), 0);
	took = since(began);
	CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
	gmp_destroy(&rt);
	return took;
}

static const struct end {
	const char *name;
	uint64_t (*happens)(void); /* ns */
} ends_known[] = {{"caller_killed", the_caller},   {"template_killed", the_template}, {"sysmon_killed", its_sysmon},
		  {"all_but_one_M_killed", all_ms_but_one}, {"stopped", by_stop}};

static int ends_times(int rounds, FILE *to)
{
	if (THREADS_ONLY)
		return SKIP;
	for (uint32_t i = 0; i < COUNT_OF(ends_known); i++) {
		uint64_t longest = 0;

		for (int j = 0; j < rounds; j++) {
			uint64_t took = ends_known[i].happens();

			longest = took > longest ? took : longest;
		}
		fprintf(to, "%s %llu\n", ends_known[i].name, (unsigned long long)longest);
	}
	return 0;
}

static int whoever_is_killed(void)
{
	return ends_times(2, stderr);
}

static int ends_report(void)
{
	return ends_times(ROUNDS, stdout);
}

/* --- strangers ------------------------------------------------------------------------------------------------------------ */

/* Mappings of memfds; others come and go with the C library and the sanitizers. */
static uint32_t memfds_mapped(void)
{
	FILE *file = fopen("/proc/self/maps", "re");
	char line[512];
	uint32_t n = 0;

	CHECK(file != NULL);
	while (fgets(line, sizeof line, file))
		n += strstr(line, "/memfd:") != NULL;
	fclose(file);
	return n;
}

static uint32_t open_fds(void)
{
	uint32_t n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Refused for this reason, and nothing is left of the attempt. */
static void refused(int fd, int why)
{
	uint32_t maps = memfds_mapped(), fds = open_fds();
	struct gmp rt;

	CHECK_EQ(gmp_attach(&rt, fd), why);
	CHECK(!rt.segment.base && rt.segment.fd < 0);
	CHECK_EQ(memfds_mapped(), maps);
	CHECK_EQ(open_fds(), fds);
}

/* A file in memory that begins as the segment does, and is so long. */
static int copy_of(struct gmp *rt, size_t bytes)
{
	int fd = memfd_create("copy", MFD_CLOEXEC);

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, rt->s, bytes < sizeof *rt->s ? bytes : sizeof *rt->s), bytes < sizeof *rt->s ? bytes : sizeof *rt->s);
	CHECK_EQ(ftruncate(fd, (off_t)bytes), 0);
	return fd;
}

static void refused_copy(struct gmp *rt, size_t bytes, int why)
{
	int fd = copy_of(rt, bytes);

	refused(fd, why);
	close(fd);
}

static int strangers_are_refused(void)
{
	int fds[2], fd;
	struct gmp rt, other;
	uint64_t total;

	make(&rt, (struct gmp_config){.procs = 1, .maxg = 1000});
	total = rt.s->header.total_bytes;
	CHECK_EQ(gmp_attach(&other, rt.segment.fd), 0);
	gmp_destroy(&other);

	refused(-1, -EBADF);
	refused_copy(&rt, total - 4096, -ENODATA);            /* truncated */
	refused_copy(&rt, sizeof(struct segment_header) / 2, -EBADMSG);
	refused_copy(&rt, 0, -EBADMSG);
	rt.s->header.total_bytes = 65536;                     /* says itself that it is shorter than its tables */
	refused_copy(&rt, 65536, -EPROTO);
	rt.s->header.total_bytes = total;
	rt.s->recordbytes += UINT64_C(1) << 32;               /* a build whose G is larger */
	refused_copy(&rt, total, -EPROTO);
	rt.s->recordbytes -= UINT64_C(1) << 32;
	rt.s->header.version++;
	refused_copy(&rt, total, -EPROTO);
	rt.s->header.version--;
	rt.s->header.kind = SEGMENT_RING;
	refused_copy(&rt, total, -EPROTOTYPE);
	rt.s->header.kind = SEGMENT_GMP;
	gmp_destroy(&rt);

	fd = memfd_create("another program's", MFD_CLOEXEC);
	CHECK(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
	refused(fd, -EBADMSG);
	close(fd);
	CHECK_EQ(pipe(fds), 0);
	refused(fds[0], -EBADMSG);
	close(fds[0]);
	close(fds[1]);
	return 0;
}

struct strange {
	pid_t owner;
	int fd;
};

/* Somebody else, who was given no descriptor, and tries the two ways to get one. */
static void as_nobody(void *argument)
{
	const struct strange *it = argument;
	char path[64];
	int fd;

	close(it->fd);
	CHECK_EQ(setresgid(NOBODY, NOBODY, NOBODY), 0);
	CHECK_EQ(setresuid(NOBODY, NOBODY, NOBODY), 0);
	snprintf(path, sizeof path, "/proc/%d/fd/%d", it->owner, it->fd);
	fd = open(path, O_RDWR | O_CLOEXEC);
	CHECK(fd < 0 && errno == EACCES);
	refused(fd, -EBADF);
#ifdef SYS_pidfd_getfd
	fd = (int)syscall(SYS_pidfd_open, it->owner, 0);
	if (fd >= 0) {
		CHECK(syscall(SYS_pidfd_getfd, fd, it->fd, 0) < 0);
		CHECK(errno == EPERM || errno == ENOSYS);
		close(fd);
	}
#endif
}

static int another_user_gets_no_descriptor(void)
{
	struct strange it = {.owner = getpid()};
	struct gmp rt;

	if (geteuid() != 0)
		return SKIP; /* there is one user here */
	make(&rt, (struct gmp_config){.procs = 1, .maxg = 1000});
	it.fd = rt.segment.fd;
	CHECK_EQ(ending_of(spawn(as_nobody, &it)), 0);
	gmp_destroy(&rt);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"whoever_is_killed", whoever_is_killed},
		{"strangers_are_refused", strangers_are_refused},
		{"another_user_gets_no_descriptor", another_user_gets_no_descriptor},
		{NULL, NULL},
	};

	if (argc > 1 && strcmp(argv[1], "ends_report") == 0)
		return ends_report();
	return run_tests(tests, argc, argv);
}
