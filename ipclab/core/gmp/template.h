/* template.h: who makes Ms, reaps them, and repairs what they leave. See template.c and repair.c. */
#ifndef IPCLAB_GMP_TEMPLATE_H
#define IPCLAB_GMP_TEMPLATE_H

#include "runtime2.h"

int templateStart(struct gmp *rt);
/* Ends the template and with it all Ms. */
void templateStop(struct gmp *rt);
/* 0, or -ECHILD when it is not there any more. */
int templateLook(struct gmp *rt);
/* An M has died in the middle of something: stops the others at the gate, mends, goes on. By the template alone. */
void repair(struct gmp *rt, uint32_t m);

#endif
