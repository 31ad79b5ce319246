/*
 * runtime2.h: the records of the scheduler, as they lie in shared memory: g, m, p, sched. (Go: runtime/runtime2.go.)
 *
 * Field names are Go's. A reference is an index into one of the tables, never a pointer, because every process maps the
 * segment where it likes; 0 is nil, so table slot 0 of g, m and sudog is not used, and a P is named by its id + 1.
 *
 *     segment   | header, sched | programs | allp[] | allm[] | words[] | event rings | allgs[] | sudogs[] | chans, semas | heap
 *                 fixed         | before the start | fixed  | before   | per M       | grow: memory in chunks, under their locks
 *
 * Guards, as named beside the fields:
 *   const     written before the Ms start
 *   owner     the M that owns the P (or runs the G) writes; anybody may read, and what he reads may be old
 *   cas       any M, by compare-and-swap or another read-modify-write
 *   LOCK      whoever holds the lock of that name
 * Words that others may read are atomic, also where one writes alone; barrier.h says what the orderings mean.
 *
 * Lock order: a channel's or semaphore's lock (several: by rising index) -> a P's timers.lock -> sched.lock ->
 * allpLock, gFreelock, allglock, sudoglock, chanlock, heaplock, newmlock. worldsema comes before all of them.
 */
#ifndef IPCLAB_GMP_RUNTIME2_H
#define IPCLAB_GMP_RUNTIME2_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "core/barrier.h"
#include "core/note.h"
#include "core/segment.h"

#define GMP_MAXPROCS 256 /* Ps a segment holds */
#define GMP_RUNQ 256u    /* slots of a P's run queue; a power of two */
#define GOID_BATCH 16
#define GMP_LOST_KEPT 64 /* goids of lost Gs that are remembered */
#define GMP_REPAIRS_KEPT 64 /* times of repairs that are remembered */
#define FORCE_PREEMPT_NS INT64_C(10000000)

/* lock_futex.h has the rules. 0: free; else the thread id of the holder, and SLEEPERS if somebody may sleep. */
struct mutex {
	_Atomic uint32_t key;
};

/* --- G ------------------------------------------------------------------------------------------------------------- */

enum g_status {
	_Gidle = 0,     /* just allocated */
	_Grunnable = 1, /* on a run queue, or in the hands of one M on its way there or from there */
	_Grunning = 2,  /* runs user code; has an M, and that has a P */
	_Gsyscall = 3,  /* in a system call; has an M */
	_Gwaiting = 4,  /* blocked; some queue, timer or waker knows it */
	_Gdead = 6,     /* on a free list, or just ended, or just being made */
};

enum wait_reason { /* Go's waitReasonStrings, as far as they occur here; texts in script.c */
	waitReasonZero,
	waitReasonChanReceive,
	waitReasonChanSend,
	waitReasonSelect,
	waitReasonSleep,
	waitReasonSemacquire,
	waitReasonSyncMutexLock,
	waitReasonSyncWaitGroupWait,
	waitReasonPanicWait,
	waitReasonCount
};

/* One G waiting in one queue. */
struct sudog {
	_Atomic uint32_t g;    /* index */
	_Atomic uint32_t next; /* sudog; guard: the queue's lock */
	_Atomic uint32_t prev;
	uint32_t c;            /* owner; the chan it waits for. no point: written before it is in a queue */
	uint32_t waitlink;     /* owner; the next sudog of the same select. no point: written before it is in a queue */
	_Atomic uint64_t elem; /* the value to send, or the one received. no point: means nothing before done, or the queue */
	uint8_t isSelect;      /* no point: written before it is in a queue */
	uint8_t sending;       /* no point: written before it is in a queue */
	uint8_t selectcase;    /* no point: written before it is in a queue */
	_Atomic uint8_t done; /* 1: the other side has done its half; set before the sudog leaves its queue */
	_Atomic uint8_t success; /* 0: woken by close. no point: means nothing before done */
	_Atomic uint8_t ticket;  /* semaphores: the count was handed over. no point: means nothing before done */
	uint8_t unused[6];       /* no point: repair */
};

