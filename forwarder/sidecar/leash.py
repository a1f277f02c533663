"""Starts a program that cannot outlive its parent: `python -I -S leash.py PARENT PROGRAM ARGUMENT…`.

A script of its own and not a hook between fork and exec, which is not safe in a process with threads. The kernel sends
SIGKILL to the program when the parent is gone, however it went; what Fluent Bit had not delivered is on disk. The
mark survives exec, so the program keeps this process' id.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> None:
    """Does not return: ends, or becomes the program."""
    parent, *command = arguments
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(parent):  # it went while we started: nobody would send the signal
        sys.exit("the parent is gone")
    os.execvp(command[0], command)  # noqa: S606 - an argument list, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
