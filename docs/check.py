"""What Sphinx does not check, after it: links, files from outside, and that the list of files is complete.

    python docs/check.py docs/_build/html

1. On every page that was built each link and picture that is not on another site leads to a file that is there, and to
   a place in it that is there. Nothing is loaded from another site: the pages must work without a network.
2. The same of the Markdown files at the top of the repository, as a forge shows them.
3. Every file name that the source of segfw has as a constant is named in ``docs/reference/files.md``.

Prints each fault and ends with 1 if there are any. Nothing is fetched.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
TOP_PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
LOADED = {"img": "src", "script": "src", "link": "href", "source": "srcset", "iframe": "src", "object": "data"}
NOT_LOADED = {"canonical", "author", "next", "prev", "search", "index"}  # what <link rel=...> only tells of
FILE_CONSTANT = re.compile(r"(^|_)(FILE|PNG|HTML)$")
# What nnU-Net's folders hold is read, not written by segfw; a runner's own files are in its folder of export.
NOT_OURS = {"plans.json", "dataset.json"}


def main() -> int:
    site = Path(sys.argv[1])
    faults = [*faults_of_site(site), *faults_of_top_pages(), *unlisted_files()]
    for fault in faults:
        print(fault)
    print(f"{len(faults)} dead links, files from outside or unlisted files" if faults else "links and files: all there")
    return 1 if faults else 0


@dataclass
class Page(HTMLParser):
    """Anchors of a page, where its links lead, and what it loads."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in LOADED and LOADED[tag] in values and values.get("rel") not in NOT_LOADED:
            self.loaded.append(values[LOADED[tag]])


def faults_of_site(site: Path) -> Iterator[str]:
    """Dead links of the pages in ``site``, and what they load from elsewhere."""
    pages = {}
    for path in sorted(site.rglob("*.html")):
        page = Page()
        page.feed(path.read_text(encoding="utf-8"))
        pages[path.resolve()] = page
    if not pages:
        yield f"{site}: holds no page"
    for path, page in pages.items():
        for target in page.loaded:
            if is_elsewhere(target) and not target.startswith("data:"):
                yield f"{path}: loads {target} from elsewhere"
        for target in (*page.links, *page.loaded):
            if is_elsewhere(target):
                continue
            file, place = place_of(path, target)
            if not file.exists():
                yield f"{path}: leads to {target}, which is not there"
            elif place and file in pages and place not in pages[file].anchors:
                yield f"{path}: leads to {target}, where there is no such place"
    for path in sorted(site.rglob("*.css")):
        for target in re.findall(
            r"(?:url\(|@import\s+)[\"']?((?:https?:)?//[^\"')\s]+)", path.read_text(encoding="utf-8")
        ):
            yield f"{path}: loads {target} from elsewhere"


def faults_of_top_pages() -> Iterator[str]:
    """Dead links of the Markdown at the top of the repository."""
    for name in TOP_PAGES:
        path = ROOT / name
        for target in markdown_links(path):
            if is_elsewhere(target):
                continue
            file, place = place_of(path, target)
            if not file.exists():
                yield f"{name}: leads to {target}, which is not there"
            elif place and file.suffix == ".md" and place not in markdown_anchors(file):
                yield f"{name}: leads to {target}, where there is no such heading"


def is_elsewhere(target: str) -> bool:
    """True of links to other sites, and of mail and the like."""
    parts = urlsplit(target)
    return bool(parts.scheme or parts.netloc)


def place_of(page: Path, target: str) -> tuple[Path, str]:
    """The file that a link of ``page`` leads to, and the place in it."""
    parts = urlsplit(target)
    file = page.parent / unquote(parts.path) if parts.path else page
    return file.resolve(), unquote(parts.fragment)


def markdown_links(path: Path) -> list[str]:
    """Targets of all links and pictures."""
    found = []
    for token in MarkdownIt().enable("table").parse(path.read_text(encoding="utf-8")):
        for child in token.children or ():
            for name in ("href", "src"):
                if name in child.attrs:
                    found.append(str(child.attrs[name]))
    return found


def markdown_anchors(path: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def unlisted_files() -> Iterator[str]:
    """Constants of the source that hold a file name which the page of files does not have."""
    page = (ROOT / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "segfw").rglob("*.py")):
        for name, value in constants(ast.parse(path.read_text(encoding="utf-8"))):
            is_file = FILE_CONSTANT.search(name) and re.fullmatch(r"[\w.]+\.\w+|[A-Z]+", value)
            is_listed = f"`{value}`" in page or f"/{value}`" in page  # with its folder
            if is_file and value not in NOT_OURS and not is_listed:
                yield f"docs/reference/files.md: does not list {value} ({path.relative_to(ROOT)}: {name})"


def constants(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Names and values of the strings that a module assigns, one by one or side by side."""
    for statement in module.body:
        if not isinstance(statement, ast.Assign):
            continue
        for target in statement.targets:
            if isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Tuple):
                pairs = list(zip(target.elts, statement.value.elts))
            else:
                pairs = [(target, statement.value)]
            for left, right in pairs:
                if isinstance(left, ast.Name) and isinstance(right, ast.Constant) and isinstance(right.value, str):
                    yield left.id, right.value


if __name__ == "__main__":
    sys.exit(main())
