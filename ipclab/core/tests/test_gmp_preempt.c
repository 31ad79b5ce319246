/*
 * Gs stopped in the middle of their own code, and Ms that do not answer: stopped, traced, in uninterruptible sleep, deaf
 * to SIGURG. With processes only: there are no signals between threads.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "core/gmp/point.h"
#include "core/gmp/stopped.h"
#include "core/zoo.h"
#include "gmp.h"

#define LONG_ROUNDS 20000000 /* some 30 ms: a few preemptions each */
#define SHORT_ROUNDS 1000000

static struct gmp world;

static void world_of(uint32_t procs, uint64_t (*user)(uint32_t, int64_t), uint32_t mainends)
{
	struct gmp_config config = {.procs = procs, .maxg = 1000, .eventslots = 4096, .mainends = mainends, .hooks = HOOKS};

	config.hooks.user = user;
	CHECK_EQ(gmp_create(&world, &config), 0);
}

static void add(const struct step *steps, uint32_t n)
{
	CHECK(gmp_program(&world, steps, n) >= 0);
}
#define ADD(...) add((struct step[]){__VA_ARGS__}, COUNT_OF(((struct step[]){__VA_ARGS__})))

static void passes(uint32_t us)
{
	futex_wait_until(&world.s->exiting, 0, monotonic_ns() + (int64_t)us * 1000);
}

static int32_t pid_of(uint32_t m)
{
	return load_seq_cst(&M(&world, m)->procid);
}

static char letter(int32_t pid)
{
	char path[32], text[512];
	FILE *file;
	size_t size;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	file = fopen(path, "re");
	if (!file)
		return '?';
	size = fread(text, 1, sizeof text - 1, file);
	fclose(file);
	text[size] = 0;
	return strrchr(text, ')') ? strrchr(text, ')')[2] : '?';
}

static void becomes(int32_t pid, char state)
{
	int64_t deadline = SECONDS(60);

	while (letter(pid) != state && monotonic_ns() < deadline)
		usleep(200);
	CHECK_EQ(letter(pid), state);
}

/* An M that runs a G of this program, in that G's own code; 0: none just now. */
static uint32_t in_code_of(uint32_t program)
{
	for (uint32_t m = 1; m <= mLast(&world); m++) {
		uint32_t g = load_seq_cst(&M(&world, m)->curg);

		if (g && G(&world, g)->startpc == program && load_seq_cst(&M(&world, m)->where) == M_USER &&
		    load_seq_cst(&M(&world, m)->p))
			return m;
	}
	return 0;
}

/* An M parked in its handler with a G of this program. */
static uint32_t parked_in(uint32_t program)
{
	for (uint32_t m = 1; m <= mLast(&world); m++) {
		uint32_t g = load_seq_cst(&M(&world, m)->lockedg);

		if (g && G(&world, g)->startpc == program && load_seq_cst(&M(&world, m)->where) == M_PARKED &&
		    load_seq_cst(&M(&world, m)->lockedwait))
			return m;
	}
	return 0;
}

static uint32_t wait_for(uint32_t (*look)(uint32_t), uint32_t program)
{
	int64_t deadline = SECONDS(60);
	uint32_t m;

	while (!(m = look(program)) && !load_seq_cst(&world.s->fatal) && monotonic_ns() < deadline)
		passes(100);
	if (!m)
		says(&world);
	CHECK(m);
	return m;
}

/* Stops an M in the code of a G of this program, and nowhere else. */
static uint32_t stop_in_code_of(uint32_t program)
{
	for (;;) {
		uint32_t m = wait_for(in_code_of, program), g;

		CHECK_EQ(kill(pid_of(m), SIGSTOP), 0);
		becomes(pid_of(m), 'T');
		g = load_seq_cst(&M(&world, m)->curg);
		if (load_seq_cst(&M(&world, m)->where) == M_USER && load_seq_cst(&M(&world, m)->p) && g &&
		    G(&world, g)->startpc == program)
			return m;
		CHECK_EQ(kill(pid_of(m), SIGCONT), 0);
	}
}

