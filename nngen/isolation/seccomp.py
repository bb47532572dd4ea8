"""Filter of system calls for workers: what Python and torch call, and nothing else of the kernel.

A call that is not in the list fails as if the kernel did not have it (``ENOSYS``), for which libraries have another
way. Absent are those by which a process holds memory that nobody counts (``memfd_create``, System V's shared memory,
message queues, sockets), reaches other processes (``ptrace``, ``process_vm_writev``, ``pidfd_getfd``) or keys
(``keyctl``), and those that candidates attack the kernel with (``io_uring``, ``userfaultfd``, ``bpf``, ``unshare``).
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Iterator

from nngen.isolation.limits import ProcessOption, set_option

# Name, number on x86-64, number on AArch64, from the kernel's unistd.h; "-" where a machine has no such call. What the
# families of LEMUR call (eval/system_calls.py), and what Python's own modules for files, processes and time do.
_TABLE = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69, pwritev 296 70,
open 2 -, openat 257 56, openat2 437 437, creat 85 -, close 3 57, close_range 436 436, lseek 8 62, stat 4 -,
fstat 5 80, lstat 6 -, newfstatat 262 79, statx 332 291, access 21 -, faccessat 269 48, faccessat2 439 439,
getdents 78 -, getdents64 217 61, readlink 89 -, readlinkat 267 78, getcwd 79 17, chdir 80 49, fchdir 81 50,
mkdir 83 -, mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35, rename 82 -, renameat 264 38,
renameat2 316 276, link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36, chmod 90 -, fchmod 91 52,
fchmodat 268 53, umask 95 166, utimensat 280 88, truncate 76 45, ftruncate 77 46, fallocate 285 47,
fsync 74 82, fdatasync 75 83, fadvise64 221 223, flock 73 32, fcntl 72 25, ioctl 16 29, dup 32 23, dup2 33 -,
dup3 292 24, sendfile 40 71, copy_file_range 326 285, statfs 137 43, fstatfs 138 44, listxattr 194 11,
llistxattr 195 12, getxattr 191 8, lgetxattr 192 9,

pipe 22 -, pipe2 293 59, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, eventfd2 290 19, sendto 44 206,
recvfrom 45 207, sendmsg 46 211, recvmsg 47 212, shutdown 48 210, getsockname 51 204, getsockopt 55 209,

brk 12 214, munmap 11 215, mremap 25 216, mprotect 10 226, madvise 28 233, msync 26 227, mincore 27 232,
membarrier 324 283, mlock 149 228, munlock 150 229, get_mempolicy 239 236, set_mempolicy 238 237, mbind 237 235,

fork 57 -, vfork 58 -, execve 59 221, wait4 61 260, waitid 247 95, exit 60 93, exit_group 231 94,
getpid 39 172, getppid 110 173, gettid 186 178, getpgid 121 155, getpgrp 111 -, setpgid 109 154,
getsid 124 156, setsid 112 157, kill 62 129, tkill 200 130, tgkill 234 131, pidfd_open 434 434, futex 202 98,
set_tid_address 218 96, set_robust_list 273 99, get_robust_list 274 100, rseq 334 293, sched_yield 24 124,
sched_getaffinity 204 123, sched_setaffinity 203 122, sched_getparam 143 121, sched_getscheduler 145 120,
sched_get_priority_max 146 125, sched_get_priority_min 147 126, getpriority 140 141, setpriority 141 140,
getcpu 309 168, arch_prctl 158 -, prctl 157 167, getrlimit 97 163, setrlimit 160 164, prlimit64 302 261,
getrusage 98 165, times 100 153, sysinfo 99 179, uname 63 160, getuid 102 174, geteuid 107 175, getgid 104 176,
getegid 108 177, getresuid 118 148, getresgid 120 150, getgroups 115 158, capget 125 90,

rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136,
rt_sigtimedwait 128 137, rt_sigsuspend 130 133, sigaltstack 131 132, restart_syscall 219 128, pause 34 -,
alarm 37 -, getitimer 36 102, setitimer 38 103, nanosleep 35 101, clock_nanosleep 230 115,
clock_gettime 228 113, clock_getres 229 114, gettimeofday 96 169, time 201 -, getrandom 318 278,
"""
ALLOWED = tuple(tuple(call.split()) for call in _TABLE.strip(",\n").split(","))
"""Names and numbers of the calls that are allowed with any arguments."""

