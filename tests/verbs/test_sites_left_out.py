"""A run whose folds leave out sites: there are as many as sites, and everything after takes them."""

from pathlib import Path

from builders.data import write_raw
from segfw.cli import main
from segfw.planning.splits import Splits
from segfw.verbs.run import run

SHORT = {"configurations": ("3d_fullres",), "epochs": 1, "steps_per_epoch": 1, "device": "cpu"}


def test_folds_of_three_sites_are_trained_selected_and_averaged(tmp_path: Path, capsys):
    raw = write_raw(tmp_path / "raw", 9)
    work = tmp_path / "work"
    lines = [f"case_{number:02},S{number % 3}" for number in range(9)]
    (tmp_path / "sites.csv").write_text("\n".join(["case,site", *lines]))
    scores = run(raw, work, leave_out_by=f"{tmp_path / 'sites.csv'}:site", **SHORT)["3d_fullres"]
    folds = Splits.load(work / "splits.json").folds
    assert list(scores) == ["0", "1", "2"]
    for number, fold in enumerate(folds):
        assert (
            set(scores[str(number)].cases)
            == set(fold.validation)
            == {f"case_{case:02}" for case in range(9) if case % 3 == number}
        )
    assert main(["status", str(work)]) == 0
    shown = capsys.readouterr().out
    assert all(f"fold {number}" in shown for number in range(3))
    assert "fold 3" not in shown
    assert main(["select", str(work)]) == 0
    assert main(["predict", str(work), str(raw / "imagesTr"), str(tmp_path / "masks"), "--device", "cpu"]) == 0
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 9
    capsys.readouterr()
    # Other sites are other folds, which something is trained by already.
    (tmp_path / "sites.csv").write_text(
        "\n".join(["case,site", *(line.replace("case_08,S2", "case_08,S1") for line in lines)])
    )
    again = ["plan-and-preprocess", str(raw), str(work), "--leave-out-by", f"{tmp_path / 'sites.csv'}:site"]
    assert main([*again, "--device", "cpu"]) == 2
    assert "splits.json: would change, but runs/3d_fullres/fold_0" in capsys.readouterr().err
