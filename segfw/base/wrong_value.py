"""What is wrong with a value of a record, in words for users: pydantic's are for programmers."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

# By the type of pydantic's error; what stands in {} comes from its context.
WHOLE: Mapping[str, str] = {
    "missing": "is missing",
    "extra_forbidden": "is not known to this version of segfw",
    "json_invalid": "is not readable JSON ({error})",
}
OF_VALUE: Mapping[str, str] = {
    "int_type": "no whole number",
    "int_from_float": "no whole number",
    "int_parsing": "no whole number",
    "float_type": "no number",
    "float_parsing": "no number",
    "finite_number": "no finite number",
    "bool_type": "neither true nor false",
    "string_type": "no text",
    "string_pattern_mismatch": "no name that can be part of a path",
    "literal_error": "not {expected}",
    "tuple_type": "no list",
    "list_type": "no list",
    "dict_type": "no object",
    "model_type": "no object",
    "none_required": "not null",
    "greater_than_equal": "less than {ge}",
    "greater_than": "not more than {gt}",
    "less_than_equal": "more than {le}",
    "less_than": "not less than {lt}",
    "too_long": "too long",
    "too_short": "too short",
}
OWN = "value_error"  # raised by a rule of ours, in our words
OWN_MARK = "Value error, "


def wrong_value(name: str, error: Mapping[str, Any]) -> str:
    """What one of pydantic's errors says of the value called ``name``: 'spacing is [1], which is no number'."""
    kind = error["type"]
    context = error.get("ctx", {})
    if kind == OWN:
        own = str(error["msg"]).removeprefix(OWN_MARK)
        return f"{name}: {own}" if name else own
    if kind in WHOLE:
        return f"{name} {WHOLE[kind].format(**context)}"
    what = OF_VALUE.get(kind, "of another kind than it must be").format(**context)
    return f"{name} is {reprlib.repr(error['input'])}, which is {what}"