static void wake_all(void)
{
	for (uint32_t m = 1; m <= mLast(&world); m++)
		if (pid_of(m) > 0 && !load_seq_cst(&M(&world, m)->dead) && !load_seq_cst(&M(&world, m)->exiting))
			kill(pid_of(m), SIGCONT);
}

static void reap(pid_t pid)
{
	int status;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* --- preemption --- */

/* One P, and Gs that compute for ever and look at nothing, beside one that wants to run. */
static int others_run_beside_crunching(void)
{
	world_of(1, NULL, 1);
	ADD({OP_SPAWN, 1, 4}, {OP_YIELD, 0, 0}, {OP_SLEEP, 0, 1000}, {OP_LOOP, 1, 5});
	ADD({OP_CRUNCH, 0, INT64_MAX});
	start(&world, 0);
	ends(&world, FATAL_DONE);
	CHECK_EQ(gmp_tally(&world, 0).done, 1);
	CHECK(load_relaxed(&world.s->parks) > 0);
	gmp_destroy(&world);
	return 0;
}

/* One step, as a loop of go statements: the one P does not wait for its end. (When sysmon comes is the kernel's affair.) */
static int others_run_beside_who_makes_many(void)
{
	bool gave_way = false;

	for (int round = 0; !gave_way; round++) {
		CHECK(round < 50);
		CHECK_EQ(gmp_create(&world, &(struct gmp_config){.procs = 1, .maxg = 110000, .hooks = HOOKS}), 0);
		ADD({OP_SPAWN, 1, 100000});
		ADD({OP_EXIT, 0, 0});
		start(&world, 0);
		ends(&world, FATAL_DONE);
		check_done(&world, 1, 100000, 0);
		gave_way = load_relaxed(&world.s->preempts) > 0;
		gmp_destroy(&world);
	}
	return 0;
}

/* An M that parked with a G starts no other one before it. Returns how often it parked. */
static uint64_t parks_of(uint32_t m)
{
	uint64_t from = 0, lost = 0, parked = 0, with = 0;
	struct event some[64];
	uint32_t n;

	while ((n = eventsRead(&world, m, &from, some, COUNT_OF(some), &lost)))
		for (uint32_t i = 0; i < n; i++) {
			uint32_t kind = load_relaxed(&some[i].what) & 0xffff;

			if (kind == EV_PARK && load_relaxed(&some[i].arg) == 2) {
				with = load_relaxed(&some[i].goid);
				parked++;
			} else if (kind == EV_GO_START && with) {
				CHECK_EQ(load_relaxed(&some[i].goid), with);
				with = 0;
			}
		}
	CHECK_EQ(lost, 0);
	return parked;
}

static int a_preempted_g_keeps_its_m(void)
{
	uint64_t parks = 0;

	for (uint32_t procs = 1; procs <= 3; procs++) {
		world_of(procs, NULL, 0);
		ADD({OP_SPAWN, 1, 6}, {OP_SPAWN, 2, 2});
		ADD({OP_CRUNCH, 0, LONG_ROUNDS}, {OP_CRUNCH, 0, SHORT_ROUNDS});
		ADD({OP_SLEEP, 0, 1000000}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, 20});
		start(&world, 0);
		ends(&world, FATAL_DONE);
		check_done(&world, 1, 6, 6 * (crunch(LONG_ROUNDS) + crunch(SHORT_ROUNDS)));
		check_done(&world, 2, 2, 0);
		for (uint32_t m = 1; m <= mLast(&world); m++)
			parks += parks_of(m);
		gmp_destroy(&world);
	}
	CHECK(parks > 0);
	return 0;
}

static int fds[2];

/* 0: reads a byte, which blocks, and says nothing of it; 1: writes it. */
static uint64_t through_a_pipe(uint32_t which, int64_t argument)
{
	char byte = (char)argument;

	if (which == 1)
		return write(fds[1], &byte, 1) != 1;
	return read(fds[0], &byte, 1) == 1 ? (uint64_t)byte : 1000;
}

