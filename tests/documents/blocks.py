"""Blocks of code in README.md, docs/ and the examples of ``--help``, and the segfw commands in them.

A block says its language behind the fence. ``sh`` and ``python`` are run. A block that is not to be run has its reason
in a comment before it, which readers of the page do not see::

    <!-- not run: needs two GPUs -->

and one that is the content of a file has its path there, ``<!-- file: data/labels.csv -->``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("sh", "powershell", "python", "text", "json", "toml", "{toctree}", "{include}", "{api}")
SHELLS = ("sh", "powershell")
FENCE = re.compile(r"^```(\S*)( .*)?$")
FILE = re.compile(r"<!-- file: (\S+) -->")
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->")
INLINE = re.compile(r"`(segfw [^`]+)`")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
OPERATORS = {"&&", "||", ";", "|", ">", ">>"}


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of code; ``line`` is that of its fence, ``not_run`` the reason why it is not run or empty.

    ``file`` is the path of the file that it is the content of, or empty.
    """

    page: str
    line: int
    language: str
    text: str
    not_run: str
    file: str = ""

    @property
    def place(self) -> str:
        """As messages name it."""
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """README.md and every page of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@cache
def blocks_of(page: Path) -> tuple[Block, ...]:
    """Every fenced block of a page, in order."""
    name = page.relative_to(ROOT).as_posix()
    found: list[Block] = []
    language = ""
    reason = ""
    file = ""
    start = 0
    held: list[str] | None = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = FENCE.match(line.strip())
        if held is not None and fence:
            text = "\n".join(held)
            found.append(Block(page=name, line=start, language=language, text=text, not_run=reason, file=file))
            held = None
            reason = ""
            file = ""
        elif held is not None:
            held.append(line)
        elif fence:
            held = []
            language = fence[1]
            start = number
        elif line.strip():
            marked = NOT_RUN.match(line.strip())
            reason = marked[1] if marked else ""
            written = FILE.match(line.strip())
            file = written[1] if written else ""
    if held is not None:
        raise ValueError(f"{name}:{start}: a block of code has no end")
    return tuple(found)


def all_blocks() -> list[Block]:
    """The blocks of all pages."""
    return [block for page in pages() for block in blocks_of(page)]


def lines_of(block: Block) -> Iterator[str]:
    """What is typed in a shell, a command a time: long lines joined, comments left out."""
    ending = "`" if block.language == "powershell" else "\\"
    joined = block.text.replace(f"{ending}\n", " ")
    for line in joined.splitlines():
        if line.strip() and not line.strip().startswith("#"):
            yield line.strip()


def words_of(line: str, language: str = "sh") -> list[list[str]]:
    """The commands of a line as lists of words, split where one ends and the next begins."""
    lexer = shlex.shlex(line, posix=language != "powershell", punctuation_chars="&|;>")
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    for word in lexer:
        if word in OPERATORS:
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def segfw_arguments(words: Sequence[str]) -> list[str] | None:
    """What stands behind ``segfw``, however it is called; None if the command is another one."""
    if words[0].replace("\\", "/").rsplit("/", 1)[-1] in ("segfw", "segfw.exe"):
        return list(words[1:])
    for at in range(len(words) - 1):
        if list(words[at : at + 2]) == ["-m", "segfw"]:
            return list(words[at + 2 :])
    return None


def segfw_commands() -> list[tuple[str, list[str]]]:
    """Place and arguments of every segfw command in a block for a shell."""
    found: list[tuple[str, list[str]]] = []
    for block in all_blocks():
        if block.language not in SHELLS:
            continue
        for line in lines_of(block):
            for words in words_of(line, block.language):
                arguments = segfw_arguments(words)
                if arguments is not None:
                    found.append((block.place, arguments))
    return found


def outside_blocks(page: Path) -> str:
    """The page's text without its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def inline_commands() -> list[tuple[str, str]]:
    """Page and text of every ``segfw ...`` inside a line of text or a cell of a table, which may be shortened."""
    return [
        (page.relative_to(ROOT).as_posix(), " ".join(text.split()))
        for page in pages()
        for text in INLINE.findall(outside_blocks(page))
    ]


def inline_options(page: Path) -> set[str]:
    """Options that a page names between backticks, of whatever program."""
    return {option for text in re.findall(r"`([^`]+)`", outside_blocks(page)) for option in OPTION.findall(text)}
