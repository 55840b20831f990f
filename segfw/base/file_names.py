"""Names of files by which several rooms know a folder, apart from the code that writes them.

So whoever only looks at a folder need not load what computes.
"""

from __future__ import annotations

PLAN_FILE = "plan.json"
SPLITS_FILE = "splits.json"
PLAN_LOCK_FILE = ".plan.lock"
CHECKPOINT_FILE = "last.safetensors"
RUN_SETTINGS_FILE = "settings.json"
MASK_SETTINGS_FILE = "prediction.json"
ENSEMBLE_SETTINGS_FILE = "ensemble.json"
PIPELINE_FILE = "pipeline.json"
# In a folder of masks: formats that lie in folders of their own, and how the files of cases end there.
FORMAT_FOLDERS = {"seg-nrrd": ".seg.nrrd", "dicom-seg": ".dcm", "rtstruct": ".dcm"}
REPORT_FOLDER = "sr"
BIDS_FOLDER = "bids"
HIDDEN = ".segfw"  # in a folder of masks: what is known of each case
# In a folder of masks of a calibrated model
QUALITY_FOLDER = "quality"
QUALITY_TABLE_FILE = "quality.csv"
REGIONS_ENDING = "_regions.json"  # after a case, in that folder
CASE_PAGES_FOLDER = "report"
PLAUSIBLE_FOLDER = "plausible"  # inner, outer and single folds' masks
UNCERTAINTY_FOLDER = "uncertainty"  # maps of entropy and disagreement
# In a folder of masks that people review
REVIEW_FOLDER = "review"