/* One P: who blocks in the kernel unseen is parked by the signal too, and its read goes on as if nothing had been. */
static int a_read_goes_on_after_parking(void)
{
	CHECK_EQ(pipe(fds), 0);
	world_of(1, through_a_pipe, 0);
	ADD({OP_SPAWN, 2, 1}, {OP_SPAWN, 1, 1});
	ADD({OP_USER, 0, 0}, {OP_LOOP, 0, 5});
	ADD({OP_YIELD, 0, 0}, {OP_SLEEP, 0, 30000000}, {OP_USER, 1, 7}, {OP_LOOP, 0, 5});
	start(&world, 0);
	ends(&world, FATAL_DONE);
	check_done(&world, 1, 1, 5 * 7);
	check_done(&world, 2, 1, 0);
	CHECK(load_relaxed(&world.s->parks) > 0);
	gmp_destroy(&world);
	close(fds[0]);
	close(fds[1]);
	return 0;
}

/* Not parked while a depth counter says so, however often it is asked; parked as soon as it is back to 0. */
static uint64_t holds_on(uint32_t which, int64_t argument)
{
	int64_t deadline = SECONDS(60);
	uint64_t before, held;

	(void)which, (void)argument;
	acquirem(&world);
	acquirem(&world);
	before = load_seq_cst(&world.s->parks);
	while (!world.preempted && monotonic_ns() < deadline)
		cpu_relax();
	crunch(LONG_ROUNDS);
	releasem(&world);
	crunch(LONG_ROUNDS);
	held = load_seq_cst(&world.s->parks);
	releasem(&world);
	return world.preempted || held != before || load_seq_cst(&world.s->parks) == before ? 1000 : 1;
}

static int deferred_while_it_must_not_be(void)
{
	world_of(1, holds_on, 1);
	ADD({OP_SPAWN, 1, 1}, {OP_USER, 0, 0}, {OP_LOOP, 1, 3});
	ADD({OP_YIELD, 0, 0}, {OP_LOOP, 0, INT32_MAX});
	start(&world, 0);
	ends(&world, FATAL_DONE);
	CHECK_EQ(gmp_tally(&world, 0).acc, 3);
	gmp_destroy(&world);
	return 0;
}

static int killed_while_parked(void)
{
	world_of(1, NULL, 0);
	ADD({OP_SPAWN, 1, 5}, {OP_SPAWN, 2, 3});
	ADD({OP_CRUNCH, 0, 3 * LONG_ROUNDS});
	ADD({OP_SLEEP, 0, 1000000}, {OP_LOOP, 0, 20});
	start(&world, 0);
	CHECK_EQ(kill(pid_of(wait_for(parked_in, 1)), SIGKILL), 0);
	ends(&world, FATAL_DONE);
	CHECK_EQ(load_relaxed(&world.s->lostgs), 1);
	CHECK_EQ(load_relaxed(&world.programs[1].lost), 1);
	CHECK_EQ(gmp_tally(&world, 1).done, 4);
	CHECK_EQ(gmp_tally(&world, 1).acc, 4 * crunch(3 * LONG_ROUNDS));
	check_done(&world, 2, 3, 0);
	gmp_destroy(&world);
	return 0;
}

/* --- Ms that stand still in their G's code --- */

static void crunchers(uint32_t procs, int64_t loops)
{
	world_of(procs, NULL, 0);
	ADD({OP_SPAWN, 1, 3}, {OP_SPAWN, 2, 3}, {OP_SPAWN, 3, 2});
	ADD({OP_CRUNCH, 0, SHORT_ROUNDS}, {OP_LOOP, 0, loops});
	ADD({OP_SLEEP, 0, 300000}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, 100});
	ADD({OP_COMPUTE, 0, 2000000}, {OP_LOOP, 0, 30});
	start(&world, 0);
}

