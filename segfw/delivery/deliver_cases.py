"""Delivers cases: each is held against its signature, logged, written in all formats, read back, and listed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from segfw.base.file_names import HIDDEN
from segfw.base.files import file_sha256
from segfw.base.locks import alone
from segfw.base.output_paths import require_distinct, require_outside
from segfw.base.parallel import CasesFailed, Outcome
from segfw.base.progress import progress
from segfw.base.records import UserError
from segfw.dataset.finished_mask import FinishedMask, MaskFormat
from segfw.dataset.labels import LABELS_FILE
from segfw.delivery.deliver_options import DeliverOptions
from segfw.delivery.delivered_copies import (
    DELIVER,
    DELIVER_FAILED,
    DELIVER_RESEARCH,
    DeliveredCopy,
    Parcel,
    delivered_copies,
    last_copies,
)
from segfw.delivery.delivery_gate import Gate, passed_gate, require_as_found, require_unchanged
from segfw.delivery.delivery_list import DeliveredFile, DeliveryList
from segfw.delivery.drafts_maker import maker_of
from segfw.delivery.source_series import images_of
from segfw.delivery.statements import RESEARCH_STAMP, statement_of
from segfw.interop.mask_formats import FormatWishes, mask_formats, require_distinct_masks
from segfw.interop.write_bids import BidsFormat
from segfw.reviewing.case_history import CaseStanding
from segfw.reviewing.mask_version import content_sha256
from segfw.reviewing.people import Person
from segfw.reviewing.review_log import Entry, Event, LogReader
from segfw.reviewing.review_store import ReviewStore

LOCK_FILE = "deliver.lock"
ABOUT_SIGNED = "signed"
ABOUT_MIXED = "signed, or drafts for research only"


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What was delivered now, what the gate kept back, and earlier copies of these cases that no longer hold.

    ``problems`` are what a check found instead, a sentence each.
    """

    output: Path
    files: tuple[DeliveredFile, ...] = ()
    gate: Gate = Gate()
    superseded: tuple[DeliveredCopy, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What is the same for all cases of a delivery."""

    store: ReviewStore
    output: Path
    options: DeliverOptions
    person: Person
    images: Mapping[str, Path | None]
    signers: Mapping[str, str]  # how the signer of each case is known

    def formats(self, *, is_research: bool) -> tuple[tuple[str, MaskFormat], ...]:
        """Each format by its name."""
        wishes = FormatWishes(
            is_labelmap=self.options.seg_type == "labelmap",
            report=self.options.sr,
            holes=self.options.holes,
            is_reviewed=True,
            stage="research" if is_research else "signed",
            about=ABOUT_MIXED if self.options.research else ABOUT_SIGNED,
        )
        names = tuple(dict.fromkeys(self.options.formats))
        mask_formats(names, wishes)  # refuses what does not go together
        return tuple((name, mask_formats([name], _wishes_of(name, wishes))[0]) for name in names)


def deliver_cases(store: ReviewStore, output: Path, options: DeliverOptions, person: Person) -> Delivery:
    """Writes the masks that may leave the review into ``output``, and lists them there.

    Raises UserError, before anything is written, if a case that is asked for may not be delivered or cannot be written
    in a format; and CasesFailed at the end if some could not, such as those that were changed after they were signed.
    """
    output = Path(output)
    require_outside(output, [store.folder])
    if output.is_file():
        raise UserError(f"{output}: is a file; give a folder for the masks")
    gate = passed_gate(store, options)
    cases = tuple(gate.passed)
    job = _Job(
        store=store,
        output=output.resolve(),
        options=options,
        person=person,
        images=images_of(store, cases, options.dicom),
        signers=_identities_of_signers(store),
    )
    _require_writable(job, gate.passed)
    made: list[DeliveredFile] = []
    failures: list[Outcome[str, None]] = []
    with alone(job.output / HIDDEN / LOCK_FILE):
        earlier = DeliveryList.of_folder(job.output, review_of(store))
        _require_distinct(job, gate.passed, {each.case for each in earlier.files})
        _write_about(job, gate.passed)
        for case, standing in progress("delivering", gate.passed.items()):
            try:
                made += _deliver(job, standing)
            except Exception as error:  # one bad case must not cost the user the others
                failures.append(Outcome(item=case, error=error))
        copies = delivered_copies(store.log.path)
        listed = earlier.with_files(made, copies, job.output.as_posix())
        listed.model_copy(update={"review": review_of(store)}).write(job.output)
    superseded = tuple(copy for copy in last_copies(copies) if copy.superseded and copy.case in gate.passed)
    if failures:
        raise CasesFailed("in delivery", failures, None)
    return Delivery(output=job.output, files=tuple(made), gate=gate, superseded=superseded)


def check_delivery(store: ReviewStore, output: Path) -> Delivery:
    """Looks for files of a folder of deliveries that are gone, changed or no longer hold; nothing is written."""
    output = Path(output)
    found = DeliveryList.of_folder(output, review_of(store))
    if not found.files:
        raise UserError(f"{output}: holds nothing that segfw deliver wrote; give the folder of a delivery")
    now = found.with_files([], delivered_copies(store.log.path), output.resolve().as_posix())
    return Delivery(output=output, files=now.files, problems=tuple(now.problems(output)))


def review_of(store: ReviewStore) -> str:
    """What tells one review from another: the hash of the first line of its log, '' before there is one."""
    first = next(iter(LogReader(store.log.path).more()), None)
    return "" if first is None else str(first["sha256"])


def _wishes_of(name: str, wishes: FormatWishes) -> FormatWishes:
    """The wishes that concern a format, alone."""
    return FormatWishes(
        is_labelmap=wishes.is_labelmap and name == "dicom-seg",
        report=wishes.report and name == "dicom-seg",
        holes=wishes.holes if name == "rtstruct" else "keyhole",
        is_reviewed=wishes.is_reviewed,
        stage=wishes.stage,
        about=wishes.about,
    )


def _require_writable(job: _Job, passed: Mapping[str, CaseStanding]) -> None:
    """UserError if a case cannot be written in a format, by all that is known before it is."""
    require_distinct(passed, job.output)
    _require_distinct(job, passed, ())
    for is_research in (False, True):
        for _, each in job.formats(is_research=is_research):
            for case, standing in passed.items():
                if (standing.state != "SIGNED") == is_research:
                    each.require_kind(case, job.images[case])


def _require_distinct(job: _Job, passed: Mapping[str, CaseStanding], known: Collection[str]) -> None:
    """UserError if two cases would be one file, as in BIDS, or one would take the place of a ``known`` one."""
    for is_research in (False, True):
        cases = [case for case, standing in passed.items() if (standing.state != "SIGNED") == is_research]
        formats = [each for _, each in job.formats(is_research=is_research)]
        require_distinct_masks(formats, cases, job.output, known)


def _write_about(job: _Job, passed: Mapping[str, CaseStanding]) -> None:
    job.store.labels.save(job.output / LABELS_FILE)
    is_any_signed = any(standing.state == "SIGNED" for standing in passed.values())
    for _, each in job.formats(is_research=not is_any_signed):
        each.write_about(job.output, job.store.labels, maker_of(job.store, job.store.model_digest()))


def _deliver(job: _Job, standing: CaseStanding) -> list[DeliveredFile]:
    """One case in all formats; the log tells of it before the first file is there."""
    case = standing.case
    is_research = standing.state != "SIGNED"
    if not is_research:
        require_unchanged(job.store, case, without_image=job.options.without_image)
    volume = job.store.read(case, standing.version)
    values_zyx = volume.array[0]
    sha256 = content_sha256(values_zyx, volume.geometry.matrix, job.store.label_names)
    if not is_research and sha256 != standing.sha256:
        raise UserError(f"{case}: version {standing.version} is not what was signed; restore the folder review/")
    formats = job.formats(is_research=is_research)
    for _, each in formats:
        each.require(case, job.images[case])

    # Logged first: files carry the hash of this line, and no copy is unknown to the log
    with job.store.alone_with(case):
        require_as_found(job.store, standing)
        logged = job.store.log.append(_entry(job, standing, sha256, formats))
    mask = FinishedMask(
        case_id=case,
        values_zyx=values_zyx,
        geometry=volume.geometry,
        labels=job.store.labels,
        maker=maker_of(job.store, logged.model_digest or ""),
        image=job.images[case],
        only=job.store.structures,
        statement=statement_of(job.store, standing, sha256, logged, job.signers.get(case, "declared")),
    )
    made: list[DeliveredFile] = []
    try:
        for name, each in formats:
            written = _write(job.output, each, mask, is_research=is_research)
            made += [_listed(job, standing, mask, logged, name, file) for file in written]
    except BaseException as error:
        for each_made in made:  # a case is delivered in all formats or in none
            with suppress(OSError):
                (job.output / each_made.file).unlink(missing_ok=True)
        _say_failed(job, standing, logged, error)
        raise
    return made


def _write(output: Path, each: MaskFormat, mask: FinishedMask, *, is_research: bool) -> tuple[str, ...]:
    """Writes a mask in a format, under a stamped name if it is not signed; BIDS says so in a part of its own."""
    case_id = mask.case_id
    if is_research and not isinstance(each, BidsFormat):
        case_id += RESEARCH_STAMP
    each.write(output, replace(mask, case_id=case_id))
    return each.files(case_id)


def _entry(job: _Job, standing: CaseStanding, sha256: str, formats: Sequence[tuple[str, MaskFormat]]) -> Entry:
    parcel = Parcel(
        place=job.output.as_posix(),
        formats=tuple(name for name, _ in formats),
        image_not_found=job.store.is_image_gone(standing.case),
    )
    return Entry(
        event=DELIVER if standing.state == "SIGNED" else DELIVER_RESEARCH,
        case=standing.case,
        user=job.person.user,
        identity=job.person.identity,
        version=standing.version,
        version_sha256=sha256,
        model_digest=_model_digest(job.store, standing),
        reason=parcel.text(),
    )


def _model_digest(store: ReviewStore, standing: CaseStanding) -> str:
    """Of the model whose draft a version came from; the folder may have new drafts since."""
    for version in store.versions(standing.case):
        if version.number == standing.version:
            return version.model_digest
    return store.model_digest()


def _say_failed(job: _Job, standing: CaseStanding, logged: Event, error: BaseException) -> None:
    job.store.log.append(
        Entry(
            event=DELIVER_FAILED,
            case=standing.case,
            user=job.person.user,
            identity=job.person.identity,
            reason=f"{logged.n}: {type(error).__name__}",
        )
    )


def _listed(
    job: _Job, standing: CaseStanding, mask: FinishedMask, logged: Event, format: str, file: str
) -> DeliveredFile:
    signature = mask.statement.signature
    return DeliveredFile(
        case=standing.case,
        state=standing.state,
        file=file,
        format=format,
        file_sha256=file_sha256(job.output / file),
        version=standing.version,
        version_sha256=logged.version_sha256 or "",
        signed_name=None if signature is None else signature.name,
        signed_by=None if signature is None else signature.user,
        identity=None if signature is None else signature.identity,
        meaning=None if signature is None else signature.meaning,
        signed_utc=None if signature is None else signature.utc,
        model_digest=mask.maker.digest,
        image_not_found=Parcel.model_validate_json(logged.reason).image_not_found,
        drawn_by={name: mask.statement.algorithm_type(name) for name in mask.structures},
        delivered_by=job.person.user,
        delivered_utc=logged.utc,
        log_events=logged.n,
        log_sha256=logged.sha256,
    )


def _identities_of_signers(store: ReviewStore) -> dict[str, str]:
    """How the person who signed each case last is known."""
    signs = (event for event in LogReader(store.log.path).more() if event["event"] == "sign")
    return {event["case"]: event["identity"] for event in signs}
