"""Where a module can be mutated and how, by cosmic-ray's operators; what is left out, and why."""

from __future__ import annotations

import ast
import difflib
import functools
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from known import Known
from lines import Place, function_at, functions, left_out

# `==` and `is` differ on values that Python may or may not share, and what `is` compares mostly has no order.
_OPERATORS = [
    name
    for name in operator_names()
    if not get_operator(name).arguments()
    and not name.endswith(("_Eq_Is", "_Eq_IsNot", "_NotEq_Is", "_NotEq_IsNot"))
    and ("ComparisonOperator_Is" not in name or name.endswith(("_Is_IsNot", "_IsNot_Is")))
]


#: Parents of a `*` or `/` that tells kinds of parameters apart, which cosmic-ray takes for a product.
_PARAMETERS = ("parameters", "typedargslist", "param")


@dataclass(frozen=True)
class Mutant:
    file: str
    line: int
    operator: str
    occurrence: int
    code: str
    """The whole module, mutated."""
    known: Known

    @property
    def name(self) -> str:
        """What `make mutants MUTANT=` takes."""
        return f"{self.file}:{self.operator.partition('/')[2]}:{self.occurrence}"


def mutant(file: str, source: str, operator: str, occurrence: int, line: int) -> Mutant | None:
    """None if nothing changes or Python cannot compile it."""
    code = mutate_code(source, get_operator(operator)(), occurrence)
    if code is None or code == source:
        return None
    try:
        compile(code, file, "exec")
    except SyntaxError:
        return None
    known = Known(file, function_at(functions(source), line), *_changed(source, code))
    return Mutant(file, line, operator, occurrence, code, known)


def _changed(source: str, code: str) -> tuple[str, str]:
    """The lines that differ, before and after."""
    old, new = source.splitlines(), code.splitlines()
    changes = [
        one for one in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if one[0] != "equal"
    ]
    first, last = changes[0], changes[-1]
    before, after = (
        "\n".join(" ".join(line.split()) for line in lines if line.strip())
        for lines in (old[first[1] : last[2]], new[first[3] : last[4]])
    )
    return before, after


def places(source: str) -> dict[Place, list[tuple[str, int]]]:
    """Operators and occurrences at each place that counts."""
    nodes = list(ast_nodes(get_ast(source)))
    spans = list(left_out(ast.parse(source)))
    kinds = {node.start_pos for node in nodes if node.type == "operator" and node.parent.type in _PARAMETERS}
    counts = functools.cache(lambda at: at not in kinds and not any(first <= at < last for first, last in spans))
    found: dict[Place, list[tuple[str, int]]] = defaultdict(list)
    for name in _OPERATORS:
        operator = get_operator(name)()
        positions = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, place in enumerate(positions):
            if counts(place):
                found[place].append((name, occurrence))
    return found


def sample(root: Path, folders: list[str], count: int, seed: str) -> list[Mutant]:
    """At most `count` mutants, at different places, of each folder in proportion to its places, but at least eight."""
    sources = {
        folder: {
            str(path.relative_to(root)): path.read_text(encoding="utf-8")
            for path in sorted((root / "expmgr" / folder).rglob("*.py"))
        }
        for folder in folders
    }
    found = {
        folder: [(file, place, choices) for file, source in files.items() for place, choices in places(source).items()]
        for folder, files in sources.items()
    }
    total = sum(map(len, found.values()))
    picked: list[Mutant] = []
    for folder, candidates in found.items():
        chance = random.Random(f"{seed} {folder}")
        candidates.sort()
        chance.shuffle(candidates)
        wanted = max(8, round(count * len(candidates) / total))
        here: list[Mutant] = []
        for file, (line, _), choices in candidates:
            chance.shuffle(choices)
            made = (mutant(file, sources[folder][file], *choice, line) for choice in choices)
            if len(here) < wanted and (one := next((one for one in made if one is not None), None)):
                here.append(one)
        picked += here
    random.Random(seed).shuffle(picked)  # so that what was tried when the time is over is a sample too
    return picked


def named(root: Path, name: str) -> Mutant:
    """The mutant that a survivor is named as: FILE:OPERATOR:NUMBER."""
    file, operator, number = name.split(":")
    source = (root / file).read_text(encoding="utf-8")
    choice = (f"core/{operator}", int(number))
    for (line, _), choices in places(source).items():
        if choice in choices and (found := mutant(file, source, *choice, line)) is not None:
            return found
    raise SystemExit(f"there is no mutant {name}")
