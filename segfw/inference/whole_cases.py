"""Whole cases: predicted while a network trains, and at its end scored on their own grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from segfw.base.parallel import FAILURES_FILE, CasesFailed
from segfw.base.ranks import Ranks
from segfw.base.records import UserError
from segfw.base.resources import free_memory_bytes
from segfw.base.words import count
from segfw.dataset.cases import Case
from segfw.dataset.labels import LABELS_FILE
from segfw.evaluation.evaluate_pairs import evaluate_pairs
from segfw.evaluation.metrics import Scores
from segfw.evaluation.pairs import LabelledPairs
from segfw.evaluation.result_files import ResultFiles
from segfw.grid.slabs import NoNumbers
from segfw.grid.store import open_case
from segfw.images.geometry import Shape
from segfw.inference.host_memory import LearnedLimits
from segfw.inference.many_cases import predict_cases
from segfw.inference.output_folder import OutputFolder
from segfw.inference.predictor import Predictor
from segfw.inference.sliding_window import sliding_window
from segfw.model.load import Model
from segfw.networks import BuildNetwork
from segfw.networks.losses import Target, overlap_counts
from segfw.planning.plan import Configuration

MEMORY_SHARE = 0.3  # of the free memory that the sums of a case's tiles may take while training
COUNTED_BYTES = 64 * 2**20  # of logits that are compared with the truth at a time
VALIDATION = "validation"  # folder of the masks in a fold's
REPORT_FILE = "report.html"
RESULTS = (REPORT_FILE, VALIDATION)  # all that validation writes into a fold's folder


def whole_case_counter(
    preprocessed: Path,
    handed_on: Path | None,
    configuration: Configuration,
    target: Target,
    device: torch.device,
    precision: torch.dtype,
    *,
    annotated: Mapping[str, tuple[bool, ...]] | None = None,
) -> Callable[[nn.Module, str, Shape], Tensor]:
    """Predicts a stored case, by its id, as a whole and without mirroring; counts its voxels on the network's grid.

    ``annotated`` has the outputs of cases in which not all are annotated; what is not has no voxels there. What it
    returns gives true positives, false positives and false negatives (3, K) of a network on a case, predicted
    in tiles of the size that is given.
    """

    limits = LearnedLimits()

    @torch.no_grad()
    def count(network: nn.Module, case_id: str, patch_size: Shape) -> Tensor:
        case = open_case(preprocessed, case_id, in_memory=True, previous=handed_on)
        classes_zyx = torch.from_numpy(case.classes)
        slabs = sliding_window(
            torch.from_numpy(case.image),
            [network],
            patch_size,
            device=device,
            precision=precision,
            previous_zyx=None if handed_on is None else torch.from_numpy(case.previous),
            previous_classes=configuration.previous_classes,
            room_bytes=MEMORY_SHARE * free_memory_bytes(),
            limits=limits,
        )
        known = None if annotated is None or case_id not in annotated else torch.tensor([annotated[case_id]])
        counts: list[Tensor] = []
        try:
            for slab in slabs:
                slice_bytes = slab.outputs * prod(classes_zyx.shape[1:]) * torch.float32.itemsize
                at_once = max(1, COUNTED_BYTES // slice_bytes)
                for start in range(slab.start, slab.stop, at_once):
                    part = slice(start, min(start + at_once, slab.stop))
                    logits = slab.logits((part, slice(None), slice(None)))
                    truth = classes_zyx[None, part].to(logits.device, torch.long)
                    counts.append(overlap_counts(logits[None], truth, target, known).to(device))
        except NoNumbers:
            raise
        except UserError as error:  # one tile, or the sums, in the memory that training leaves
            raise torch.OutOfMemoryError(f"{case_id}: {error}") from None
        return torch.stack(counts).sum(0)

    return count


def validate(
    model: Model,
    cases: Sequence[Case],
    folder: Path,
    *,
    device: str,
    precision: str,
    build: BuildNetwork,
    ranks: Ranks,
    curve: Sequence[Mapping[str, float]],
) -> Scores:
    """Predicts and scores whole validation cases, shared over ranks; masks that are there already are kept.

    ``curve`` has the figures of each epoch of the training, which the report draws.
    """
    output = folder / VALIDATION
    report = folder / REPORT_FILE
    if (output / "scores.json").is_file() and report.is_file():  # the last thing that is written
        kept = Scores.load(output / "scores.json")
        if set(kept.cases) == {case.id for case in cases}:  # not so if some cases failed the last time
            return kept
    predictor = Predictor.of(model, device=device, precision=precision, build=build)
    if ranks.is_first:
        model.plan.labels.save(output / LABELS_FILE)
    inputs = [Case(id=case.id, images=case.images) for case in ranks.share(cases)]
    print(f"validating on {count(len(cases), 'whole case')}")
    cohort = predict_cases([predictor], inputs, OutputFolder(path=output))
    if cohort.failures:
        ranks.sum(torch.ones(1))  # the others finish their cases first
        raise CasesFailed("in validation", cohort.failures, folder, not_begun=cohort.not_begun)
    if float(ranks.sum(torch.zeros(1))) > 0:
        raise UserError(f"{folder}: cases failed in validation on another process; its message names them")
    (folder / FAILURES_FILE).unlink(missing_ok=True)
    if ranks.is_first:
        report.unlink(missing_ok=True)  # that of other scores, if any
        masks = {case.id: (case.label, output / f"{case.id}.nii.gz") for case in cases if case.label is not None}
        evaluate_pairs(
            LabelledPairs(
                files=masks,
                labels=model.plan.labels,
                label_maps={case.id: case.label_map for case in cases},
                annotated={case.id: case.annotated for case in cases if case.annotated is not None},
            ),
            ResultFiles(
                title=f"{model.plan.dataset}: {folder.parent.name} {folder.name}",
                output=output / "scores.json",
                report=report,
                images={case.id: case.images[0] for case in cases},
                curve=curve,
            ),
        )
    ranks.wait()
    return Scores.load(output / "scores.json")
