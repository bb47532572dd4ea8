"""Result of a job: the reason of its worker's end, and one line that describes it."""

from __future__ import annotations

import enum
import os
import re
import signal
from dataclasses import dataclass

from nngen.isolation.limits import MAX_PROCESSES, Limits

_LAST_LINE = 200


class ExitReason(enum.Enum):
    """Why a worker ended."""

    EXIT = enum.auto()  # it ended by itself, or was killed by something other than its monitor
    DONE = enum.auto()  # everything expected had been received
    TIME = enum.auto()  # it reached its time limit
    MEMORY = enum.auto()  # it exceeded its memory limit
    PROCESSES = enum.auto()  # it started too many processes
    PROTOCOL = enum.auto()  # it sent bytes that are not a frame, or an unexpected frame


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """Result of a job of which no process and no file is left."""

    reason: ExitReason  # why it ended
    limits: Limits  # limits it ran under
    status: int | None  # the worker's wait status; None where the supervisor was killed and could not report it
    seconds: float  # seconds from launch until nothing of it was left
    peak_mib: float  # largest resident memory seen over the process tree, in MiB
    output: bytes  # the last bytes of what it printed
    error: str = ""  # what was wrong with its frames; empty unless ``reason`` is ``PROTOCOL``

    @property
    def completed(self) -> bool:
        """Whether everything expected was received, or the function returned."""
        return self.reason is ExitReason.DONE or (self.reason is ExitReason.EXIT and self.status == 0)

    @property
    def killed(self) -> bool:
        """Whether the worker or its supervisor was killed by something other than the monitor."""
        # Where the monitor killed it, with the same signal, the reason is another.
        if self.reason is not ExitReason.EXIT:
            return False
        return self.status is None or (os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) == signal.SIGKILL)

    def describe(self) -> str:
        """Describe the end in one line, for a message; the last line printed in it is not cleaned."""
        match self.reason:
            case ExitReason.TIME:
                return f"ran longer than {self.limits.time_limit_s:g} s and was ended"
            case ExitReason.MEMORY:
                return f"used {self.peak_mib:,.0f} MiB, more than the limit of {self.limits.memory_mib:,} MiB"
            case ExitReason.PROCESSES:
                return f"started more than {MAX_PROCESSES} processes and was ended"
            case ExitReason.PROTOCOL:
                return f"the worker broke its protocol: {self.error}"
        if self.status is None:
            return "the worker's supervisor was killed or stopped"
        if os.WIFSIGNALED(self.status):
            number = os.WTERMSIG(self.status)
            name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
            cause = ", by itself or by the kernel for want of memory" if number == signal.SIGKILL else ""
            return f"the worker was killed by signal {name}{cause}"
        printed = self.output.decode(errors="replace").strip().rpartition("\n")[2][-_LAST_LINE:]
        last = f" (its last line: {printed})" if printed else ""
        return f"the worker left with exit code {os.waitstatus_to_exitcode(self.status)} before it had finished{last}"

    def crash_line(self, file: str) -> int | None:
        """Find the innermost line of ``file`` in the traceback that faulthandler prints when a signal kills Python."""
        text = self.output.decode(errors="replace")
        begin = text.rfind("Fatal Python error")
        if begin < 0:
            return None
        found = re.search(rf'File "[^"\n]*{re.escape(file)}", line (\d{{1,7}}) in', text[begin:])
        return int(found.group(1)) if found else None
