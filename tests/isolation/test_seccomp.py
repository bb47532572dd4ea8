"""Filter of system calls, carried out as the kernel does it, and what installs it."""

import ctypes
import errno
import os
import platform
import struct
from itertools import pairwise

import pytest

from nngen.isolation import seccomp
from nngen.isolation.limits import ProcessOption
from nngen.isolation.seccomp import ALLOWED, filter_calls, join_empty_keyring

ALLOW, KILL, NO_RIGHT, NO_CALL = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
LOAD, AND, EQUAL, ANY_BIT, RETURN = 0x20, 0x54, 0x15, 0x45, 0x06
X86, ARM = 0xC000003E, 0xC00000B7
MACHINES = {
    # column of the table, architecture, numbers of clone, mmap, clone3, socket, ptrace, bpf and io_uring_setup
    "x86_64": (1, X86, 56, 9, (435, 41, 101, 321, 425)),
    "aarch64": (2, ARM, 220, 222, (435, 198, 117, 280, 425)),
}


class Library:
    """The C library, which notes its calls instead of making them."""

    def __init__(self, result=0):
        self.calls, self.result = [], result

    def syscall(self, *arguments):
        *numbers, last = arguments
        if last is not None:
            program = last._obj
            address = ctypes.c_void_p.from_buffer(program, type(program).instructions.offset).value
            numbers += [program.length, ctypes.string_at(address, 8)]
        self.calls.append(tuple(numbers))
        ctypes.set_errno(errno.EACCES)
        return self.result


def program(machine, monkeypatch, *, cuda=False):
    """Return the instructions that are handed to the kernel of a machine."""
    written = []
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(seccomp, "set_option", lambda *_: None)
    monkeypatch.setattr(seccomp, "_Program", lambda length, code: written.append((length, code)) or ctypes.c_int())
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: type("", (), {"syscall": lambda *_: 0}))
    filter_calls(cuda=cuda)
    [(length, code)] = written
    assert len(code) == 8 * length
    return list(struct.iter_unpack("<HBBI", code))


def verdict(instructions, architecture, number, *arguments):
    """Run a filter on a call as the kernel does."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *(*arguments, *[0] * 6)[:6])
    held = position = 0
    while True:
        code, if_true, if_false, operand = instructions[position]
        position += 1
        if code == RETURN:
            return operand
        if code == LOAD:
            held = struct.unpack_from("<I", data, operand)[0]
        elif code == AND:
            held &= operand
        else:
            position += if_true if {EQUAL: held == operand, ANY_BIT: bool(held & operand)}[code] else if_false


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_of_the_list_are_allowed_and_no_others(machine, monkeypatch):
    column, architecture, clone, mmap, absent = MACHINES[machine]
    numbers = {int(call[column]) for call in ALLOWED if call[column] != "-"}
    assert not numbers & {clone, mmap, *absent}
    found = program(machine, monkeypatch)
    expected = {number: ALLOW if number in {*numbers, clone, mmap} else NO_CALL for number in range(600)}
    assert {number: verdict(found, architecture, number) for number in expected} == expected
    assert verdict(found, ARM if architecture == X86 else X86, min(numbers)) == KILL
    assert verdict(found, 0x40000003, min(numbers)) == KILL  # of 32 bits
    # Nothing else than a comparison jumps.
    assert [part for part in found if part[0] in (LOAD, AND, RETURN) and part[1:3] != (0, 0)] == []


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("cuda", [False, True])
def test_namespaces_and_shared_memory_without_a_file_are_refused(machine, cuda, monkeypatch):
    _, architecture, clone, mmap, _ = MACHINES[machine]
    found = program(machine, monkeypatch, cuda=cuda)
    # cgroup, uts, ipc, user, pid and net, and the mount namespace
    namespaces = [0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x00020000]
    for flag in namespaces:
        assert verdict(found, architecture, clone, flag | 0x11) == NO_RIGHT
    thread = 0x3D0F00
    assert not thread & sum(namespaces)
    assert verdict(found, architecture, clone, thread) == ALLOW
    assert verdict(found, architecture, clone, 0x80000000 | 0x0001FFFF) == ALLOW
    # MAP_SHARED is 1, MAP_PRIVATE 2, MAP_ANONYMOUS 32; flags are the fourth argument
    shared = ALLOW if cuda else NO_RIGHT
    for flags, wanted in {0x21: shared, 0x4021: shared, 0x22: ALLOW, 0x01: ALLOW, 0x20: ALLOW, 0x02: ALLOW}.items():
        assert verdict(found, architecture, mmap, 0x21, 0x21, 0x21, flags, 0x21) == wanted
    assert verdict(found, architecture, mmap, 0x21, 0x21, 0x21) == ALLOW


def test_the_list_has_each_call_once():
    names = [name for name, *_ in ALLOWED]
    assert len(names) == len(set(names))
    assert all(len(call) == 3 for call in ALLOWED)
    for column in (1, 2):
        numbers = sorted(int(call[column]) for call in ALLOWED if call[column] != "-")
        assert all(one < two for one, two in pairwise(numbers))


@pytest.mark.parametrize(("machine", "number"), [("x86_64", 317), ("aarch64", 277)])
def test_the_filter_is_set_without_a_way_to_new_rights(machine, number, monkeypatch):
    library, options, opened = Library(), [], []
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(seccomp, "set_option", lambda *option: options.append((*option, len(library.calls))))
    monkeypatch.setattr(ctypes, "CDLL", lambda *name, **how: opened.append((name, how)) or library)
    filter_calls(cuda=False)
    assert options == [(ProcessOption.NO_NEW_PRIVILEGES, 1, 0)]  # first: the kernel asks for it
    assert opened == [((None,), {"use_errno": True})]
    # seccomp(SET_MODE_FILTER, SPEC_ALLOW, program), which begins by loading the architecture
    [(*call, length, first)] = library.calls
    assert call == [number, 1, 4]
    assert length > 200
    assert first == struct.pack("<HBBI", LOAD, 0, 0, 4)


def test_a_filter_that_the_kernel_refuses_is_an_error(monkeypatch):
    monkeypatch.setattr(seccomp, "set_option", lambda *_: None)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Library(-1))
    with pytest.raises(OSError, match="the filter of system calls cannot be set") as caught:
        filter_calls(cuda=False)
    assert caught.value.errno == errno.EACCES


def test_machines_of_another_kind_have_no_filter(monkeypatch):
    library = Library()
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: library)
    with pytest.raises(OSError, match="no filter of system calls for machines of kind riscv64") as caught:
        filter_calls(cuda=False)
    assert caught.value.errno == errno.ENOSYS
    join_empty_keyring()
    assert library.calls == []


@pytest.mark.parametrize(("machine", "number"), [("x86_64", 250), ("aarch64", 219)])
def test_the_keyring_is_left_for_an_empty_one(machine, number, monkeypatch):
    library = Library()
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_: library)
    join_empty_keyring()
    assert library.calls == [(number, 1)]  # keyctl(JOIN_SESSION_KEYRING)


def test_a_filtered_process_lacks_the_other_calls():
    child = os.fork()
    if child == 0:
        code = 1
        try:
            filter_calls(cuda=False)
            status = open("/proc/self/status").read()  # noqa: SIM115, PTH123
            assert "NoNewPrivs:\t1\n" in status
            assert "Seccomp:\t2\n" in status
            try:
                os.memfd_create("x")
            except OSError as error:
                code = 0 if error.errno == errno.ENOSYS else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
