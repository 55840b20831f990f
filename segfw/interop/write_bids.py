"""BIDS derivatives: ``bids/sub-X/anat/sub-X_desc-draft_dseg.nii.gz`` with its table of labels and its description."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from segfw.base.file_names import BIDS_FOLDER
from segfw.base.files import write_text
from segfw.base.own_version import own_version
from segfw.base.records import UserError
from segfw.dataset.bids import as_entities
from segfw.dataset.finished_mask import DRAFT, MASK_SHARE, FinishedMask, MaskMaker
from segfw.dataset.labels import LabelSet
from segfw.dataset.look_up import known_as
from segfw.images.formats import write_labels
from segfw.interop.statement_json import is_manual, stated
from segfw.interop.viewer_tables import colours_of

VERSION = "1.10.0"  # of BIDS


@dataclass(frozen=True, kw_only=True)
class BidsFormat:
    """A tree of its own; names of cases that are no names of BIDS become subjects, by their letters and digits."""

    folder: str = BIDS_FOLDER
    stage: str = "draft"  # the value of desc- in the names
    about: str = DRAFT  # what all masks of the tree are

    @property
    def bytes_per_image_byte(self) -> float:
        return MASK_SHARE

    def files(self, case_id: str) -> tuple[str, ...]:
        start = self._start(case_id)
        return (f"{start}.tsv", f"{start}.json", f"{start}.nii.gz")

    def _start(self, case_id: str) -> str:
        subject, entities = as_entities(case_id)
        session = next((part for part in entities if part.startswith("ses-")), "")
        place = "/".join(filter(None, (self.folder, subject, session, "anat")))
        return f"{place}/{'_'.join([subject, *entities])}_desc-{self.stage}_dseg"

    def require(self, case_id: str, image: Path | None) -> None:
        self.require_kind(case_id, image)

    def require_kind(self, case_id: str, image: Path | None) -> None:
        if not re.search("[a-zA-Z0-9]", case_id):
            raise UserError(f"{case_id}: has no letter or digit of which BIDS could name a subject; rename the image")

    def write(self, folder: Path, mask: FinishedMask) -> None:
        """The mask, which is read back, its table and its description, each whole; none if the mask is not as given."""
        table, description, image = (folder / name for name in self.files(mask.case_id))
        write_text(table, label_table(mask.labels))
        about = {
            "Description": f"{mask.statement.title}; {mask.maker.text}",
            "Manual": is_manual(mask),
            "Sources": _sources(mask.image),
            "SpatialReference": "orig",
        }
        write_text(description, json.dumps(about | stated(mask), indent=1, ensure_ascii=False) + "\n")
        try:
            write_labels(image, mask.values_zyx, mask.geometry, mask.image, said=mask.said, is_checked=True)
        except UserError:
            for beside in (table, description):
                beside.unlink(missing_ok=True)
            raise

    def write_about(self, folder: Path, labels: LabelSet, maker: MaskMaker) -> None:
        made_by = {"Name": "segfw", "Version": own_version(), "Description": f"{maker.name}, model {maker.digest}"}
        about = {
            "Name": f"Segmentations, {self.about}",
            "BIDSVersion": VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [made_by],
        }
        write_text(folder / self.folder / "dataset_description.json", json.dumps(about, indent=1) + "\n")


def _sources(image: Path | None) -> list[str]:
    """The image's name, if it is one of BIDS: others may be of a patient, and lead nowhere."""
    return [image.name] if image is not None and image.name.startswith("sub-") else []


def label_table(labels: LabelSet) -> str:
    """``index``, ``name``, ``color`` of each value, and its code where one is known."""
    known = known_as(labels)
    lines = ["index\tname\tcolor\tcode"]
    for value, (name, colour) in colours_of(labels).items():
        each = known.get(name)
        code = f"{each.scheme}:{each.code}" if each is not None and each.code else "n/a"
        shown = " ".join(name.split())
        lines.append(f"{value}\t{shown}\t#{''.join(f'{part:02x}' for part in colour)}\t{code}")
    return "\n".join(lines) + "\n"
