/* tracefs.h: a way into tracefs where it is not mounted. */
#ifndef IPCLAB_TRACEFS_H
#define IPCLAB_TRACEFS_H

/*
 * A descriptor of the root of a tracefs mount that stands in no name space (fsopen(2), fsmount(2)): nobody else sees it,
 * and it goes with the last descriptor. What is made in it (instances) is the one tracefs of the kernel, and stays.
 * -EPERM without CAP_SYS_ADMIN, -ENODEV where the kernel has none, -ENOSYS before Linux 5.2.
 */
int tracefs_open(void);

#endif
