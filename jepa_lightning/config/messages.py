"""Short errors: from the parser's long ones, what a person needs, with the nearest name for a mistyped one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from itertools import takewhile
from pydoc import locate
from typing import Any

from lightning.pytorch import Callback, LightningDataModule
from torch.optim import Optimizer

from jepa_lightning.config.kinds import subclasses
from jepa_lightning.config.plugins import load_plugins
from jepa_lightning.config.suggestions import suggest
from jepa_lightning.config.words import config_settings
from jepa_lightning.data.shared import FileSettings, OtherDataSettings
from jepa_lightning.encoders import Encoder
from jepa_lightning.maskers import Masker
from jepa_lightning.modality import Modality
from jepa_lightning.names.nearest import nearest_names
from jepa_lightning.objectives import PredictionLoss
from jepa_lightning.predictors import Predictor
from jepa_lightning.pretexts import Pretext
from jepa_lightning.regularizers import Regularizer
from jepa_lightning.schedules import Schedule
from jepa_lightning.targets.base import Target

SWAPPABLE = (
    *(Modality, Pretext, Target, Encoder, Masker, Predictor, PredictionLoss, Regularizer, Schedule),
    *(LightningDataModule, Optimizer, Callback),
)
MOVED = {  # options of 0.1, and where they are now
    "model.momentum": "model.target.momentum (target: {class_path: EMA, init_args: {momentum: ...}})",
    "model.target_sees": "model.pretext.target_sees (pretext: {class_path: Masked, init_args: {target_sees: ...}})",
}
LINES = 6  # of a message for which there is no better form
_TRIED = ("Does not validate", "Expected a", "Not a valid subclass", "a class path", "a dict with", "a dict without")
_NAME_FIRST = "name a class first, as --{} CLASS or class_path in the YAML, then its options"


def shorten(message: str, parser: Any = None) -> str:
    """The useful lines of an error message; `parser` knows the options that exist, and, as `typed`, all words."""
    message = re.sub(r"Group '(\S+)' does not accept option '", r"Option '\1.", message.strip())
    if "Original Traceback" in message:  # from a data loader's worker: behind it stands what happened
        said = list(re.finditer(r"^(?:\w+\.)*\w+(?=: )", message, re.MULTILINE))
        return message[said[-1].start() :] if said else message.splitlines()[-1]
    metric = no_metric(message)
    if metric is not None:
        return metric
    for old, new in MOVED.items():
        if re.search(rf"(?<![\w.]){re.escape(old)}\b", message):
            return f"{old} is now {new}"
    key = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    forms: tuple[Callable[[str, str], str | None], ...] = (
        *(_no_option, _no_import, _no_class, _no_class_given, _refused, _wrong_value),
    )
    for form in forms:
        short = form(message, key)
        if short:
            return short
    unknown = re.match(r"unrecognized arguments: (--[^\s=]+)", message, re.IGNORECASE)
    if unknown:
        return f"no option {unknown[1]}{_meant(unknown[1], parser)}"
    loose = re.match(r"unrecognized arguments: (\S+)", message, re.IGNORECASE)
    if loose:
        return f"expected an option before {loose[1]!r}, such as --data.root {loose[1]}"
    setting = re.search(r"Option '([^']+)'", message)
    if setting:
        place = config_settings(getattr(parser, "typed", ())).get(setting[1])
        return f"no setting {setting[1]}{f' (in {place})' if place else ''}{_meant(setting[1], parser)}"
    ambiguous = re.match(r"ambiguous option: ([^\s=]+)\S* could match (.*)", message)
    if ambiguous:
        matches = [name for name in ambiguous[2].split(", ") if not name.endswith(".help")]
        meant = _meant(ambiguous[1], parser) or f"; did you mean {' or '.join(matches[:4])}?"
        return f"no option {ambiguous[1]}{meant}"
    required = re.match(r"the following arguments are required: (.*)", message)
    if required:
        options = [f"--{name}" for name in required[1].split(", ")]
        hint = "; a shipped config gives them: jepa-fit image.yaml" if _of_fit(parser) else ""
        return f"{' and '.join(options)} must be given{hint}"
    lines = [line for line in message.splitlines() if line.strip()]
    return "\n".join([*lines[:LINES], *(["..."] if len(lines) > LINES else [])])


def _no_option(message: str, key: str) -> str | None:
    found = re.search(r"Option '([^']+)' is not accepted|unrecognized arguments: --([^\s=]+)", message)
    path = _whose(message[: found.start()], message[found.end() :]) if found else None
    if not found or path is None:
        return None
    named: object = locate(path)
    if named in SWAPPABLE:  # the base class, which stands for a class that was not named
        return f"{key}: {_NAME_FIRST.format(key)}"
    # A class may hand some options on to its base by keyword, so the bases' count too.
    options = [o for c in inspect.getmro(named) if "__init__" in vars(c) and c is not object
               for o in inspect.signature(c).parameters] if isinstance(named, type) else []  # fmt: skip
    option = found[1] or found[2]
    first = option.partition(".")[0]
    option = option if first in options else first
    return f"{key}: {path.rpartition('.')[2]} has no option '{option}'{_nearest(option, options)}"


def _whose(before: str, behind: str) -> str | None:
    """The class that an option is said not to be of: the one just named, else the outermost of the value."""
    named = re.search(r"class_path '([^']+)':\s*$", before)
    if named:
        return named[1]
    value = behind[max(behind.find("Namespace("), 0) :]
    for found in re.finditer(r"class_path='([^']+)'", value):
        if value.count("(", 0, found.start()) - value.count(")", 0, found.start()) == 1:
            return found[1]
    return None


def _no_import(message: str, key: str) -> str | None:
    found = re.search(r"class_path '([^']+)':\s*\n\s*(No module named .*|.* has no attribute .*)", message)
    return f"{key}: cannot import {found[1]}: {found[2]}" if found else None


def _no_class(message: str, key: str) -> str | None:
    found = re.search(r"Expected a dot import path string: (\S+)", message)
    if not found:
        return None
    name = found[1].strip("'\"")
    if "." in name:
        return f"{key}: cannot import {name}: check the path, and that its package is installed"
    load_plugins()  # which of them was meant is not known
    return f"{key}: no class {name!r}{_nearest(name, known_classes())}"


def _no_class_given(message: str, key: str) -> str | None:
    nested = re.search(r"NestedArg\(key='([^']+)'", message)
    if not nested or "is abstract" not in message:
        return None
    return f"{key}.{nested[1]}: {_NAME_FIRST.format(key)}"


def _wrong_value(message: str, key: str) -> str | None:
    # Of an option of a class, the innermost line says what was wrong; what is around it is about the class.
    single = re.search(r"Expected an? (.+?)\. Got value: (.*?)(?:\. Got value: .*)?$", message, re.MULTILINE)
    given = single[2] if single else next(iter(re.findall(r"Given value: (.*)", message)), None)
    if not key or given is None:
        return None
    wanted = [single[1]] if single else re.findall(r"- Expected an? (.+)", message)
    wanted = [re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", want) for want in dict.fromkeys(wanted)]
    wanted = [re.sub(r"typing\.Literal\[(.*)\]", r"\1", "null" if want == "NoneType" else want) for want in wanted]
    option = re.match(r"NestedArg\(key='([^']+)'", given)
    got = f"an option {option[1]!r} of it" if option else given
    return f"{key}: expected {' or '.join(wanted)}, got {got}" if wanted else None


def _refused(message: str, key: str) -> str | None:
    """What a class said when it refused its settings, or why it could not be made; without what else was tried."""
    lines = message.splitlines()
    reasons: list[str] = []
    for number, line in enumerate(lines):
        item = re.match(r"( *)- (.*)", line)
        if item is None or item[2].startswith(_TRIED):
            continue
        inside = "Problem with given class_path" in item[2]
        more = list(takewhile(lambda line: _depth(line) > len(item[1]), lines[number + 1 :]))  # noqa: B023
        if inside and (not more or re.match(r" *(Parser key|Option '|Does not validate)", more[0])):
            continue
        said = [text.strip() for text in more] if inside else [item[2], *(text.strip() for text in more)]
        named = re.findall(r"class_path[ =]'([^']+)'", line if inside else "\n".join(lines[number:]))
        who = f"{named[0].rpartition('.')[2]}: " if named else ""
        reasons.append(who + "\n".join(said))
    if not reasons:
        return None
    return (f"{key}: " if key else "") + "\n".join(dict.fromkeys(reasons))


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def no_metric(message: str) -> str | None:
    """A callback that waits for a metric that is not logged, in a line; None of any other message."""
    found = re.search(
        r"(Early stopping|\w+) conditioned on metric [`']?([^`'\s]+)[`']? which is not av(.*)", message
    ) or re.search(r"(ModelCheckpoint)\(monitor='(.+?)'\)` could not find the monitored key .*?: (.*?\])", message)
    if not found:
        return None
    who = "EarlyStopping" if found[1].startswith("Early") else found[1]
    there = [name for name in re.findall(r"[`']([^`']+)[`']", found[3]) if name not in ("EarlyStopping", "monitor")]
    near = _nearest(found[2], there) or "."
    known = f" Among those that are: {', '.join(there)}." if there else ""
    return f"{who}: no metric {found[2]!r} is logged{near}{known}"


def _nearest(name: str, known: Iterable[str]) -> str:
    near = nearest_names(name, sorted(set(known)), cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _meant(option: str, parser: Any) -> str:
    """The options that a mistyped or foreign one may have meant; where there are none, how to see all."""
    known = _option_names(parser)
    fits = _of_fit(parser)  # of jepa-fit, whose other options are those of classes that a config names
    if fits:
        typed = getattr(parser, "typed", ())
        known += [*config_settings(typed), *(f"data.{name}" for name in FileSettings.__annotations__)]
        known += [f"data.{name}" for name in OtherDataSettings.__annotations__]
        known = [name for name in known if name.lstrip("-") != option.lstrip("-")]
    near = suggest(option, known, foreign=fits)
    if near:
        return f"; did you mean {' or '.join(f'--{name}' for name in near)}?"
    return "; jepa-fit CONFIG --print_config shows all settings" if fits else ""


def known_classes() -> set[str]:
    """The short names of all classes that were imported and may be named in a configuration."""
    return {cls.__name__ for base in SWAPPABLE for cls in subclasses(base)}


def _of_fit(parser: Any) -> bool:
    """Whether it reads a run's configuration, as `jepa-fit`'s does, and not the options of a function."""
    return "--config" in _option_names(parser) and not getattr(parser, "of_function", False)


def _option_names(parser: Any) -> list[str]:
    return re.findall(r"--[\w.-]+", "" if parser is None else parser.format_help())
