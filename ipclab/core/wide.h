/*
 * wide.h: loops compiled for wider registers too, where the C library can choose among copies at load time. (A sanitizer's
 * run-time is not up yet when that choice is made.)
 */
#ifndef IPCLAB_WIDE_H
#define IPCLAB_WIDE_H

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
	!defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define FOR_WIDE_REGISTERS(...) __attribute__((target_clones(__VA_ARGS__, "default")))
#else
#define FOR_WIDE_REGISTERS(...)
#endif

#endif