static void crunched(int64_t loops)
{
	ends(&world, FATAL_DONE);
	check_done(&world, 1, 3, 3 * (uint64_t)loops * crunch(SHORT_ROUNDS));
	check_done(&world, 2, 3, 0);
	check_done(&world, 3, 2, 0);
	gmp_destroy(&world);
}

/* Stopped once, and the world stopped 100 times meanwhile: it loses its P, and gets one when it is continued. */
static int the_world_stops_without_the_stopped(void)
{
	for (uint32_t program = 1; program <= 3; program += 2) { /* also one that polls */
		uint32_t m;

		crunchers(2, 50);
		m = stop_in_code_of(program);
		for (uint32_t i = 0; i < 100; i++)
			CHECK_EQ(gmp_set_procs(&world, 1 + i % 3), 0);
		CHECK(load_seq_cst(&world.s->taken) >= 1);
		CHECK_EQ(load_seq_cst(&M(&world, m)->p), 0);
		CHECK_EQ(kill(pid_of(m), SIGCONT), 0);
		CHECK_EQ(gmp_set_procs(&world, 2), 0);
		crunched(50);
	}
	return 0;
}

/* SIGCONT to everybody at random instants, for ever. */
static void waker(void *argument)
{
	uint64_t seed = *(const uint64_t *)argument;

	for (;;) {
		passes(random_below(&seed, 6000));
		wake_all();
	}
}

static int stopped_and_continued_at_random(void)
{
	uint64_t seed = 17, taken = 0;

	for (int round = 0; round < 4 || taken < 20; round++) {
		pid_t pid;

		crunchers(1 + round % 3, 60);
		pid = spawn(waker, &seed);
		for (int i = 0; i < 100 && !load_seq_cst(&world.s->fatal); i++) {
			uint32_t m = in_code_of(random_below(&seed, 2) ? 1 : 3);

			if (m)
				kill(pid_of(m), SIGSTOP);
			passes(random_below(&seed, 100));
			CHECK_EQ(gmp_set_procs(&world, 1 + random_below(&seed, 3)), 0);
		}
		kill(pid, SIGKILL);
		CHECK_EQ(waitpid(pid, NULL, 0), pid);
		wake_all();
		taken += load_seq_cst(&world.s->taken);
		crunched(60);
		CHECK(round < 100);
	}
	fprintf(stderr, "  %llu Ps taken\n", (unsigned long long)taken);
	return 0;
}

static int the_world_stops_without_the_traced(void)
{
	uint32_t m = 0;
	int rc;

	crunchers(2, 50);
	for (;;) {
		m = wait_for(in_code_of, 1);
		rc = zoo_trace_stop(pid_of(m));
		if (rc || (load_seq_cst(&M(&world, m)->where) == M_USER && load_seq_cst(&M(&world, m)->p)))
			break;
		CHECK_EQ(zoo_trace_end(pid_of(m)), 0);
	}
	if (rc == 0) {
		CHECK_EQ(letter(pid_of(m)), 't');
		for (uint32_t i = 0; i < 20; i++)
			CHECK_EQ(gmp_set_procs(&world, 1 + i % 3), 0);
		CHECK(load_seq_cst(&world.s->taken) >= 1);
		CHECK_EQ(zoo_trace_end(pid_of(m)), 0);
	}
	crunched(50);
	return rc == -EPERM ? SKIP : rc;
}

static uint64_t sleeps_in_d(uint32_t which, int64_t argument)
{
	(void)which;
	return zoo_sleep_in_d(fds[0], SECONDS(60)) == 0 ? (uint64_t)argument : 1000;
}

static int the_world_stops_without_one_in_d(void)
{
	uint32_t m;

	CHECK_EQ(pipe(fds), 0);
	world_of(1, sleeps_in_d, 0);
	ADD({OP_SPAWN, 1, 1});
	ADD({OP_USER, 0, 9});
	start(&world, 0);
	m = wait_for(in_code_of, 1);
	becomes(pid_of(m), 'D');
	for (uint32_t i = 0; i < 5; i++)
		CHECK_EQ(gmp_set_procs(&world, 1 + i % 2), 0);
	CHECK_EQ(load_seq_cst(&world.s->taken), 1);
	CHECK_EQ(write(fds[1], "x", 1), 1);
	ends(&world, FATAL_DONE);
	check_done(&world, 1, 1, 9);
	gmp_destroy(&world);
	close(fds[0]);
	close(fds[1]);
	return 0;
}