_CLONE, _MMAP, _KEYCTL, _SECCOMP = (56, 220), (9, 222), (250, 219), (317, 277)
_JOIN_SESSION_KEYRING = 1
_SET_MODE_FILTER = 1
_SPEC_ALLOW = 4
"""Without this flag, kernels before 5.16 make every process under a filter slower against speculation inside of it."""

_MACHINES = {"x86_64": (0, 0xC000_003E), "aarch64": (1, 0xC000_00B7)}
"""Column of the numbers, and ``AUDIT_ARCH`` of linux/audit.h."""

_NAMESPACES = 0x7E02_0000
"""``CLONE_NEW...`` of linux/sched.h: in a namespace of its own a process would get rights that it does not have."""

_SHARED_ANONYMOUS = 0x21
"""``MAP_SHARED | MAP_ANONYMOUS``: once its writers have ended, no process is resident with such memory."""

# Instructions of the kernel's packet filter (linux/filter.h), results of a filter (linux/seccomp.h), and the offsets of
# number, architecture and arguments in what it looks at.
_LOAD, _AND, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x45, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF_0000, 0x0005_0000, 0x8000_0000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _FOURTH_ARGUMENT = 0, 4, 16, 40


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def filter_calls(*, cuda: bool) -> None:
    """Install the filter for this process and all that it starts, for good.

    With ``cuda`` it allows what the driver needs, which shares memory that has no file.

    Raises:
        OSError: If the kernel refuses, or the machine is of a kind without a list.
    """
    machine = platform.machine()
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no filter of system calls for machines of kind {machine}")
    code = b"".join(struct.pack("<HBBI", *instruction) for instruction in _instructions(*_MACHINES[machine], cuda=cuda))
    # Without this the kernel takes filters from root alone: a program that gains rights must not run under one.
    set_option(ProcessOption.NO_NEW_PRIVILEGES, 1)
    program = ctypes.byref(_Program(len(code) // 8, code))
    library = ctypes.CDLL(None, use_errno=True)
    if library.syscall(_SECCOMP[_MACHINES[machine][0]], _SET_MODE_FILTER, _SPEC_ALLOW, program):
        raise OSError(ctypes.get_errno(), "the filter of system calls cannot be set")


def join_empty_keyring() -> None:
    """Leave the session keyring of the user, with its secrets, for a new one; nothing where the kernel has none."""
    if (machine := platform.machine()) in _MACHINES:
        ctypes.CDLL(None).syscall(_KEYCTL[_MACHINES[machine][0]], _JOIN_SESSION_KEYRING, None)


def _instructions(column: int, architecture: int, *, cuda: bool) -> Iterator[tuple[int, int, int, int]]:
    """Yield code, jump if true, jump if false (both relative) and operand of each instruction."""
    yield (_LOAD, 0, 0, _ARCHITECTURE)
    # Numbers of another architecture, which the kernel may take too, mean other calls.
    yield (_EQUAL, 1, 0, architecture)
    yield (_RETURN, 0, 0, _KILL)
    yield (_LOAD, 0, 0, _NUMBER)
    yield (_EQUAL, 0, 4, _CLONE[column])
    yield (_LOAD, 0, 0, _FIRST_ARGUMENT)
    yield (_ANY_BIT, 0, 1, _NAMESPACES)
    yield (_RETURN, 0, 0, _ERROR | errno.EPERM)
    yield (_RETURN, 0, 0, _ALLOW)
    yield (_EQUAL, 0, 5, _MMAP[column])
    yield (_LOAD, 0, 0, _FOURTH_ARGUMENT)
    yield (_AND, 0, 0, 0 if cuda else _SHARED_ANONYMOUS)
    yield (_EQUAL, 0, 1, _SHARED_ANONYMOUS)
    yield (_RETURN, 0, 0, _ERROR | errno.EPERM)
    yield (_RETURN, 0, 0, _ALLOW)
    for _, *numbers in ALLOWED:
        if numbers[column] != "-":
            yield (_EQUAL, 0, 1, int(numbers[column]))
            yield (_RETURN, 0, 0, _ALLOW)
    # ``clone3`` is among the rest: its flags lie in memory, where a filter cannot look. The C library then calls
    # ``clone``.
    yield (_RETURN, 0, 0, _ERROR | errno.ENOSYS)
