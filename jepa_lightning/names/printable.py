"""Names of files, classes and labels, made fit to be shown: a stranger's data must not steer a terminal."""

from __future__ import annotations

import re

# C0 and C1 codes (ESC, new lines), what turns the direction of writing, other line ends, and what XML may not hold.
_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def printable(words: object, *, lines: bool = False) -> str:
    r"""Words with control codes written out (`\x1b`, `\n`), so that they neither move the cursor nor begin a line.

    Bytes of a file's name that are not UTF-8 are written out, too (`caf\xe9.png`).

    Args:
        words: anything that has a name.
        lines: keep new lines and tabs: for a whole message, whose names have been made printable.

    Examples:
        >>> from jepa_lightning.names.printable import printable
        >>> print(printable("cat\x1b[31m\n.png"))
        cat\x1b[31m\n.png
    """
    return _STEERING.sub(lambda found: _written_out(found[0], lines=lines), str(words))


def say(message: object) -> None:
    """Print a message of one or more lines, while a progress bar may be shown.

    It is written in one piece that ends in a new line. Rich's live display keeps the rest of a piece that does not,
    and in a notebook, where each drawing flushes standard output, draws that rest again without end.

    Examples:
        >>> from jepa_lightning.names.printable import say
        >>> say("two\\nlines")
        two
        lines
    """
    print(f"{printable(message, lines=True)}\n", end="", flush=True)


def _written_out(code: str, *, lines: bool) -> str:
    if "\udc80" <= code <= "\udcff":  # a byte of a name that is not UTF-8
        return f"\\x{ord(code) - 0xDC00:02x}"
    return code if lines and code in "\n\t" else code.encode("unicode_escape", "surrogatepass").decode("ascii")
