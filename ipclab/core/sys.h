/*
 * sys.h: system calls that neither Python nor (everywhere) libc wraps. Each returns >= 0 or -errno.
 */
#ifndef IPCLAB_SYS_H
#define IPCLAB_SYS_H

#include <signal.h>
#include <stdint.h>
#include <sys/types.h>

/* sigqueue(3): a real-time signal with one word of payload. -EAGAIN: RLIMIT_SIGPENDING is reached. */
int sys_sigqueue(pid_t pid, int signo, int32_t value);
/* pidfd_send_signal(2); with_value: as sigqueue does it. */
int sys_pidfd_send_signal(int pidfd, int signo, int with_value, int32_t value);
/* Takes one pending signal of the set; -EAGAIN after timeout_ns (negative: never), -EINTR for a signal outside it. */
int sys_sigwait(const sigset_t *set, int64_t timeout_ns, siginfo_t *info);
/* prctl(2) wrappers. set_ptracer_any: 0 where there is no Yama, 1 when it took. */
int sys_set_pdeathsig(int signo);
int sys_set_child_subreaper(int on);
int sys_is_child_subreaper(void);
int sys_set_ptracer_any(void);
/* process_vm_readv(2) of one piece. */
ssize_t sys_process_vm_readv(pid_t pid, uint64_t address, void *into, size_t size);
ssize_t sys_vmsplice(int fd, const void *from, size_t size, unsigned int flags);

/*
 * Who a process is, in one word: its pid and its start time (clock ticks since boot, field 22 of /proc/PID/stat), so
 * that a recycled pid is somebody else. 0 is nobody.
 */
typedef uint64_t identity;
#define IDENTITY_PID_SHIFT 42
identity identity_self(void);
static inline pid_t identity_pid(identity who)
{
	return (pid_t)(who >> IDENTITY_PID_SHIFT);
}
/* 1 alive, 0 gone or a zombie. Where /proc is hidden, the pid alone decides. */
int identity_alive(identity who);
/* 1 when this process has a child that is not a zombie, or when that cannot be read; else 0. */
int any_child_alive(void);
/* The inode of this process's pid namespace; 0 when it cannot be read. */
uint64_t pid_namespace(void);

#endif
