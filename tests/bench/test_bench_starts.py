"""The table of compared starts, of made-up trainings whose gain is known."""

from bench.result_lines import append_line, read_lines
from bench.starts import StartsLine, as_markdown
from segfw.pretraining.start_results import PRETRAINED, SCRATCH, StartResult

CASES = [f"patient{number}_{frame}" for number in range(6) for frame in "ab"]


def line(arm, seed, dice):
    dices = {case: {"heart": dice} for case in CASES}
    result = StartResult(labelled="4", seed=seed, arm=arm, cases=("x",), steps=5, seconds=2.0, quarter=dices, end=dices)
    return StartsLine(
        data_set="cardiac_cine",
        minutes=0.5,
        test_patients=None,
        patient_of={case: case.split("_")[0] for case in CASES},
        configuration="2d",
        processor="any",
        commit="",
        result=result,
    )


def test_the_table_says_what_is_shown(tmp_path):
    for seed in range(3):
        append_line(tmp_path / "starts.jsonl", line(PRETRAINED, seed, 0.5 + 0.01 * seed))
        append_line(tmp_path / "starts.jsonl", line(SCRATCH, seed, 0.4))
    lines = read_lines(StartsLine, tmp_path / "starts.jsonl")
    assert len({each.key for each in lines}) == 6
    rows = as_markdown(lines).splitlines()
    assert len(rows) == 4  # head, rule, a quarter and the end
    assert (
        "| cardiac_cine, 4 labelled | 0.5 | 3 | 6 | end | pretrained / scratch | 0.510 / 0.400 | +0.110 |" in rows[-1]
    )
    assert rows[-1].rstrip(" |").endswith("gain")
