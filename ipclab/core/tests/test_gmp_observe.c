/* The consistent look: what is seen is one moment, and whoever looks, or dies looking, holds nobody up for long. */
#define _GNU_SOURCE
#include "core/gmp/observe.h"

#include <sys/wait.h>

#include "core/gmp/point.h"
#include "core/gmp/runq.h"
#include "core/sys.h"
#include "gmp.h"

#define LOOKS 60

/* --- what must hold in one moment ------------------------------------------------------------------------------------ */

static uint32_t length_of_ms(struct gmp *rt, uint32_t m)
{
	uint32_t n = 0;

	for (; m; m = load_relaxed(&M(rt, m)->schedlink), n++)
		CHECK(load_relaxed(&M(rt, m)->idle));
	return n;
}

static uint32_t count_queued(struct gmp *rt)
{
	uint32_t n = 0, global = 0;

	for (uint32_t g = load_relaxed(&rt->s->runq.head); g; g = load_relaxed(&G(rt, g)->schedlink), global++)
		CHECK_EQ(load_relaxed(&G(rt, g)->atomicstatus), _Grunnable);
	CHECK_EQ(global, (uint32_t)load_relaxed(&rt->s->runq.size));
	for (int32_t p = 0; p < load_relaxed(&rt->s->gomaxprocs); p++) {
		struct p *pp = &rt->allp[p];

		n += load_relaxed(&pp->runqtail) - load_relaxed(&pp->runqhead);
		n += load_relaxed(&pp->runnext) != 0;
	}
	return n + global;
}

static void check_gs(struct gmp *rt)
{
	uint64_t living = 0, born = 0, ended = 0;
	uint32_t runnable = 0, locked = 0, queued;

	for (uint32_t g = 1; g <= load_relaxed(&rt->s->allglen); g++) {
		struct g *gp = G(rt, g);
		uint32_t status = load_relaxed(&gp->atomicstatus), m = load_relaxed(&gp->m);

		living += status != _Gdead && status != _Gidle;
		if (status == _Grunning || status == _Gsyscall)
			CHECK_EQ(load_relaxed(&M(rt, m)->curg), g);
		runnable += status == _Grunnable && !load_relaxed(&gp->lockedm);
		locked += status == _Grunnable && load_relaxed(&gp->lockedm);
	}
	queued = count_queued(rt);
	CHECK(queued >= runnable && queued <= runnable + locked); /* a locked one may be on its way to its M */
	for (uint32_t i = 0; i < rt->s->nprograms; i++) {
		struct tally tally = gmp_tally(rt, i);

		born += load_relaxed(&tally.spawned);
		ended += load_relaxed(&tally.done) + load_relaxed(&rt->programs[i].lost);
	}
	CHECK_EQ(born - ended, living);
}

static void check_ps(struct gmp *rt)
{
	int32_t idle = 0, listed = 0;

	for (int32_t i = 0; i < load_relaxed(&rt->s->gomaxprocs); i++) {
		struct p *pp = &rt->allp[i];
		uint32_t m = load_relaxed(&pp->m);

		idle += load_relaxed(&pp->status) == _Pidle && !m;
		if (load_relaxed(&pp->status) == _Prunning)
			CHECK_EQ(load_relaxed(&M(rt, m)->p), (uint32_t)i + 1);
	}
	for (uint32_t p = load_relaxed(&rt->s->pidle); p; p = load_relaxed(&P(rt, p)->link), listed++)
		CHECK(load_relaxed(&P(rt, p)->runqhead) == load_relaxed(&P(rt, p)->runqtail));
	CHECK_EQ(listed, load_relaxed(&rt->s->npidle));
	CHECK(listed <= idle); /* one may be on its way to an M that has not woken up */
}

/* Who is parked has neither P nor G, but for the one who stops the world; who waits at the gate for us may have both. */
static void check_ms(struct gmp *rt)
{
	for (uint32_t m = 1; m <= mLast(rt); m++) {
		struct m *mp = M(rt, m);

		if (load_relaxed(&mp->dead) == M_ALIVE && load_relaxed(&mp->where) == M_PARKED)
			CHECK(load_relaxed(&rt->s->gcwaiting) || (!load_relaxed(&mp->p) && !load_relaxed(&mp->curg)));
	}
}

static void check_copy(struct gmp *rt)
{
	check_ms(rt);
	CHECK_EQ(length_of_ms(rt, load_relaxed(&rt->s->midle)), (uint32_t)load_relaxed(&rt->s->nmidle));
	check_ps(rt);
	check_gs(rt);
}

/* --- stories --- */

