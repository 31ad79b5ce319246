/* tracefs.c: see tracefs.h. */
#define _GNU_SOURCE
#include "tracefs.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* linux/mount.h clashes with sys/mount.h, and old headers have neither; the numbers are the same everywhere. */
#ifndef SYS_fsopen
#define SYS_fsopen 430
#define SYS_fsconfig 431
#define SYS_fsmount 432
#endif
#define CLOEXEC 1     /* FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC */
#define CMD_CREATE 6  /* FSCONFIG_CMD_CREATE */

int tracefs_open(void)
{
	int context = (int)syscall(SYS_fsopen, "tracefs", CLOEXEC), mount, root, rc;

	if (context < 0)
		return -errno;
	if (syscall(SYS_fsconfig, context, CMD_CREATE, NULL, NULL, 0) < 0) {
		rc = -errno;
		close(context);
		return rc;
	}
	mount = (int)syscall(SYS_fsmount, context, CLOEXEC, 0);
	rc = -errno;
	close(context);
	if (mount < 0)
		return rc;
	root = openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* fsmount's own names a place and opens nothing */
	rc = -errno;
	close(mount);
	return root < 0 ? rc : root;
}
