"""Starts a command with few system calls, no capabilities, and no memory that can be both written and run.

python tests/support/confine.py CALL,CALL,... COMMAND ...

A forbidden call fails with EPERM, as in the unit. Needs libseccomp 2, which every systemd brings.
"""

import ctypes
import os
import sys

_ALLOW = 0x7FFF0000
_EPERM = 0x00050000 | 1
_PR_CAPBSET_DROP, _PR_SET_MDWE, _REFUSE_EXEC_GAIN = 24, 65, 1


def main() -> None:
    """Confine this process, and give way to the command."""
    calls, command = sys.argv[1].split(","), sys.argv[2:]
    libc, seccomp = ctypes.CDLL(None), ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(_EPERM))
    numbers = (seccomp.seccomp_syscall_resolve_name(call.encode()) for call in calls)
    for number in numbers:
        if number >= 0:  # others belong to another architecture
            seccomp.seccomp_rule_add(context, _ALLOW, number, 0)
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(_PR_SET_MDWE, _REFUSE_EXEC_GAIN, 0, 0, 0)  # Linux 6.3; before, systemd filters calls to the same end
    if seccomp.seccomp_load(context):
        raise SystemExit("the filter is refused")
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
