"""What was said of trainings beside what they reached, as a table: as said then, by the rule of now, and by rules of
limits that were fitted to the other data sets."""

from __future__ import annotations

from collections.abc import Sequence

from bench.accuracy.left_out import LeftOut, LeftOutRules
from bench.accuracy.statements import USEFUL, Statement, Told, by_the_rule_of_now, statement_of
from bench.figures import markdown
from segfw.base.records import UserError
from segfw.base.words import count


def table(trainings: Sequence[Told]) -> str:
    """A line for each data set, length, arm and statement, and how many were right: then, now, and left out."""
    statements = _statements(trainings)
    if not statements:
        raise UserError("none of these results says what was expected of it")
    groups: dict[tuple[str, ...], list[Statement]] = {}
    for each in statements:
        told = each.told
        groups.setdefault((told.data_set, told.minutes, told.arm, each.words), []).append(each)
    rules = LeftOutRules([each.told for each in statements])
    head = ["data", "core-minutes", "arm", "steps", "said before the first step", "runs"]
    head += ["Dice of what it was enough for", "of the others"]
    rows = [[*head, "right as said then", "by the rule of now", "by limits of the other data sets"]]
    for (data_set, minutes, arm, words), found in groups.items():
        steps = [each.told.steps for each in found]
        named = [each.named_dice for each in found if each.named_dice is not None]
        others = [each.other_dice for each in found if each.other_dice is not None]
        reach = f"{min(steps)}" if min(steps) == max(steps) else f"{min(steps)} to {max(steps)}"
        cells = [data_set, minutes, arm, reach, words, str(len(found)), _range(named), _range(others), _right(found)]
        left_out = rules.of([each.told for each in found])
        rows.append([*cells, _right(_now(found)), "-" if left_out is None else left_out.text])
    lines = [markdown(rows), _summary("As said then: right in", statements)]
    now = _now(statements)
    if now:
        lines.append(_summary("By the rule of now, with the steps foretold then: right in", now))
    each_set = rules.each_set()
    if each_set:
        lines.append(_summary_left_out(each_set))
    return "\n\n".join(lines)


def _statements(trainings: Sequence[Told]) -> list[Statement]:
    return [found for found in map(statement_of, trainings) if found is not None]


def _now(statements: Sequence[Statement]) -> list[Statement]:
    """What is said by now of those of which all is known."""
    told = [by_the_rule_of_now(each.told) for each in statements]
    return _statements([each for each in told if each is not None])


def _right(statements: Sequence[Statement]) -> str:
    if not statements:
        return "-"
    return f"{sum(each.is_right for each in statements)} of {len(statements)}"


def _summary(begins: str, statements: Sequence[Statement]) -> str:
    right = sum(each.is_right for each in statements)
    wrong_for_all = sum(each.is_for_all and not each.is_right for each in statements)
    return (
        f"{begins} {right} of {count(len(statements), 'run')} ({right / len(statements):.0%}); said to be enough for "
        f"all structures, with a mean Dice under {USEFUL}: {wrong_for_all}."
    )


def _summary_left_out(each_set: Sequence[LeftOut]) -> str:
    runs = sum(found.runs for found in each_set)
    least = sum(found.least for found in each_set)
    most = sum(found.most for found in each_set)
    return (
        f"By limits fitted to the other {count(len(each_set) - 1, 'data set')}: right in {least} to {most} of "
        f"{count(runs, 'run')} ({least / runs:.0%} to {most / runs:.0%}), by all limits that fit those equally well; "
        f"said to be enough for all structures, with a mean Dice under {USEFUL}: at most "
        f"{sum(found.wrong_for_all for found in each_set)}."
    )


def _range(values: Sequence[float]) -> str:
    if not values:
        return "-"
    low = f"{min(values):.3f}"
    return low if len(values) == 1 else f"{low} to {max(values):.3f}"