struct g {
	_Atomic uint32_t atomicstatus; /* cas; enum g_status */
	_Atomic uint32_t m;            /* owner; the M it runs on */
	_Atomic uint32_t schedlink;    /* next G on the list it is on; guard: that list's */
	_Atomic uint32_t lockedm;      /* owner; LockOSThread */
	_Atomic uint64_t goid;         /* owner, at creation */
	uint64_t parentGoid;           /* no point: written while it is dead */
	uint64_t gopc;                 /* creation site: program << 32 | step of the parent. no point: written while it is dead */
	uint32_t startpc;              /* its program. no point: written while it is dead */
	_Atomic uint32_t waitreason;   /* owner */
	_Atomic int64_t waitsince;     /* owner; ticks, 0: not kept. no point: for observers */
	_Atomic uint32_t preempt;      /* sysmon and stopper set, owner clears. no point: a wish, made again if it is lost */
	_Atomic uint32_t selectDone;   /* cas: the first waker wins, and names the sudog it serves */
	struct sudog sg;               /* the first one is built in: most waits need one */
	_Atomic uint32_t param;        /* waker -> sleeper: the sudog that was served */
	uint32_t waiting;              /* owner; first of the sudogs of a select, by waitlink */
	uint32_t nwaiting;             /* no point: the owner's alone */
	uint32_t mutexflags;           /* owner; of a Mutex.Lock under way: sema.c. no point: the owner's alone */
	/* the timer it sleeps on; guard: timers.lock of that P. A pairing heap: see time.c */
	int64_t when;            /* ns. no point: written before it is in a heap */
	_Atomic uint32_t timerp; /* P + 1 whose heap it is in; 0: none */
	uint32_t tchild, tnext, tprev; /* no point: repair does not read them, it makes the heaps anew from timerp and status */
	/* the script: everything a continuation is; owner: while it runs, and is lost with its M, nobody else reads it */
	uint32_t pc;       /* no point: a running G's alone */
	uint32_t resume;   /* enum resume: what is left to do of the step before pc. no point: a running G's alone */
	uint32_t count[4]; /* loop counters. no point: a running G's alone */
	int64_t left;      /* still to do: ns of a compute step, Gs of a spawn. no point: a running G's alone */
	uint64_t acc;      /* sum of what it has received. no point: a running G's alone */
	int64_t since;     /* scratch of a wait that resumes: when it began. no point: a running G's alone */
	/* statistics; owner; ns */
	int64_t created, started, runnablesince, waited; /* no point: statistics */
	uint32_t lockedExt; /* no point: a running G's alone */
	uint32_t mark;      /* no point: repair */
#ifdef IPCLAB_CHECKED
	/* who has it in hand; the run queue it is on: checked.h. no point: repair makes it anew */
	_Atomic uint32_t queued;
#endif
};
_Static_assert(sizeof(struct g) <= 320, "a million Gs in under 400 bytes each");

/* --- blocks: mheap.h ------------------------------------------------------------------------------------------------ */

#define SPAN_BYTES 65536u
#define SIZE_CLASSES 18
#define BLOCK_CALLER UINT32_MAX /* owner: the caller */

struct block {
	_Atomic uint32_t owner; /* the M's index, BLOCK_CALLER, or 0: published. By who has it */
	_Atomic uint32_t used;  /* by who has it */
	_Atomic uint32_t next;  /* guard: that of the list it is on */
	uint32_t mark;          /* no point: repair */
	uint64_t bytes;         /* payload, as asked for. no point: by who has it, before anybody else knows of it */
	uint64_t unused;
};

struct blocklist {
	_Atomic uint32_t first; /* by next */
	_Atomic uint32_t n;
};

/* --- P ------------------------------------------------------------------------------------------------------------- */

enum p_status { _Pidle = 0, _Prunning = 1, _Psyscall = 2, _Pgcstop = 3, _Pdead = 4 };

struct sysmontick { /* sysmon alone */
	uint32_t schedtick, syscalltick; /* no point: observations */
	int64_t schedwhen, syscallwhen;  /* ns. no point: observations */
	uint32_t named;                  /* M that does not give way. no point: observations */
};

struct timers {
	struct mutex lock;
	_Atomic uint32_t heap;           /* G; guard: lock */
	_Atomic uint32_t len;            /* guard: lock; read without it */
	_Atomic int64_t minWhen;         /* guard: lock; read without it; 0: none */
};

