"""What one read of every case gave, kept in the work folder until a file of the data set changes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

from segfw.base.printing import printable
from segfw.base.records import Record, UserError
from segfw.base.words import count
from segfw.dataset.cases import MANIFEST_FILE, DatasetManifest, Finding, FoundDataset
from segfw.grid.store import DecodedCases
from segfw.images.formats import size_and_change
from segfw.planning.fingerprint import FINGERPRINT_FILE, Fingerprint, scan_dataset
from segfw.planning.memory import load_counter
from segfw.planning.work_folder import SCAN_FILE, keep_decision

SCAN_RULES = 2  # raised when a scan finds out more than before


class Scan(Record):
    """Which files the manifest and the fingerprint were made from."""

    digest: str


def kept_or_new_scan(
    found: FoundDataset, work: Path, workers: int | None, overwrite: bool, decoded: DecodedCases
) -> tuple[DatasetManifest, Fingerprint]:
    """Manifest and fingerprint, from the work folder if no file has changed since."""
    kept = None if overwrite else kept_scan(found, work)
    if kept is not None:
        return kept
    threading.Thread(target=load_counter, daemon=True).start()  # new data need a new plan, for which steps are counted
    manifest, fingerprint = scan_dataset(found, workers=workers, also=decoded.keep)
    work.mkdir(parents=True, exist_ok=True)
    keep_decision(work, MANIFEST_FILE, manifest, overwrite)  # first of all: it may refuse, and nothing has changed then
    fingerprint.save(work / FINGERPRINT_FILE)
    Scan(digest=_files_digest(found)).save(work / SCAN_FILE)
    print(f"checked {count(len(manifest.cases), 'case')} of {manifest.name} ({manifest.layout} layout; {found.paired})")
    for note in manifest.notes:
        print(f"  {note}")
    return manifest, fingerprint


def kept_scan(found: FoundDataset, work: Path) -> tuple[DatasetManifest, Fingerprint] | None:
    """Manifest and fingerprint of the work folder; None if there are none, or a file has changed since."""
    _require_utf_8(found)
    kept = work / SCAN_FILE
    if not kept.is_file() or Scan.load(kept).digest != _files_digest(found):
        return None
    return DatasetManifest.load(work / MANIFEST_FILE), Fingerprint.load(work / FINGERPRINT_FILE)


def _require_utf_8(found: FoundDataset) -> None:
    """UserError for a name that a manifest, which is JSON, cannot hold."""
    for path in (found.root.resolve(), *(path for case in found.cases for path in case.files)):
        if printable(str(path)) != str(path):
            raise UserError(
                f"{printable(str(path))}: the name holds bytes that are not UTF-8, or control characters; rename it, "
                "for example with: convmv -f latin1 -t utf8 -r --notest FOLDER"
            )


def _files_digest(found: FoundDataset) -> str:
    """Changes when a file of the data set is added, removed or written to."""
    label_maps = [case.label_map for case in found.cases]
    findings = _as_digested(found.findings)
    text = f"({SCAN_RULES!r}, {found.channels!r}, {found.labels!r}, {findings}, {label_maps!r})"
    digest = hashlib.sha256(text.encode())
    drawn_as = [case.drawn_as for case in found.cases]
    if any(drawn_as):
        digest.update(f"{drawn_as!r} {[case.id for case in found.cases]!r}".encode())
    annotated = [case.annotated for case in found.cases]
    if any(names is not None for names in annotated):
        digest.update(f"{annotated!r} {[case.id for case in found.cases]!r}".encode())
    for case in found.cases:
        for path in case.files:
            size, change = size_and_change(path)
            digest.update(f"{path.resolve()} {size} {change}\n".encode())
    return digest.hexdigest()


def _as_digested(findings: Sequence[Finding]) -> str:
    """Findings as work folders have always digested them: in other words all of them would be read anew."""
    texts = []
    for finding in findings:
        texts.append(
            f"Problem(kind={finding.kind!r}, case={finding.case!r}, file={Path(finding.file).name!r}, "
            f"what={finding.what!r}, remedy={finding.remedy!r}, is_warning={finding.severity != 'error'!r}, "
            f"others={finding.others!r})"
        )
    return f"({texts[0]},)" if len(texts) == 1 else f"({', '.join(texts)})"