/* The next M that comes to the point is struck by the signal; the run may have begun. */
static void arm(const char *point, int signo)
{
	store_seq_cst(&world.s->killcountdown, 1);
	store_seq_cst(&world.s->killsignal, signo);
	store_seq_cst(&world.s->killpoint, pointhash(point));
}

static void falls(void)
{
	int64_t deadline = SECONDS(60);

	while (load_seq_cst(&world.s->killpoint) && monotonic_ns() < deadline)
		passes(100);
	CHECK_EQ(load_seq_cst(&world.s->killpoint), 0);
}

/* The stopper is killed while he takes the P of a stopped M: his G is lost, the other one loses nothing. */
static int killed_while_it_takes(void)
{
	static const char *const points[] = {"take.marked", "take.status", "take.unwired", "take.oldp", "take.p", "take.syscall"};

	for (uint32_t i = 0; i < 2 * COUNT_OF(points); i++) {
		int64_t deadline = SECONDS(60);
		uint32_t m;

		world_of(2, NULL, 0);
		ADD({OP_SPAWN, 1, 2}, {OP_SPAWN, 2, 1});
		ADD({OP_CRUNCH, 0, SHORT_ROUNDS}, {OP_LOOP, 0, 20});
		ADD({OP_STOPWORLD, 3, 0}, {OP_SLEEP, 0, 100000}, {OP_LOOP, 0, 200});
		arm(points[i % COUNT_OF(points)], SIGKILL);
		start(&world, 0);
		m = stop_in_code_of(1);
		falls();
		while (i < COUNT_OF(points) && !load_seq_cst(&world.s->repairs) && monotonic_ns() < deadline)
			passes(100); /* the second time the M comes while the dead one's locks are still his */
		CHECK_EQ(kill(pid_of(m), SIGCONT), 0);
		ends(&world, FATAL_DONE);
		CHECK_EQ(load_relaxed(&world.programs[2].lost), 1);
		check_done(&world, 1, 2, 40 * crunch(SHORT_ROUNDS));
		gmp_destroy(&world);
	}
	return 0;
}

/* Of an M that comes back and finds its P taken: nobody looks at that G any more but its M. */
static int struck_where_its_p_was(void)
{
	static const int signals[] = {SIGKILL, SIGSTOP};

	for (uint32_t i = 0; i < 2 * COUNT_OF(signals); i++) {
		bool killed = signals[i % 2] == SIGKILL;
		uint32_t m;

		world_of(2, NULL, 0);
		ADD({OP_SPAWN, 1, 3});
		ADD({OP_CRUNCH, 0, SHORT_ROUNDS}, {OP_LOOP, 0, 50});
		start(&world, 0);
		m = stop_in_code_of(1);
		CHECK_EQ(gmp_set_procs(&world, 3), 0);
		CHECK(load_seq_cst(&world.s->taken) >= 1);
		arm("robbed.seen", signals[i % 2]);
		CHECK_EQ(kill(pid_of(m), SIGCONT), 0);
		falls();
		if (!killed) {
			becomes(pid_of(m), 'T');
			CHECK_EQ(kill(pid_of(m), SIGCONT), 0);
		}
		ends(&world, FATAL_DONE);
		CHECK_EQ(load_relaxed(&world.s->lostgs), killed);
		CHECK_EQ(gmp_tally(&world, 1).done, 3 - (uint64_t)killed);
		CHECK_EQ(gmp_tally(&world, 1).acc, (3 - (uint64_t)killed) * 50 * crunch(SHORT_ROUNDS));
		gmp_destroy(&world);
	}
	return 0;
}