/* Never done before it is stopped: Gs that send, sleep, block and spawn; two that are locked to their Ms. */
static void describe(struct gmp *rt)
{
	int c = gmp_chan(rt, 2), d = gmp_chan(rt, 0);
	struct step mother[] = {{OP_SPAWN, 1, 4}, {OP_SPAWN, 2, 4}, {OP_SPAWN, 3, 3}, {OP_SPAWN, 4, 2}};
	struct step sender[] = {{OP_SEND, c, 1}, {OP_RECV, d, 0}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, 1 << 30}};
	struct step receiver[] = {{OP_RECV, c, 0}, {OP_SEND, d, 1}, {OP_LOOP, 0, 1 << 30}};
	struct step maker[] = {{OP_SPAWN, 5, 20}, {OP_SLEEP, 0, 200000}, {OP_BLOCK, 0, 300000}, {OP_LOOP, 0, 1 << 30}};
	struct step locked[] = {{OP_LOCKM, 0, 0}, {OP_SLEEP, 0, 100000}, {OP_YIELD, 0, 0}, {OP_LOOP, 1, 1 << 30}};
	struct step child[] = {{OP_COMPUTE, 0, 20000}};

	gmp_program(rt, mother, COUNT_OF(mother));
	gmp_program(rt, sender, COUNT_OF(sender));
	gmp_program(rt, receiver, COUNT_OF(receiver));
	gmp_program(rt, maker, COUNT_OF(maker));
	gmp_program(rt, locked, COUNT_OF(locked));
	gmp_program(rt, child, COUNT_OF(child));
}

static void begin(struct gmp *rt, uint32_t randomize)
{
	make(rt, (struct gmp_config){.procs = 3, .maxg = 1 << 16, .randomize = randomize, .seed = 5, .tracking = 1});
	describe(rt);
	start(rt, 0);
}

static struct observed look(struct gmp *rt, uint32_t most)
{
	struct observed told;
	struct gmp copy;
	int rc;

	do {
		rc = gmp_observe(&copy, rt, most, SECONDS(LIMIT_S), &told);
	} while (rc == -EINTR);
	CHECK(rc >= 0);
	if (told.consistent && most > rt->s->maxg)
		check_copy(&copy);
	gmp_destroy(&copy);
	return told;
}

static int every_look_is_of_one_moment(void)
{
	for (uint32_t randomize = 0; randomize < 2; randomize++) {
		struct gmp rt;
		uint64_t before = 0;

		begin(&rt, randomize);
		for (int i = 0; i < LOOKS; i++) {
			struct tally tally;

			CHECK(look(&rt, UINT32_MAX).held);
			CHECK_EQ(gmp_wait(&rt, monotonic_ns() + 2000000), -ETIMEDOUT); /* and it goes on */
			tally = gmp_tally(&rt, 5);
			CHECK(load_relaxed(&tally.done) >= before);
			before = load_relaxed(&tally.done);
		}
		CHECK(before > 0);
		gmp_destroy(&rt);
	}
	return 0;
}

static int looks_and_deaths_mix(void)
{
	struct gmp rt;
	uint32_t killed = 0;

	begin(&rt, 1);
	for (int i = 0; i < LOOKS; i++) {
		uint32_t m = 2 + (uint32_t)(i % 5);
		int32_t pid = m <= mLast(&rt) ? load_relaxed(&M(&rt, m)->procid) : 0;

		if (i % 6 == 0 && pid > 0 && load_relaxed(&M(&rt, m)->dead) == M_ALIVE)
			killed += kill(pid, SIGKILL) == 0;
		look(&rt, UINT32_MAX);
	}
	CHECK(killed > 0);
	gmp_destroy(&rt);
	return 0;
}

/* An observer that asks, waits until all stands still, and dies: the others go on, long before its time is over. */
static _Noreturn void dying_observer(struct gmp *rt)
{
	struct gmp mine;
	int32_t token = 0x1234;

	if (gmp_attach(&mine, rt->segment.fd))
		_exit(1);
	for (int64_t until = SECONDS(LIMIT_S), again = 0; monotonic_ns() < until;) {
		if (load_seq_cst(&mine.s->snapfor) == token && load_seq_cst(&mine.s->snapseq) % 2)
			_exit(0);
		if (monotonic_ns() < again)
			continue;
		/* Again: on a full machine we may get no CPU for as long as it was held for us. */
		sys_sigqueue(load_relaxed(&mine.s->templatepid), SIGRTMIN + 5, token | OBSERVE_HOLD);
		again = monotonic_ns() + NS_PER_S / 2;
	}
	_exit(2);
}

static int a_dead_observer_holds_nobody(void)
{
	struct gmp rt;
	int status;

	begin(&rt, 0);
	for (int i = 0; i < 20; i++) {
		pid_t pid = fork();
		uint64_t seq;

		if (pid == 0)
			dying_observer(&rt);
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK_EQ(status, 0);
		for (int64_t until = SECONDS(LIMIT_S); (seq = load_seq_cst(&rt.s->snapseq)) % 2 && monotonic_ns() < until;)
			;
		CHECK_EQ(seq % 2, 0);
		CHECK(look(&rt, UINT32_MAX).held);
	}
	gmp_destroy(&rt);
	return 0;
}