struct p {
	_Atomic uint32_t status; /* cas; enum p_status */
	uint32_t id;
	_Atomic uint32_t link;        /* sched.lock */
	_Atomic uint32_t m;           /* owner; M, nil if idle or in a system call */
	_Atomic uint32_t schedtick;   /* owner; +1 with every new time slice. no point: for observers, and sysmon */
	_Atomic uint32_t syscalltick; /* owner, or whoever takes it out of a system call. no point: for sysmon */
	_Atomic uint32_t preempt;     /* sysmon sets, owner clears. no point: a wish, made again if it is lost */
	uint32_t gFree;               /* owner; list by schedlink */
	_Atomic uint32_t gFreeN;      /* owner; Gs on it */
	_Atomic uint64_t goidcache, goidcacheend; /* owner */
	uint32_t sudogcache;              /* owner; list by next */
	uint32_t sudogN;
	struct blocklist mcache[SIZE_CLASSES]; /* owner */
	uint32_t adrift; /* repair: has work and nobody; to be started. no point: repair */
	_Alignas(FALSE_SHARING_BYTES) struct sysmontick sysmontick;
	struct timers timers;
	_Alignas(FALSE_SHARING_BYTES) _Atomic uint32_t runqhead; /* cas; free running */
	_Alignas(64) _Atomic uint32_t runqtail;                  /* owner; free running */
	_Atomic uint32_t runnext;                                /* cas */
	_Atomic uint32_t runq[GMP_RUNQ];                         /* owner; valid from head to tail */
};

/* --- M ------------------------------------------------------------------------------------------------------------- */

enum m_where { /* where an M is, for whoever must know that it touches nothing shared: see proc.c, "The gate" */
	M_RUNTIME = 0,
	M_USER = 1,    /* in a G's own code or in a system call of its own */
	M_PARKED = 2,  /* asleep on park, pollnote, sysmonnote or stopnote */
	M_GONE = 3,    /* dead, or not born yet */
	M_ROBBED = 4,  /* as M_USER, and somebody is taking its P or has taken it: stopped.c. By cas from M_USER */
	M_GATE = 5,    /* waits at the gate: as M_PARKED, though it may have a P and a G that runs */
};

/* Why an M is named (m.stalled): somebody has waited for it for a second. */
enum stall {
	STALL_INSIDE = 1, /* stands still inside the runtime */
	STALL_DEAF = 2,   /* runs its G's code and does not answer SIGURG */
};

enum m_death { M_ALIVE = 0, M_DIED = 1, M_REPAIRED = 2 };

enum mstartfn { MSTART_NONE = 0, MSTART_SPINNING = 1, MSTART_SYSMON = 2 };

struct m {
	_Alignas(FALSE_SHARING_BYTES) _Atomic int64_t id; /* at allocm; observers read it at any time */
	_Atomic int32_t procid;        /* its thread id, by itself at mstart; a process: its pid */
	_Atomic uint32_t where;        /* owner; enum m_where. M_ROBBED: see there */
	_Atomic uint32_t curg;         /* owner */
	_Atomic uint32_t p;            /* owner; P + 1 */
	_Atomic uint32_t nextp;        /* the waker, before it wakes park; then the owner */
	_Atomic uint32_t oldp;         /* owner; the P before a system call */
	_Atomic uint32_t spinning;     /* owner, or the waker before it wakes park */
	_Atomic uint32_t blocked;      /* owner: asleep on a note */
	_Atomic uint32_t lockedg;      /* owner */
	_Atomic int32_t locks;         /* owner; depth; > 0: not preemptible: acquirem, lock. no point: the owner's alone */
	_Atomic uint32_t schedlink;    /* sched.lock; idle list, or the list of Ms to be born */
	_Atomic uint32_t alllink;      /* sched.lock; then const */
	_Atomic uint32_t mstartfn;     /* at allocm; the owner takes it at mstart */
	uint32_t syscalltick;          /* owner; the P's, when the system call began. no point: the owner's alone */
	struct note park;
	_Atomic uint32_t idle;         /* sched.lock; on the idle list */
	_Atomic uint32_t lockedwait;   /* counted in nmidlelocked */
	_Atomic uint32_t exiting;      /* owner: ends in good order */
	_Atomic uint32_t polling;      /* owner: asleep as the poller */
	_Atomic uint32_t dead;         /* template: enum m_death; sched.lock: alive again, with another id */
	_Atomic uint32_t stalled;      /* who waits for it: 0, or enum stall << 8 | its state. no point: for observers */
	uint32_t lent;                 /* template: its scheduling policy + 1, before it was lent ours. no point: repair */
	/* owner: a redo log, so that a G's birth or end and its count are one: see tally.c */
	_Atomic uint32_t log; /* G, and LOG_BIRTH */
	_Atomic uint64_t logcount, logacc;
	_Atomic uint64_t switches, steals, handoffs; /* owner; counts for sim. no point: statistics */
	_Atomic uint64_t eventhead;    /* owner; events ever written. no point: for observers */
#ifdef IPCLAB_CHECKED
	/* owner, at mstart; of its process or thread, as /proc tells it: checked.h. no point: once, before its first G */
	_Atomic uint64_t starttime;
#endif
};

