"""What a process gives up for good before it runs a stranger's code: Linux's rlimits, Landlock and seccomp.

Only the standard library, and no import beside it: the sandbox runs this file's text in an interpreter of its own.
Landlock: no file may be written, and none be read but Python's own and the system's libraries. seccomp: no new process,
no network, no signal to anybody. Both hold for whatever the code starts or becomes, also for root.
"""

import ctypes
import os
import platform
import resource
import struct
import sys

# What is refused, with its numbers on x86_64 and aarch64; None: it is not there. Root's powers go with its
# capabilities.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198), "fork": (57, None), "vfork": (58, None), "kill": (62, 129), "tkill": (200, 130),
    "tgkill": (234, 131), "ptrace": (101, 117), "process_vm_writev": (311, 271), "pidfd_send_signal": (424, 424),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "io_uring_setup": (425, 425),
    "memfd_create": (319, 279), "bpf": (321, 280), "unshare": (272, 97), "setns": (308, 268),
    "setpriority": (141, 140), "prlimit64": (302, 261), "shmget": (29, 194), "msgget": (68, 186),
    "add_key": (248, 217), "keyctl": (250, 219), "userfaultfd": (323, 282), "perf_event_open": (298, 241),
    "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "setsid": (112, 157), "chmod": (90, None),
    "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "utimensat": (280, 88), "setxattr": (188, 5),
    "fsetxattr": (190, 7), "removexattr": (197, 14),
}  # fmt: skip
# By machine: AUDIT_ARCH of seccomp, the number of clone, and the column above.
MACHINES = {"x86_64": (0xC000003E, 56, 0), "aarch64": (0xC00000B7, 220, 1)}
CLONE3, CLONE_THREAD, SECCOMP_FILTER, NO_NEW_PRIVS = 435, 0x10000, 2, 38
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
READ = 1 | 4 | 8  # execute, read a file, read a folder
WRITE = 2 | sum(1 << bit for bit in range(4, 13))  # write a file, remove and make things
ABI_RIGHTS = {1: 0, 2: 1 << 13, 3: (1 << 13) | (1 << 14)}  # refer, truncate
READABLE = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom")
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def seal(seconds: int, memory: int) -> list[str]:
    """Give up whatever the kernel lets go; return what could not be given up, with why.

    Args:
        seconds: of the processor.
        memory: bytes of address space.
    """
    limits = {"CPU": seconds, "AS": memory, "FSIZE": 0, "CORE": 0, "NOFILE": 32, "STACK": 64 << 20}
    for name, most in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
    faults = []
    for name, apply in (("capabilities", _no_powers), ("landlock", _no_files), ("seccomp", _no_calls)):
        try:
            apply()
        except OSError as error:
            faults.append(f"{name}: {error.strerror}")
    return faults


def _no_powers() -> None:
    _checked(_libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0))
    head = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0), 8)
    _checked(_libc.capset(head, ctypes.create_string_buffer(24)))


def _no_files() -> None:
    abi = _checked(_libc.syscall(LANDLOCK_CREATE, None, 0, 1))
    handled = READ | WRITE | ABI_RIGHTS[min(abi, 3)]
    asked = ctypes.create_string_buffer(struct.pack("=Q", handled), 8)
    rules = _checked(_libc.syscall(LANDLOCK_CREATE, asked, 8, 0))
    folders = {sys.base_prefix, sys.prefix, os.path.dirname(os.path.realpath(sys.executable)), *READABLE}
    for folder in sorted(folders):
        if os.path.exists(folder):
            place = os.open(folder, os.O_PATH)
            rights = READ if os.path.isdir(folder) else (1 | 4) & READ
            rights |= 2 if folder == "/dev/null" else 0
            rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, place), 12)
            _checked(_libc.syscall(LANDLOCK_ADD, rules, 1, rule, 0))
            os.close(place)
    _checked(_libc.syscall(LANDLOCK_RESTRICT, rules, 0))
    os.close(rules)


def _no_calls() -> None:
    """Refuse the calls above with EPERM, clone3 with ENOSYS (then libc takes clone), and clone of a process."""
    machine = platform.machine()
    if machine not in MACHINES:
        raise OSError(38, f"no table of system calls for {machine}; there are: {', '.join(MACHINES)}")
    arch, clone, column = MACHINES[machine]
    load, equal, above, test, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, missing, kill = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
    refused = sorted(numbers[column] or 0 for numbers in REFUSED.values() if numbers[column] is not None)
    body = [
        (load, 0, 0, 4), (equal, 1, 0, arch), (give, 0, 0, kill),
        (load, 0, 0, 0),
        (above, 0, 1, 0x40000000), (give, 0, 0, refuse),  # x32's numbers
        (equal, 0, 1, CLONE3), (give, 0, 0, missing),
        (equal, 0, 4, clone), (load, 0, 0, 16), (test, 1, 0, CLONE_THREAD), (give, 0, 0, refuse), (give, 0, 0, allow),
    ]  # fmt: skip
    for number in refused:
        body += [(equal, 0, 1, number), (give, 0, 0, refuse)]
    body.append((give, 0, 0, allow))
    filters = b"".join(struct.pack("=HBBI", *line) for line in body)
    held = ctypes.create_string_buffer(filters, len(filters))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(body), ctypes.addressof(held)))
    _checked(_libc.prctl(22, SECCOMP_FILTER, program, 0, 0))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
