/*
 * timeline.h: out of events and looks, one thread's life as intervals without overlap and without a hidden gap.
 *
 * Vocabulary
 *   edge      a moment at which a thread passes from one state into another
 *   event     the kernel told an edge, with its time: the scheduler's tracepoints, PERF_RECORD_SWITCH, a fork, an exit
 *   look      the state at one moment, read from /proc. Two looks that differ prove an edge between them, no more
 *   counters  schedstat: time on a CPU, time waited for one, how often one was given. All three only grow, so two
 *             looks at them bound what lay between, also where no look fell
 *   slack     the edge lies within start - slack and start + slack. 0: an event told it, or the counters leave no room
 *   slice     one stay on a CPU. Kernel counters count switches: every end of a slice is one
 *
 * The problem. Four sources tell of the same thread, each with blind spots (below), at different times, and one of them
 * may begin late or break. Whoever draws wants one row of intervals per thread that can be added up.
 *
 * Rejected:
 *   - one row per source, laid over each other when drawn: the shares of states then depend on who draws;
 *   - looks and events in one queue, sorted by time, every one of them an edge: a look that fell 2 us after a switch
 *     whose event has not been read yet says the opposite of it, and both would cut;
 *   - a state at each look held until the next ("samples"): a thread that runs 200 us in every 250 us is then asleep for
 *     whole milliseconds or never, by chance (aliasing). The counters know better.
 *
 * What each source can and cannot tell:
 *                      trace           switch                       poll                            events
 *   on CPU begins      exact           exact                        counters: within slack          -
 *   on CPU ends        exact           exact                        counters: often exact           -
 *   runnable begins    exact           when preempted exact;        when preempted counters;        -
 *                                      woken: a look, with slack    woken: in arrears, by wait_ns
 *   S, D, T, t, P, I   exact           that it slept; which: looks  looks                           -
 *   Z                  exact           looks                        looks                           exit: shortly before
 *   X                  exact           -                            a look that was lucky           -
 *   fork, exec         exact           exact (task, comm)           the new one's first look        exact
 *
 * Chosen. Each thread has one *leading* source: the best one that works for it now. Only the leader cuts; all others
 * may only name what the leader left open: a look names the kind of a sleep that `switch` told (S or D), its wchan and
 * its system call. In numbers:
 *   1. A timeline has exactly one open interval from its begin to its end.
 *   2. A cut closes the open interval at t and opens the next at t. So intervals neither overlap nor leave a hole;
 *      what nobody knows about is an interval too, and its length is counted as uncovered.
 *   3. Time does not run backwards: an edge told before the open interval's start is moved to that start. It happens
 *      when the leader changes, and within the few microseconds a look takes.
 *   4. All events up to a moment are applied before a look taken at that moment is (tracker.c reads the rings first),
 *      so that a look is never compared with a state that is out of date by more than the look itself takes.
 *   5. A look names only an open interval that began before the look began, and only if no event closed it before the
 *      look ended: tracker.c keeps the look until the events up to its end have been applied.
 *   6. An interval of length 0 is not written, its edge still counts as a switch if it was one.
 *   7. Sleep that an event or the counters prove and no look fell into is S with `assumed` set: most are, D may be.
 *   8. When a leader breaks, the interval open at that moment is closed at the last moment the leader is good for, and
 *      the time to the next look is uncovered.
 *   9. An event that must have been (who loses a CPU had got one) and was not told is counted as lost. What lies open
 *      then is drawn as what is still known of it, or counted as uncovered.
 *  10. Switches are counted as seen when the record has their edge: never inferred from the counter it is compared with.
 */
#ifndef IPCLAB_TIMELINE_H
#define IPCLAB_TIMELINE_H

#include <stddef.h>
#include <stdint.h>

/* Rank is quality: the higher one leads. */
enum source { SOURCE_POLL, SOURCE_EVENTS, SOURCE_SWITCH, SOURCE_TRACE };

#define ON_CPU_UNKNOWN (-1)
#define NO_NAME 0        /* wchan: not asked, or none */
#define NO_SYSCALL (-1)
#define SPAN_ASSUMED 1   /* it slept, and nobody looked whether S or D */
#define SPAN_UNCOVERED 2 /* nobody looked: the state is that before it */

/* One interval as it leaves the core; Python unpacks it with "<qqqiihhHcbBB6x". */
struct span {
	int64_t start_ns;
	int64_t end_ns;
	int64_t slack_ns;
	int32_t pid;
	int32_t tid;
	int16_t cpu;     /* -1: not told */
	int16_t syscall; /* its number; NO_SYSCALL */
	uint16_t wchan;  /* index of a name; NO_NAME */
	char state;
	int8_t on_cpu; /* of R: 1, 0, ON_CPU_UNKNOWN */
	uint8_t source;
	uint8_t flags;
	uint8_t pad[6];
};

/* Spans on their way to Python. Guard: the tracker's lock. */
struct spans {
	struct span *span;
	size_t count;
	size_t room;
	size_t most;   /* beyond this many nothing is kept: Python has not drained for too long */
	uint64_t lost; /* that were not kept */
	uint64_t cut;  /* ever */
};

/* Keys of the totals, in the order Python has them. */
enum share { SHARE_RUNNING, SHARE_RUNNABLE, SHARE_R, SHARE_S, SHARE_D, SHARE_T, SHARE_TRACED, SHARE_Z, SHARE_X,
	     SHARE_I, SHARE_P, SHARES };

struct timeline {
	struct span open;  /* its end_ns is unset; start_ns 0: not begun, or ended */
	int64_t first_ns;
	int64_t last_ns;   /* where it ended; 0: it has not */
	int64_t share_ns[SHARES];
	int64_t uncovered_ns;
	uint64_t switches; /* ends of slices that are in the record */
	uint8_t began_running; /* it had a CPU when the record began: one end of a slice more than slices given */
};

/* What a thread is in from an edge on. */
struct edge {
	int64_t at_ns;
	int64_t slack_ns;
	char state;
	int8_t on_cpu;
	int16_t cpu;
	uint8_t source;
	uint8_t flags;
};

void timeline_begin(struct timeline *line, int32_t pid, int32_t tid, const struct edge *edge);
/* Closes the open interval at the edge and opens the next. An edge into the state it is in already changes nothing. */
void timeline_cut(struct timeline *line, struct spans *out, const struct edge *edge);
/* Takes the open interval as of `at_ns` for the sleep it was read to be; 5 of the rules above is the caller's. */
void timeline_name(struct timeline *line, char state, uint16_t wchan, int16_t syscall);
/* `died`: what ran then has switched for the last time; else the record ends, and the thread lives on. */
void timeline_end(struct timeline *line, struct spans *out, int64_t at_ns, int died);
/* An edge into or out of the open interval was lost. It is R, but whether it had a CPU all the time is not known. */
void timeline_blur(struct timeline *line);
/* An edge was lost, and with it what the open interval has been since its start: all of it counts as uncovered. */
void timeline_doubt(struct timeline *line);
/* In this much time more happened than is drawn. */
void timeline_uncover(struct timeline *line, int64_t ns);
/* Adds the shares including what is open now. */
void timeline_shares(const struct timeline *line, int64_t now_ns, int64_t share_ns[SHARES]);
int timeline_is_open(const struct timeline *line);
/* S D T t I P: it does not want a CPU and is not dead. */
int is_sleep(char state);

#endif