/* --- channels, semaphores: chan.c, sema.c --------------------------------------------------------------------------- */

struct waitq {
	_Atomic uint32_t first, last; /* sudog */
};

struct hchan {
	struct mutex lock;
	uint32_t dataqsiz; /* elements. no point: written while it is nobody's */
	uint64_t buf;      /* its buffer's first word, counted from words. no point: written while it is nobody's */
	uint32_t block;    /* of the buffer; 0: it lies in words. no point: written while it is nobody's */
	_Atomic uint32_t used; /* chanlock; 1: it is somebody's; what repair makes the list of the others from */
	_Atomic uint32_t next; /* chanlock; list of those that are nobody's: index + 1 */
	_Atomic uint32_t closed;
	_Atomic uint64_t sendx, recvx; /* free running; what is buffered is the difference. guard: lock */
	struct waitq recvq, sendq;
	/* a sender's value on its way into the buffer while it is woken: redo log for repair */
	_Atomic uint32_t redo;
	uint64_t redosendx;
};

struct sema {
	_Atomic uint32_t value; /* cas */
	_Atomic uint32_t used, next; /* chanlock; as a channel's */
	_Atomic uint32_t nwait; /* lock; read without it */
	struct mutex lock;
	struct waitq q;
	_Atomic uint32_t state; /* cas; mutex: see sema.c; wait group: its counter */
	_Atomic uint32_t kind;   /* owner: what it is used as; enum sema_kind */
	_Atomic uint32_t holder; /* the G that holds the mutex; for repair */
	uint32_t awake;          /* repair: Gs that were woken and have not come back yet. no point: repair */
};
enum sema_kind { SEMA_COUNTS = 0, SEMA_MUTEX = 1, SEMA_WAITGROUP = 2 };

/* --- sched ---------------------------------------------------------------------------------------------------------- */

struct gQueue { /* guard: as its holder's */
	_Atomic uint32_t head, tail;
	_Atomic int32_t size;
};

struct step { /* one instruction of a script: script.c */
	uint32_t op;
	uint32_t a;
	int64_t b;
};

struct program {
	uint32_t first, count; /* const; steps */
	_Atomic uint64_t lost;  /* template; Gs that died with their M */
};

/* What one M has done for one program; that M alone writes. The sum over all Ms is what has been done. */
struct tally {
	_Atomic uint64_t spawned, done;
	_Atomic uint64_t acc; /* sum of what its Gs have received */
	/* ticks; sums over its Gs, and when the last one ended */
	_Atomic int64_t turnaround, response, waiting, lastend; /* no point: statistics */
	uint64_t unused;
};

enum fatal { /* what ends a run */
	FATAL_NONE = 0,
	FATAL_DONE,          /* not an error: main ended, or every G has */
	FATAL_DEADLOCK,      /* all goroutines are asleep */
	FATAL_THREADS,       /* maxmcount reached */
	FATAL_NEWPROC,       /* the kernel makes no more processes; fatalarg: errno */
	FATAL_MEMORY,        /* the segment cannot grow; fatalarg: errno */
	FATAL_USE,           /* a script broke a rule of Go; fatalarg: enum misuse << 32 | goid */
	FATAL_THROW,         /* the scheduler found itself inconsistent; fatalarg: line, fataltext: where */
	FATAL_SAYING = 1 << 30, /* with one of them: its argument and its text are being written */
};