/* While all is held, an M whose G's own code comes to its end waits at the gate, with its G, and says so. */
static int who_waits_at_the_gate_says_so(void)
{
	struct gmp rt;
	uint32_t seen = 0;
	int32_t token = 0x2345 << 1;

	begin(&rt, 0);
	for (int64_t until = SECONDS(LIMIT_S); !seen; token += 2) {
		CHECK(monotonic_ns() < until);
		CHECK_EQ(sys_sigqueue(load_relaxed(&rt.s->templatepid), SIGRTMIN + 5, token | OBSERVE_HOLD), 0);
		for (int64_t held = monotonic_ns() + NS_PER_S / 2; !seen && monotonic_ns() < held;)
			for (uint32_t m = 1; m <= mLast(&rt); m++) {
				bool ours = load_seq_cst(&rt.s->snapfor) == token && load_seq_cst(&rt.s->snapseq) % 2;
				struct m *mp = M(&rt, m);

				if (ours && load_seq_cst(&mp->where) == M_GATE && load_relaxed(&mp->curg) && load_relaxed(&mp->p))
					seen = m;
			}
		sys_sigqueue(load_relaxed(&rt.s->templatepid), SIGRTMIN + 5, token | OBSERVE_RELEASE);
	}
	CHECK(look(&rt, UINT32_MAX).held);
	gmp_destroy(&rt);
	return 0;
}

static int a_bounded_copy(void)
{
	struct observed told;
	struct gmp rt, copy;

	begin(&rt, 0);
	for (int64_t until = SECONDS(LIMIT_S); load_acquire(&rt.s->allglen) < 4 && monotonic_ns() < until;)
		;
	do {
		CHECK(gmp_observe(&copy, &rt, 3, SECONDS(LIMIT_S), &told) == 3);
	} while (!told.consistent);
	CHECK_EQ(load_relaxed(&copy.s->allglen), 3);
	CHECK_EQ(load_relaxed(&G(&copy, 4)->goid), 0);
	gmp_destroy(&copy);
	gmp_destroy(&rt);
	return 0;
}

static bool stopped(int32_t pid)
{
	char path[40], text[512] = "";
	const char *at;
	FILE *file;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	file = fopen(path, "re");
	if (!file)
		return false;
	at = fgets(text, sizeof text, file) ? strrchr(text, ')') : NULL;
	fclose(file);
	return at && at[2] == 'T';
}

/* The first M that comes to that point is stopped there. */
static uint32_t stop_one_at(struct gmp *rt, const char *point)
{
	uint32_t victim = 0;

	store_relaxed(&rt->s->killsignal, SIGSTOP);
	store_relaxed(&rt->s->killcountdown, 1);
	store_relaxed(&rt->s->killmask, UINT64_MAX);
	store_seq_cst(&rt->s->killpoint, pointhash(point));
	for (int64_t until = SECONDS(LIMIT_S); !victim && monotonic_ns() < until;)
		for (uint32_t m = 1; m <= mLast(rt); m++)
			if (stopped(load_relaxed(&M(rt, m)->procid)))
				victim = m;
	CHECK(victim);
	return victim;
}

/* One that is stopped with sched.lock in its hand: others wait for it inside, but it is he who is named; and whoever asks
 * after that is answered, too. */
static int one_stopped_with_a_lock_is_named(void)
{
	struct gmp rt;
	uint32_t victim;

	begin(&rt, 0);
	victim = stop_one_at(&rt, "mput.linked");
	for (int i = 0; i < 3; i++) {
		struct observed told = look(&rt, UINT32_MAX);

		CHECK(!told.consistent);
		CHECK_EQ(told.inside, victim);
	}
	kill(load_relaxed(&M(&rt, victim)->procid), SIGCONT);
	CHECK(look(&rt, UINT32_MAX).held);
	gmp_destroy(&rt);
	return 0;
}

/* An M stopped inside the runtime: the look is refused with its name, and made all the same. */
static int one_stopped_inside_is_named(void)
{
	struct observed told;
	struct gmp rt;
	uint32_t victim;

	begin(&rt, 0);
	victim = stop_one_at(&rt, "ready.runnable");
	told = look(&rt, UINT32_MAX);
	CHECK(!told.consistent);
	CHECK_EQ(told.inside, victim);
	kill(load_relaxed(&M(&rt, victim)->procid), SIGCONT);
	CHECK(look(&rt, UINT32_MAX).held);
	gmp_destroy(&rt);
	return 0;
}