/* An M is struck while it parks its G, or takes it up again. */
static int struck_while_it_parks(void)
{
	static const char *const points[] = {"preempt.lockedm", "preempt.lockedg", "preempt.unlockedm", "preempt.unlockedg"};

	for (uint32_t i = 0; i < 2 * COUNT_OF(points); i++) {
		bool killed = i < COUNT_OF(points);

		world_of(1, NULL, 0);
		ADD({OP_SPAWN, 1, 5}, {OP_SPAWN, 2, 3});
		ADD({OP_CRUNCH, 0, 3 * LONG_ROUNDS});
		ADD({OP_SLEEP, 0, 1000000}, {OP_LOOP, 0, 20});
		arm(points[i % COUNT_OF(points)], killed ? SIGKILL : SIGSTOP);
		start(&world, 0);
		falls();
		if (!killed) {
			passes(2000);
			wake_all();
		}
		ends(&world, FATAL_DONE);
		CHECK_EQ(load_relaxed(&world.s->lostgs), killed);
		CHECK_EQ(gmp_tally(&world, 1).done, 5 - (uint64_t)killed);
		CHECK_EQ(gmp_tally(&world, 1).acc, (5 - (uint64_t)killed) * crunch(3 * LONG_ROUNDS));
		check_done(&world, 2, 3, 0);
		gmp_destroy(&world);
	}
	return 0;
}

/* --- Ms that are named --- */

static _Atomic uint32_t *flag; /* shared by all of the test's processes */

/* Waits until an M is named for `why`, in that state (0: any); then lets it go on. */
static void expects(enum stall why, char state)
{
	int64_t deadline = SECONDS(60);
	struct gmp_stalled one = {0};

	while (!gmp_stalled(&world, &one, 1) && monotonic_ns() < deadline)
		passes(1000);
	store_seq_cst(flag, 1);
	wake_all();
	if (one.why != why || one.pid <= 0 || one.pid != pid_of((uint32_t)one.m + 1) || (state && one.state != state)) {
		fprintf(stderr, "named: m%lld pid %d why %u state %c\n", (long long)one.m, one.pid, one.why, one.state ? one.state : '-');
		_exit(1);
	}
	_exit(0);
}

static void expects_inside(void *argument)
{
	(void)argument;
	expects(STALL_INSIDE, 'T');
}

static void expects_deaf(void *argument)
{
	(void)argument;
	expects(STALL_DEAF, 0);
}

static void nobody_is_named(void)
{
	struct gmp_stalled one;

	CHECK_EQ(gmp_stalled(&world, &one, 1), 0);
}

/* Stopped inside the runtime: the stopper, or the repairer, waits, and says for whom. With and without a P, a lock. */
static int stopped_inside_is_named(void)
{
	static const char *const points[] = {"gosched.runnable", "pidleput.linked", "releasep.m", "gosched.runnable"};

	for (uint32_t i = 0; i < COUNT_OF(points); i++) {
		int64_t deadline = SECONDS(60);
		pid_t pid;

		world_of(2, NULL, 0);
		ADD({OP_SPAWN, 1, 4}, {OP_SLEEP, 0, 100000}, {OP_LOOP, 1, 200});
		ADD({OP_YIELD, 0, 0}, {OP_SLEEP, 0, 10000}, {OP_LOOP, 0, 100});
		store_seq_cst(&world.s->killcountdown, 20);
		store_seq_cst(&world.s->killsignal, SIGSTOP);
		store_seq_cst(&world.s->killpoint, pointhash(points[i]));
		start(&world, 0);
		while (load_seq_cst(&world.s->killpoint) && monotonic_ns() < deadline)
			passes(100);
		CHECK_EQ(load_seq_cst(&world.s->killpoint), 0);
		pid = spawn(expects_inside, NULL);
		if (i + 1 < COUNT_OF(points))
			CHECK_EQ(gmp_set_procs(&world, 3), 0);
		else
			kill(pid_of(1), SIGKILL); /* sysmon: no G is lost, but there is something to repair */
		reap(pid);
		ends(&world, FATAL_DONE);
		nobody_is_named();
		check_done(&world, 1, 4, 0);
		gmp_destroy(&world);
	}
	return 0;
}