struct schedt {
	struct segment_header header;
	/* const; so that an attach by another build is refused: sizes of g, m and p; a hash of all that is declared here */
	uint64_t recordbytes, layout;
	uint64_t off_programs, off_steps, off_chans, off_semas, off_p, off_m, off_g, off_sudog, off_words, off_spans, off_heap, off_marea;
	uint32_t nprograms, nsteps, nwords; /* const after the start */
	uint32_t maxprograms, maxsteps, maxchans, maxsemas, maxwords; /* const */
	uint32_t maxg, maxsudog, maxmcount, eventslots, maxspans; /* const */
	uint64_t mareabytes; /* const; per M: tallies, then the event ring. Area 0 is the caller's */
	uint32_t threads;   /* const; 1: Ms are threads of one process */
	uint32_t model;     /* const; enum gmp_model */
	uint32_t tracking;  /* const; the Gs' statistics are kept */
	uint32_t randomize; /* const; runnext ignored half the time, batches shuffled, yields injected */
	uint32_t nopreempt; /* const; sysmon neither preempts nor retakes for preemption's sake */
	uint32_t mainends;  /* const; the end of the first G ends the run, as main's does in Go */
	uint64_t seed;      /* const */
	int64_t starttime;  /* const; ns */
	uint64_t startticks; /* const; cputicks at starttime */
	int32_t callerpid, ncpu;

	_Alignas(FALSE_SHARING_BYTES) struct mutex lock;
	/* guard: lock */
	_Atomic uint32_t midle; /* list by schedlink, last in first out */
	_Atomic int32_t nmidle, nmidlelocked, nmsys;
	_Atomic int64_t mnext, nmfreed; /* ids given; Ms that have ended */
	_Atomic uint32_t allm; /* the newest record, linked to the oldest. They lie one after another: 1..allm exist */
	_Atomic int32_t nmspare; /* of them: their process has gone, another M may have them. cas */
	_Atomic uint32_t pidle; /* list by link; only with empty run queues */
	struct gQueue runq;
	_Atomic int32_t stopwait;
	_Atomic uint32_t newprocs;

	_Alignas(FALSE_SHARING_BYTES) _Atomic int32_t npidle; /* written under lock */
	_Atomic int32_t nmspinning;                           /* cas */
	_Atomic uint32_t needspinning;                        /* cas */
	_Atomic int32_t gomaxprocs;                           /* world stopped */
	_Atomic uint32_t gcwaiting;
	_Atomic uint32_t gate; /* template: 1 while it repairs */
	_Atomic uint32_t exiting;
	_Atomic uint32_t idlepMask[GMP_MAXPROCS / 32], timerpMask[GMP_MAXPROCS / 32]; /* cas */

	/* the network poller's place: one M sleeps until the next timer */
	_Alignas(FALSE_SHARING_BYTES) _Atomic int64_t lastpoll; /* ns; 0: somebody polls. cas */
	_Atomic int64_t pollUntil;
	struct note pollnote; /* way 2 */

	_Alignas(FALSE_SHARING_BYTES) struct note stopnote;
	struct mutex worldsema;
	_Atomic int64_t stopsince; /* worldsema; ns: when gcwaiting was set last. no point: for observers */
	struct note sysmonnote;
	_Atomic uint32_t sysmonwait; /* lock */
	struct mutex allpLock;

	_Alignas(FALSE_SHARING_BYTES) struct mutex allglock;
	_Atomic uint32_t allglen;    /* allglock; read without it: Gs 1..allglen exist */
	uint32_t gcommitted, sudoglen, sudogcommitted; /* allglock */
	struct mutex gFreelock;
	_Atomic uint32_t gFree; /* gFreelock; list by schedlink */
	_Atomic int32_t gFreeN;
	struct mutex sudoglock;
	_Atomic uint32_t sudogfree; /* sudoglock */
	_Atomic uint64_t goidgen;   /* cas */

	struct mutex chanlock; /* channels and semaphores made and given back: chanmake.c */
	_Atomic uint32_t nchans, nsemas;     /* chanlock; read without it: so many records exist */
	_Atomic uint32_t chanfree, semafree; /* chanlock; lists by next; index + 1 */
	uint32_t chancommitted, semacommitted; /* chanlock. no point: less than has memory is asked for again */

	struct mutex heaplock;
	struct blocklist mcentral[SIZE_CLASSES]; /* heaplock */

	struct mutex newmlock;
	_Atomic uint32_t newm; /* newmlock; Ms to be born, by schedlink */
	struct note templatenote; /* way 2 */
	_Atomic int32_t templatepid;

