"""Checks a card's metadata as the Hub does, which refuses others' pushes.

The rules are those of https://hf.co/docs/hub/model-cards and of the answers
that the Hub is known to give: only `license`, `datasets`, `model-index` and
what has the form of an id are looked at.
"""

import re

import yaml

# https://hf.co/docs/hub/repositories-licenses
LICENSES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m
    bigscience-bloom-rail-1.0 bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0
    bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0
    cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0
    cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
    cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0
    cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0
    etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl
    lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0
    postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
    llama2 gemma unknown other
    """.split()
)
ID = re.compile(r"(?:[\w-]+/)?[\w.-]+", re.ASCII)


def problems(content: str) -> tuple[list[str], list[str]]:
    """Returns the errors and the warnings about a card.

    Args:
        content: str, of `README.md`.
    """
    match = re.match(r"\s*---\r?\n(.*?)^---\s*$", content, re.S | re.M)
    try:
        fields = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError as error:
        return [f"YAML Exception: {error}"], []
    if not fields:
        return [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(fields, dict):
        return ['"metadata" must be of type object'], []
    return [*_errors(fields)], []


def _errors(fields):
    for license in _listed(fields.get("license", [])):
        if license not in LICENSES:
            yield f'"license" must be one of {sorted(LICENSES)}'
    for i, name in enumerate(_listed(fields.get("datasets", []))):
        if not _is_id(name):
            yield (
                f'"datasets[{i}]" with value "{name}" is not valid. If '
                "possible, use a dataset id from https://hf.co/datasets."
            )
    for i, name in enumerate(_listed(fields.get("base_model", []))):
        if not _is_id(name):
            yield (
                f'"base_model[{i}]" with value "{name}" is not valid. Use a '
                "model id from https://hf.co/models."
            )
    for key in ("library_name", "pipeline_tag", "license_name"):
        yield from _strings(fields, "", **{key: False})
    for key in ("tags", "metrics"):
        for i, item in enumerate(_listed(fields.get(key, []))):
            if not isinstance(item, str):
                yield f'"{key}[{i}]" must be a string'
    yield from _each(fields, "", "model-index", _model, False)


def _model(model, place):
    yield from _strings(model, place, name=True)
    yield from _each(model, place, "results", _result)


def _result(result, place):
    task, data = result.get("task"), result.get("dataset")
    if not isinstance(task, dict):
        yield f'"{place}task" is required'
    else:
        yield from _strings(task, f"{place}task.", type=True, name=False)
    if not isinstance(data, dict):
        yield f'"{place}dataset" is required'
    else:
        inner = f"{place}dataset."
        yield from _strings(
            data, inner, type=True, name=True, config=False, split=False
        )
        kind = data.get("type")
        if isinstance(kind, str) and kind and not _is_id(kind):
            yield (
                f'"{inner}type" with value "{kind}" fails to match the '
                r"required pattern: /^(?:[\w-]+\/)?[\w-.]+$/"
            )
    yield from _each(result, place, "metrics", _metric)


def _metric(metric, place):
    yield from _strings(metric, place, type=True, name=False)
    if "value" not in metric:
        yield f'"{place}value" is required'


def _each(fields, place, key, check, is_required=True):
    """Yields what `check` finds in each object of a list."""
    items = fields.get(key)
    if items is None and not is_required:
        return
    if not isinstance(items, list):
        yield f'"{place}{key}" must be an array'
        return
    for i, item in enumerate(items):
        inner = f"{place}{key}[{i}]"
        if isinstance(item, dict):
            yield from check(item, f"{inner}.")
        else:
            yield f'"{inner}" must be of type object'


def _strings(fields, place, **keys):
    for key, is_required in keys.items():
        value = fields.get(key)
        if value is None:
            if is_required:
                yield f'"{place}{key}" is required'
        elif not isinstance(value, str):
            yield f'"{place}{key}" must be a string'
        elif not value.strip():
            yield f'"{place}{key}" is not allowed to be empty'


def _listed(value):
    return value if isinstance(value, list) else [value]


def _is_id(value):
    return isinstance(value, str) and ID.fullmatch(value) is not None