/* A world that is stopped for long is looked at, and a death in it repaired, while it is: its stopper is outside. */
static int a_stopped_world_is_looked_at_and_repaired(void)
{
	struct step mother[] = {{OP_SPAWN, 1, 4}, {OP_SPAWN, 2, 1}};
	struct step busy[] = {{OP_COMPUTE, 0, 100000}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, 1 << 30}};
	struct step serial[] = {{OP_SLEEP, 0, 5000000}, {OP_STOPWORLD, 0, 3600 * NS_PER_S}};
	uint32_t victim = 0, stopper = 0;
	struct gmp rt;

	make(&rt, (struct gmp_config){.procs = 3, .maxg = 1000, .tracking = 1});
	gmp_program(&rt, mother, COUNT_OF(mother));
	gmp_program(&rt, busy, COUNT_OF(busy));
	gmp_program(&rt, serial, COUNT_OF(serial));
	start(&rt, 0);
	for (int64_t until = SECONDS(LIMIT_S); !load_seq_cst(&rt.s->gcwaiting) || load_relaxed(&rt.s->stopwait);)
		CHECK(monotonic_ns() < until);
	CHECK(look(&rt, UINT32_MAX).held);
	for (uint32_t m = 1; m <= mLast(&rt); m++) {
		struct m *mp = M(&rt, m);

		if (load_relaxed(&mp->curg))
			stopper = m;
		else if (load_relaxed(&mp->idle))
			victim = m;
	}
	CHECK(stopper && victim);
	CHECK(kill(load_relaxed(&M(&rt, victim)->procid), SIGKILL) == 0);
	for (int64_t until = SECONDS(LIMIT_S); !load_seq_cst(&rt.s->repairs);)
		CHECK(monotonic_ns() < until);
	CHECK(look(&rt, UINT32_MAX).held);
	CHECK(load_seq_cst(&rt.s->gcwaiting));
	CHECK(kill(load_relaxed(&M(&rt, stopper)->procid), SIGKILL) == 0); /* the world is started in its name */
	for (int64_t until = SECONDS(LIMIT_S); load_seq_cst(&rt.s->repairs) < 2 || load_seq_cst(&rt.s->gcwaiting);)
		CHECK(monotonic_ns() < until);
	CHECK_EQ(load_relaxed(&rt.s->lostgs), 1);
	CHECK(look(&rt, UINT32_MAX).held);
	gmp_destroy(&rt);
	return 0;
}

static int an_ended_run_is_seen_without_a_template(void)
{
	struct step nothing[] = {{OP_YIELD, 0, 0}};
	struct observed told;
	struct gmp rt;

	make(&rt, (struct gmp_config){.procs = 1, .maxg = 100});
	gmp_program(&rt, nothing, COUNT_OF(nothing));
	start(&rt, 0);
	ends(&rt, FATAL_DONE);
	told = look(&rt, UINT32_MAX);
	CHECK(told.consistent);
	CHECK(!told.held);
	gmp_destroy(&rt);
	return 0;
}

/* Two builds whose records have the same sizes: by what they declare they know each other, and by nothing else. */
static int a_build_with_another_layout_is_refused(void)
{
	struct gmp rt, other;
	uint64_t ours;

	make(&rt, (struct gmp_config){.procs = 1, .maxg = 100});
	ours = rt.s->layout;
	rt.s->layout = MOVED; /* what a build would have written in which two fields have changed places */
	CHECK_EQ(gmp_attach(&other, rt.segment.fd), -EPROTO);
	rt.s->layout = REMARKED; /* and one in which a comment is new */
	CHECK_EQ(gmp_attach(&other, rt.segment.fd), 0);
	CHECK_EQ(ours, REMARKED);
	gmp_destroy(&other);
	gmp_destroy(&rt);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"every_look_is_of_one_moment", every_look_is_of_one_moment},
		{"looks_and_deaths_mix", looks_and_deaths_mix},
		{"a_dead_observer_holds_nobody", a_dead_observer_holds_nobody},
		{"who_waits_at_the_gate_says_so", who_waits_at_the_gate_says_so},
		{"a_bounded_copy", a_bounded_copy},
		{"one_stopped_inside_is_named", one_stopped_inside_is_named},
		{"one_stopped_with_a_lock_is_named", one_stopped_with_a_lock_is_named},
		{"a_stopped_world_is_looked_at_and_repaired", a_stopped_world_is_looked_at_and_repaired},
		{"an_ended_run_is_seen_without_a_template", an_ended_run_is_seen_without_a_template},
		{"a_build_with_another_layout_is_refused", a_build_with_another_layout_is_refused},
		{NULL, NULL},
	};

	if (THREADS_ONLY)
		return 77; /* there is a template process to ask, and no Ms that are threads */
	return run_tests(tests, argc, argv);
}