	char fataltext[128]; /* by who has set fatal */
	struct note donenote; /* the caller sleeps here; way 2 */
	_Atomic uint32_t fatal; /* cas; enum fatal, with FATAL_SAYING until argument and text are there */
	_Atomic uint64_t fatalarg;
	_Atomic uint64_t deaths, repairs, repairns, longestns, lostgs; /* template */
	_Atomic uint64_t lostgoids[GMP_LOST_KEPT]; /* template; the last ones, by lostgs modulo their number */
	_Atomic uint64_t tookns[GMP_REPAIRS_KEPT]; /* template; of the last repairs, by repairs modulo their number */
	_Atomic uint32_t callerwhere; /* the caller, while it stops the world; enum m_where */
	_Atomic uint32_t callerstops; /* the caller: counted in nmidlelocked, as -1 */
	_Atomic uint32_t snapseq;     /* template; odd: all stands still, for the observer of that token: see observe.c */
	_Atomic int32_t snapfor, snaprefused; /* template; tokens */
	_Atomic uint32_t snapinside;  /* template; of the refused: the M that does not come out */
	uint32_t epoch, heapepoch;    /* template; for g.mark and block.mark */
	_Atomic uint64_t queuens, queuedms; /* template; how long Ms that have ended had waited for a CPU, and how many they are */
	_Atomic uint64_t preempts;      /* any M; Gs that were made to give way. no point: statistics */
	_Atomic uint64_t retakes;       /* sysmon. no point: statistics */
	_Atomic uint64_t parks;         /* any M; Gs stopped in the middle of their code. no point: statistics */
	_Atomic uint64_t taken, stalls; /* who waits; Ps taken from Ms that stood still; Ms named. no point: statistics */
	_Atomic uint32_t killpoint; /* tests: see point.h */
	_Atomic int32_t killcountdown;
	_Atomic uint64_t killmask;
	_Atomic uint32_t killsignal;
};

/* How the core makes and ends processes; it does neither by itself. Both run in the process that forks or ends. */
struct gmp_hooks {
	pid_t (*fork)(void);   /* as fork(2): 0 in the child, -1 and errno */
	void (*end)(int code); /* as _exit(2): does not return */
	/* The code of OP_USER, or NULL: anything at all; what it returns is added to the G's sum. */
	uint64_t (*user)(uint32_t which, int64_t argument);
};

/* What a process has of it: where things are mapped, and who it is. Private; one per M. */
struct gmp {
	struct schedt *s;
	struct program *programs;
	struct step *steps;
	struct hchan *chans;
	struct sema *semas;
	struct p *allp;
	struct m *allm;
	struct g *allgs;
	struct sudog *sudogs;
	_Atomic uint64_t *words;
	_Atomic uint32_t *where; /* m->where, or the caller's; NULL for the template */
	struct m *m;    /* "getg().m"; NULL for the caller and the template */
	struct p *p;    /* the P of m: m->p, looked up */
	struct event *events; /* m's ring, or NULL */
	uint64_t eventmask;   /* its slots - 1 */
	uint64_t eventwho;    /* m and p, as an event has them */
	uint64_t eventticks;  /* of the last event of this round; 0: time has passed since */
	bool told;            /* the last event is later than all that was told of the G that is about to start */
	struct tally *tallies; /* m's, or the caller's; by program */
	uint32_t tid;
	uint32_t deaths; /* the template: there are M_DIED that are not repaired */
	uint64_t rng;
	int64_t now;    /* ns; of this scheduling round */
	volatile sig_atomic_t preempted; /* SIGURG came when it could not be followed */
	volatile sig_atomic_t polls;     /* the G's code looks at preempted by itself, often */
	struct segment segment;
	struct gmp_hooks hooks;
	pid_t template; /* the caller: the template's pid; 0: not running */
	uint32_t leftout; /* a copy: Gs that were there and are not in it */
	struct rusage usage; /* the caller: what the template and its Ms have used, known when it has ended */
	uint64_t team;  /* the caller, with threads: the template's thread */
};

#define G(rt, i) (&(rt)->allgs[i])
#define M(rt, i) (&(rt)->allm[i])
#define P(rt, i) (&(rt)->allp[(i) - 1])
#define G_INDEX(rt, gp) ((uint32_t)((gp) - (rt)->allgs))
#define M_INDEX(rt, mp) ((uint32_t)((mp) - (rt)->allm))
#define P_INDEX(pp) ((pp)->id + 1)

/* The Ms' records are 1 to this. */
#define mLast(rt) load_seq_cst(&(rt)->s->allm)

#define add_relaxed(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
/* +1 on a word that this M alone writes: no locked instruction. */
#define count_up(p) store_relaxed((p), load_relaxed(p) + 1)
#define cas_release(p, expected, desired) \
	atomic_compare_exchange_strong_explicit((p), (expected), (desired), memory_order_acq_rel, memory_order_acquire)

#endif
