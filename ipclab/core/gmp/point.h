/*
 * point.h: labelled points between two stores to shared state. In the shipped library they are nothing at all.
 *
 * With IPCLAB_POINTS (the tests) an M that comes to one may be killed there, stopped there, or made to give way to
 * others, as sched's kill fields and its randomize flag say. A test arms the point by its name's hash and waits.
 *
 * There is one between any two stores to shared state that can follow each other: scripts/kill_points.py reads the sources
 * and says where one is missing. A store that needs none says why, in a comment beside it that begins with "no point:";
 * the script's header has the places where such a comment may stand, and what it then covers.
 */
#ifndef IPCLAB_GMP_POINT_H
#define IPCLAB_GMP_POINT_H

#include "runtime2.h"

#ifdef IPCLAB_POINTS
void pointhit(struct gmp *rt, const char *name);
uint32_t pointhash(const char *name);
#define POINT(rt, name)                                                             \
	do {                                                                        \
		if (__builtin_expect((rt)->s->randomize || load_relaxed(&(rt)->s->killpoint), 0)) \
			pointhit((rt), (name));                                     \
	} while (0)
#else
#define POINT(rt, name) ((void)(rt))
#endif

#endif
