"""Options of processes, as the kernel then reports them."""

import ctypes
import errno
import os

import pytest

from nngen.isolation import limits
from nngen.isolation.limits import ProcessOption, set_option

GETTERS = {
    # numbers of linux/prctl.h, and whether the value is written to an address
    ProcessOption.PARENT_DEATH_SIGNAL: (2, True, 9),
    ProcessOption.DUMPABLE: (3, False, 0),
    ProcessOption.CHILD_SUBREAPER: (37, True, 1),
    ProcessOption.NO_NEW_PRIVILEGES: (39, False, 1),
}


def get(option):
    number, written, _ = GETTERS[option]
    library, value = ctypes.CDLL(None), ctypes.c_int(-1)
    address = [ctypes.byref(value)] if written else [ctypes.c_ulong(0)]
    returned = library.prctl(number, *address, *map(ctypes.c_ulong, (0, 0, 0)))
    return value.value if written else returned


@pytest.mark.parametrize("option", ProcessOption)
def test_an_option_is_set_to_its_value(option):
    wanted = GETTERS[option][2]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            before = get(option)
            set_option(option, wanted)
            code = 0 if before != wanted and get(option) == wanted else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_option_that_the_kernel_refuses_is_an_error():
    with pytest.raises(OSError, match="dumpable of a process cannot be set") as caught:
        set_option(ProcessOption.DUMPABLE, 7)
    assert caught.value.errno == errno.EINVAL


def test_a_mebibyte_has_1024_kibibytes():
    assert limits.MIB == 1024 * 1024
    assert limits.MAX_PROCESSES == 512
