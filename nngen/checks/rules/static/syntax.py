"""Rule ``syntax``: the source is text that Python can parse."""

from __future__ import annotations

from nngen.checks.rule import Invalid, StaticRule, fail
from nngen.checks.source import Source
from nngen.types import MAX_SOURCE_BYTES, Outcome


class Syntax(StaticRule):
    """Refuses a source that does not parse, holds null bytes, is nested too deep or is too long."""

    name = "syntax"
    order = 10
    VALID = ("", "x = 1\n", "def f():\n    return [[[1]]]\n", "# Umlaute: äöü\r\nx = 1\r\n")
    INVALID = (
        Invalid(source="def f(:\n", message="invalid syntax", outcome=Outcome.SYNTAX, line=1),
        Invalid(source="x = 1\n  y = 2\n", message="unexpected indent", outcome=Outcome.SYNTAX, line=2),
        Invalid(source="x = 1\0\n", message="null byte", outcome=Outcome.SYNTAX, line=1),
        Invalid(source="x = " + "(" * 5000 + ")" * 5000, message="nested", outcome=Outcome.SYNTAX),
        Invalid(source="x = " + "-" * 200_000 + "1", message="nested too deep", outcome=Outcome.SYNTAX),
        Invalid(source="#" * (MAX_SOURCE_BYTES + 1), message="4 MiB", outcome=Outcome.SYNTAX),
        Invalid(source="x = '\ud800'\n", message="surrogate", outcome=Outcome.SYNTAX),
    )

    def check(self, source: Source) -> None:
        try:
            size = len(source.text.encode())
        except UnicodeEncodeError:
            raise fail(Outcome.SYNTAX, self.name, "holds lone surrogates: save it as UTF-8") from None
        if size > MAX_SOURCE_BYTES:
            limit = MAX_SOURCE_BYTES // 2**20
            raise fail(Outcome.SYNTAX, self.name, f"has {size:,} bytes; at most {limit} MiB are allowed")
        if "\0" in source.text:
            line = source.text.count("\n", 0, source.text.index("\0")) + 1
            raise fail(Outcome.SYNTAX, self.name, "holds a null byte", line=line)
        try:
            _ = source.tree
        except SyntaxError as error:
            raise fail(Outcome.SYNTAX, self.name, str(error.msg), line=error.lineno) from None
        except (RecursionError, MemoryError):
            raise fail(Outcome.SYNTAX, self.name, "is nested too deep to be parsed") from None
