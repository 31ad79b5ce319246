/*
 * Deaths at moments that have to be waited for: what the dead one leaves behind is of use to nobody, and in somebody's way.
 * Each was a bug once: the run hangs here, or ends for a wrong reason, where it is back.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "core/gmp/point.h"
#include "gmp.h"

static struct gmp world;
static _Atomic uint32_t *flag; /* shared by all of the test's processes */

static void world_of(uint32_t procs, uint64_t (*user)(uint32_t, int64_t))
{
	struct gmp_config config = {.procs = procs, .maxg = 100000, .mainends = 1, .hooks = HOOKS};

	config.hooks.user = user;
	CHECK_EQ(gmp_create(&world, &config), 0);
}

static void add(const struct step *steps, uint32_t n)
{
	CHECK(gmp_program(&world, steps, n) >= 0);
}
#define ADD(...) add((struct step[]){__VA_ARGS__}, COUNT_OF(((struct step[]){__VA_ARGS__})))

#define UNTIL(condition)                                                            \
	for (int64_t until_ = SECONDS(60); !(condition); usleep(200))                   \
		CHECK(monotonic_ns() < until_ && #condition)

static int32_t pid_of(uint32_t m)
{
	return load_seq_cst(&M(&world, m)->dead) ? 0 : load_seq_cst(&M(&world, m)->procid);
}

/* The M that is sysmon; 0: there is none just now. */
static uint32_t sysmon_is(void)
{
	for (uint32_t m = 1; m <= mLast(&world); m++)
		if (pid_of(m) > 0 && load_seq_cst(&M(&world, m)->mstartfn) == MSTART_SYSMON)
			return m;
	return 0;
}

/* While it sleeps, and nowhere else. */
static void kill_sysmon(void)
{
	for (;;) {
		int32_t pid;

		UNTIL(sysmon_is());
		pid = pid_of(sysmon_is());
		CHECK_EQ(kill(pid, SIGSTOP), 0);
		usleep(1000);
		if (load_seq_cst(&world.s->sysmonnote.word) == NOTE_SLEEP &&
		    load_seq_cst(&M(&world, sysmon_is())->where) == M_PARKED) {
			CHECK_EQ(kill(pid, SIGKILL), 0);
			return;
		}
		CHECK_EQ(kill(pid, SIGCONT), 0);
		usleep(1000);
	}
}

static void stop(void)
{
	CHECK_EQ(load_seq_cst(&world.s->fatal), 0);
	CHECK_EQ(gmp_stop(&world), 0);
	CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
	gmp_destroy(&world);
}

/* --- sysmon ---------------------------------------------------------------------------------------------------------- */

/* It sleeps between two looks as the one before it did, whose note says that somebody sleeps on it already. */
static int the_next_sysmon_sleeps_too(void)
{
	int64_t before;
	int32_t pid;

	world_of(1, NULL);
	ADD({OP_COMPUTE, 0, 3600 * NS_PER_S});
	start(&world, 0);
	kill_sysmon();
	UNTIL(load_seq_cst(&world.s->repairs) && sysmon_is());
	pid = pid_of(sysmon_is());
	before = sleeps_of(pid);
	UNTIL(sleeps_of(pid) >= before + 20);
	stop();
	return 0;
}

/* A G that never leaves the runtime, and nobody to preempt it: the repairer, who brings the next sysmon, gets by. */
static int a_g_that_goes_on_lets_the_repairer_by(void)
{
	world_of(1, NULL);
	gmp_sema(&world, 0);
	ADD({OP_LOCK, 0, 0}, {OP_UNLOCK, 0, 0}, {OP_LOOP, 0, INT64_MAX});
	start(&world, 0);
	kill_sysmon();
	UNTIL(load_seq_cst(&world.s->repairs) && sysmon_is());
	stop();
	return 0;
}

/* --- stop the world -------------------------------------------------------------------------------------------------- */

/* 0: holds up whoever stops the world until the flag is set: it does not answer. 1: until the flag is 2. */
static uint64_t is_deaf(uint32_t which, int64_t argument)
{
	sigset_t urg, before;

	while (which == 1 && load_seq_cst(flag) != 2)
		usleep(200);
	sigemptyset(&urg);
	sigaddset(&urg, SIGURG);
	sigprocmask(SIG_BLOCK, &urg, &before);
	while (!load_seq_cst(flag))
		cpu_relax();
	sigprocmask(SIG_SETMASK, &before, NULL);
	return (uint64_t)argument;
}

/* One G stops the world, and waits for another one that is deaf; a third blocks. Returns when it is so. */
static void held_up(void)
{
	store_seq_cst(flag, 0);
	world_of(3, is_deaf);
	ADD({OP_SPAWN, 1, 1}, {OP_SPAWN, 3, 1}, {OP_SLEEP, 0, 20000000}, {OP_SPAWN, 2, 1}, {OP_USER, 1, 0});
	ADD({OP_USER, 0, 0});
	ADD({OP_STOPWORLD, 0, 0});
	ADD({OP_BLOCKING, 0, 3600 * NS_PER_S});
	start(&world, 0);
	UNTIL(load_seq_cst(&world.s->gcwaiting));
}

static void a_death_meanwhile(void *unused)
{
	(void)unused;
	UNTIL(load_seq_cst(&world.s->callerwhere) != M_GONE);
	usleep(20000);
	kill_sysmon();
	UNTIL(load_seq_cst(&world.s->repairs) == 1);
	store_seq_cst(flag, 1);
}

/* The caller waits for the M that stops the world, that one, outside, for the gate, and the gate not for the caller. */
static int the_caller_waits_outside(void)
{
	pid_t pid;

	alarm(100);
	held_up();
	pid = spawn(a_death_meanwhile, NULL);
	CHECK_EQ(gmp_set_procs(&world, 2), 0);
	CHECK_EQ(ending_of(pid), 0);
	CHECK_EQ(load_seq_cst(&world.s->gomaxprocs), 2);
	store_seq_cst(flag, 2);
	ends(&world, FATAL_DONE);
	CHECK_EQ(load_relaxed(&world.s->lostgs), 0);
	gmp_destroy(&world);
	alarm(0);
	return 0;
}

/* Of an M that died long ago, in a record nobody has had since. The kernel has given its id to the one that stops now. */
static int a_dead_ones_id_is_anothers(void)
{
	uint32_t blocked = 0;
	int32_t stopper;

	held_up();
	for (uint32_t m = 1; m <= mLast(&world); m++)
		if (load_seq_cst(&M(&world, m)->curg) && G(&world, load_seq_cst(&M(&world, m)->curg))->startpc == 3)
			blocked = m;
	CHECK(blocked);
	CHECK_EQ(kill(pid_of(blocked), SIGKILL), 0);
	UNTIL(load_seq_cst(&world.s->repairs) == 1 && !load_seq_cst(&world.s->gate));
	CHECK_EQ(load_seq_cst(&M(&world, blocked)->dead), M_REPAIRED);
	stopper = (int32_t)(load_seq_cst(&world.s->worldsema.key) & 0x7fffffff);
	CHECK(stopper > 0);
	store_seq_cst(&M(&world, blocked)->procid, stopper);
	kill_sysmon();
	UNTIL(load_seq_cst(&world.s->repairs) == 2 && !load_seq_cst(&world.s->gate));
	CHECK_EQ(load_seq_cst(&world.s->gcwaiting), 1);
	CHECK_EQ(load_seq_cst(&world.s->worldsema.key), stopper);
	store_seq_cst(flag, 2);
	ends(&world, FATAL_DONE);
	CHECK_EQ(load_relaxed(&world.s->lostgs), 1);
	gmp_destroy(&world);
	return 0;
}

static void the_template_dies(void *held)
{
	int32_t template = load_seq_cst(&world.s->templatepid);

	UNTIL(load_seq_cst(&world.s->callerwhere) != M_GONE);
	usleep(20000);
	if (held) /* sched.lock, by somebody who dies too */
		store_seq_cst(&world.s->lock.key, (uint32_t)template);
	CHECK_EQ(kill(template, SIGKILL), 0);
}

/* Nobody is left who could stop: the caller is told so, wherever he waits. */
static int the_caller_hears_that_all_are_dead(void)
{
	alarm(100);
	for (intptr_t held = 0; held < 2; held++) {
		pid_t pid;

		held_up();
		pid = spawn(the_template_dies, (void *)held);
		CHECK_EQ(gmp_set_procs(&world, 2), -ECHILD);
		CHECK_EQ(ending_of(pid), 0);
		CHECK_EQ(gmp_set_procs(&world, 2), -ECHILD);
		CHECK_EQ(gmp_wait(&world, SECONDS(1)), -ECHILD);
		gmp_destroy(&world);
	}
	alarm(0);
	return 0;
}

static void nobody(void *unused)
{
	(void)unused;
}

static void it_ends(void *unused)
{
	(void)unused;
	UNTIL(load_seq_cst(&world.s->callerwhere) == M_RUNTIME);
	usleep(20000);
	store_seq_cst(&world.s->fatal, FATAL_THROW);
}

/* An M ended the run, and itself, with sched.lock in its hand, for which the caller waits. */
static int the_caller_waits_for_no_lock_of_the_dead(void)
{
	pid_t gone = spawn(nobody, NULL), pid;

	alarm(100);
	CHECK_EQ(ending_of(gone), 0);
	world_of(1, NULL);
	ADD({OP_SLEEP, 0, 3600 * NS_PER_S});
	start(&world, 0);
	UNTIL(load_seq_cst(&world.s->npidle) == 1 && sysmon_is());
	store_seq_cst(&world.s->lock.key, (uint32_t)gone);
	pid = spawn(it_ends, NULL);
	CHECK_EQ(gmp_set_procs(&world, 2), 0);
	CHECK_EQ(ending_of(pid), 0);
	CHECK_EQ(gmp_stop(&world), 0);
	gmp_destroy(&world);
	alarm(0);
	return 0;
}

/* The run ends while the gate is closed for a repair, which there is no use for any more. */
static int the_caller_comes_to_a_gate_that_stays_closed(void)
{
	uint32_t main_m = 0;

	alarm(100);
	world_of(1, NULL);
	ADD({OP_EXIT, 0, 0});
	store_seq_cst(&world.s->killcountdown, 1);
	store_seq_cst(&world.s->killsignal, SIGSTOP);
	store_seq_cst(&world.s->killpoint, pointhash("fatal.claimed"));
	start(&world, 0);
	UNTIL(!load_seq_cst(&world.s->killpoint));
	for (uint32_t m = 1; m <= mLast(&world); m++)
		main_m = load_seq_cst(&M(&world, m)->where) == M_RUNTIME && m != sysmon_is() ? m : main_m;
	CHECK(main_m);
	kill_sysmon();
	UNTIL(load_seq_cst(&world.s->gate));
	CHECK_EQ(kill(pid_of(main_m), SIGCONT), 0);
	UNTIL(fatalSaid(&world));
	CHECK_EQ(gmp_set_procs(&world, 2), 0);
	ends(&world, FATAL_DONE);
	gmp_destroy(&world);
	alarm(0);
	return 0;
}

/* --- wait groups ----------------------------------------------------------------------------------------------------- */

/* Who counts first dies when he has: what he has counted is not taken for a mutex that he had locked. */
static int the_first_count_stands(void)
{
	world_of(2, NULL);
	gmp_sema(&world, 0);
	ADD({OP_SPAWN, 1, 1}, {OP_SLEEP, 0, 200000000}, {OP_WG_ADD, 0, -2}, {OP_WG_ADD, 0, -1}, {OP_WG_WAIT, 0, 0});
	ADD({OP_WG_ADD, 0, 3});
	store_seq_cst(&world.s->killcountdown, 1);
	store_seq_cst(&world.s->killsignal, SIGKILL);
	store_seq_cst(&world.s->killpoint, pointhash("waitgroup.added"));
	start(&world, 0);
	ends(&world, FATAL_DONE);
	CHECK_EQ(load_relaxed(&world.s->lostgs), 1);
	gmp_destroy(&world);
	return 0;
}

/* --- Ms that come and go --------------------------------------------------------------------------------------------- */

/* Waits until the flag is set. */
static uint64_t waits_here(uint32_t which, int64_t argument)
{
	(void)which;
	while (!load_seq_cst(flag))
		usleep(200);
	return (uint64_t)argument;
}

/* In their own code. */
static uint32_t waiting_here(void)
{
	uint32_t n = 0;

	for (uint32_t m = 1; m <= mLast(&world); m++)
		n += pid_of(m) > 0 && load_seq_cst(&M(&world, m)->curg) && load_seq_cst(&M(&world, m)->where) == M_USER;
	return n;
}

/* Each G has an M, which ends with it. The template is late: it has not reaped those that ended, whose records are needed. */
static int who_has_ended_is_no_limit(void)
{
	int32_t template;

	CHECK_EQ(gmp_create(&world, &(struct gmp_config){.model = GMP_1_TO_1, .maxg = 1000, .mainends = 1,
							 .hooks = {.fork = fork_here, .end = end_here, .user = waits_here}}), 0);
	gmp_chan(&world, 0);
	store_seq_cst(flag, 0);
	ADD({OP_SPAWN, 1, 6}, {OP_USER, 0, 0}, {OP_SLEEP, 0, 10000000}, {OP_SPAWN, 2, 0});
	ADD({OP_USER, 0, 0});
	ADD({OP_BLOCKING, 0, 3600 * NS_PER_S});
	start(&world, 0);
	UNTIL(waiting_here() == 7);
	UNTIL(load_seq_cst(&world.s->nmspinning) == 0 && !load_seq_cst(&world.s->newm));
	template = load_seq_cst(&world.s->templatepid);
	CHECK_EQ(kill(template, SIGSTOP), 0);
	usleep(10000);
	world.s->maxmcount = mLast(&world) + 1;
	world.steps[world.programs[0].first + 3].b = load_seq_cst(&world.s->nmidle) + 3;
	store_seq_cst(flag, 1);
	usleep(100000);
	CHECK_EQ(kill(template, SIGCONT), 0);
	ends(&world, FATAL_DONE);
	CHECK(load_relaxed(&world.s->mnext) > (int64_t)mLast(&world));
	gmp_destroy(&world);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"the_next_sysmon_sleeps_too", the_next_sysmon_sleeps_too},
		{"a_g_that_goes_on_lets_the_repairer_by", a_g_that_goes_on_lets_the_repairer_by},
		{"the_caller_waits_outside", the_caller_waits_outside},
		{"the_caller_hears_that_all_are_dead", the_caller_hears_that_all_are_dead},
		{"the_caller_waits_for_no_lock_of_the_dead", the_caller_waits_for_no_lock_of_the_dead},
		{"the_caller_comes_to_a_gate_that_stays_closed", the_caller_comes_to_a_gate_that_stays_closed},
		{"a_dead_ones_id_is_anothers", a_dead_ones_id_is_anothers},
		{"the_first_count_stands", the_first_count_stands},
		{"who_has_ended_is_no_limit", who_has_ended_is_no_limit},
		{NULL, NULL},
	};

	if (THREADS_ONLY)
		return SKIP;
	flag = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(flag != MAP_FAILED);
	return run_tests(tests, argc, argv);
}