/* Blocks SIGURG (0) or ignores it (1), until the flag is set. */
static uint64_t is_deaf(uint32_t which, int64_t argument)
{
	sigset_t urg, before;
	struct sigaction ignore = {.sa_handler = SIG_IGN}, old;

	sigemptyset(&urg);
	sigaddset(&urg, SIGURG);
	if (which == 0)
		sigprocmask(SIG_BLOCK, &urg, &before);
	else
		sigaction(SIGURG, &ignore, &old);
	while (!load_seq_cst(flag))
		cpu_relax();
	if (which == 0)
		sigprocmask(SIG_SETMASK, &before, NULL);
	else
		sigaction(SIGURG, &old, NULL);
	return (uint64_t)argument;
}

/* Found by who stops the world, and by sysmon when another G waits for the only P. */
static int the_deaf_are_named(void)
{
	for (uint32_t i = 0; i < 4; i++) {
		pid_t pid;

		store_seq_cst(flag, 0);
		world_of(1, is_deaf, 0);
		ADD({OP_SPAWN, 1, 1});
		ADD({OP_SPAWN, 2, 1}, {OP_USER, i % 2, 5});
		ADD({OP_YIELD, 0, 0});
		start(&world, 0);
		wait_for(in_code_of, 1);
		pid = spawn(expects_deaf, NULL);
		if (i < 2)
			CHECK_EQ(gmp_set_procs(&world, 2), 0);
		reap(pid);
		CHECK(load_seq_cst(&world.s->stalls) >= 1);
		ends(&world, FATAL_DONE);
		nobody_is_named();
		check_done(&world, 1, 1, 5);
		gmp_destroy(&world);
	}
	return 0;
}

/* A stopped M that is deaf too would run on without a P when it is continued: not taken, but named. */
static int the_deaf_are_not_taken(void)
{
	pid_t pid;
	uint32_t m;

	store_seq_cst(flag, 0);
	world_of(1, is_deaf, 0);
	ADD({OP_SPAWN, 1, 1});
	ADD({OP_USER, 0, 5});
	start(&world, 0);
	m = wait_for(in_code_of, 1);
	usleep(20000);
	m = stop_in_code_of(1);
	pid = spawn(expects_deaf, NULL);
	CHECK_EQ(gmp_set_procs(&world, 2), 0);
	reap(pid);
	CHECK(pid_of(m) > 0);
	CHECK_EQ(load_seq_cst(&world.s->taken), 0);
	ends(&world, FATAL_DONE);
	gmp_destroy(&world);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"others_run_beside_crunching", others_run_beside_crunching},
		{"others_run_beside_who_makes_many", others_run_beside_who_makes_many},
		{"a_preempted_g_keeps_its_m", a_preempted_g_keeps_its_m},
		{"a_read_goes_on_after_parking", a_read_goes_on_after_parking},
		{"deferred_while_it_must_not_be", deferred_while_it_must_not_be},
		{"killed_while_parked", killed_while_parked},
		{"the_world_stops_without_the_stopped", the_world_stops_without_the_stopped},
		{"stopped_and_continued_at_random", stopped_and_continued_at_random},
		{"the_world_stops_without_the_traced", the_world_stops_without_the_traced},
		{"the_world_stops_without_one_in_d", the_world_stops_without_one_in_d},
		{"killed_while_it_takes", killed_while_it_takes},
		{"struck_where_its_p_was", struck_where_its_p_was},
		{"struck_while_it_parks", struck_while_it_parks},
		{"stopped_inside_is_named", stopped_inside_is_named},
		{"the_deaf_are_named", the_deaf_are_named},
		{"the_deaf_are_not_taken", the_deaf_are_not_taken},
		{NULL, NULL},
	};

	if (THREADS_ONLY)
		return SKIP;
	flag = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(flag != MAP_FAILED);
	return run_tests(tests, argc, argv);
}
